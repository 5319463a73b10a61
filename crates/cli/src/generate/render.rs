//! Micro-batches: images that can share a run are made together and written as they finish.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use excite_diffusion::{Error, Model, Outputs, Rendered, Search, Trace, Wanted};
use excite_jobs::progress::MicroBatchSize;
use excite_jobs::{FoundSubject, SchedulerName, Sidecar, Spec, Warning};
use excite_worker::BatchSize;
use excite_worker::batch_size::{self, BatchSizes};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::plan::Image;
use super::{extras, shown};
use crate::args::GenerateArgs;
use crate::fault::Fault;
use crate::files;
use crate::printer::Printer;
use crate::sidecar;

/// What became of the images.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) made: usize,
    pub(super) failed: usize,
    pub(super) interrupted: bool,
    pub(super) seconds: f64,
    /// When the first step of the first image was done: before that come loading and the text.
    pub(super) first_step: Option<OffsetDateTime>,
}

/// What a micro-batch does.
struct Work<'a> {
    args: &'a GenerateArgs,
    model: &'a Model,
    printer: &'a Printer,
    interrupted: &'a AtomicBool,
    bar: ProgressBar,
    total: usize,
    first_step: OnceCell<OffsetDateTime>,
    sizes: BatchSizes,
}

/// Images that `auto` makes together at most.
const AUTO_MOST: usize = 8;

/// Makes and writes the images.
///
/// # Errors
/// If a file cannot be written. An image that cannot be made is counted, and the others go on.
pub(super) fn run(
    args: &GenerateArgs,
    model: &Model,
    todo: &[&Image],
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Tally, Fault> {
    let started = Instant::now();
    let steps: u64 = todo.iter().map(|image| u64::from(image.spec.steps)).sum();
    let bar = if todo.is_empty() { ProgressBar::hidden() } else { printer.bar(steps) };
    let (total, first_step) = (todo.len(), OnceCell::new());
    let most = match args.batch_size {
        BatchSize::Auto => AUTO_MOST,
        BatchSize::Jobs(jobs) => jobs.into(),
    };
    let sizes = BatchSizes::new(args.batch_size, most);
    let work = Work { args, model, printer, interrupted, bar, total, first_step, sizes };
    let mut tally = Tally::default();
    let mut left = Left::new(todo);
    while let Some(images) = left.take(|spec| work.sizes.jobs(spec)) {
        work.micro_batch(&images, &mut tally)?;
        if tally.interrupted {
            break;
        }
    }
    work.bar.finish_and_clear();
    if args.batch_size == BatchSize::Auto {
        for MicroBatchSize { width, height, jobs, reason, .. } in work.sizes.shown() {
            printer.note(&format!("{width}x{height}, up to {jobs} at a time: {reason}"));
        }
    }
    tally.seconds = started.elapsed().as_secs_f64();
    tally.first_step = work.first_step.get().copied();
    Ok(tally)
}

/// Images that are not made yet, in order, by what those of a micro-batch share: size, steps and
/// scheduler. Those that may need several seeds do not keep the others waiting.
struct Left<'a>(HashMap<Key, VecDeque<(usize, &'a Image)>>);

type Key = (u32, u32, u32, SchedulerName, bool);

impl<'a> Left<'a> {
    fn new(todo: &[&'a Image]) -> Self {
        let mut groups: HashMap<Key, VecDeque<(usize, &Image)>> = HashMap::new();
        for (at, &image) in todo.iter().enumerate() {
            let Image { spec, accept, .. } = image;
            let key = (spec.width, spec.height, spec.steps, spec.scheduler, accept.is_some());
            groups.entry(key).or_default().push_back((at, image));
        }
        Self(groups)
    }

    /// The first image that is left and those that go with it, as many as `most` says.
    fn take(&mut self, most: impl Fn(&Spec) -> usize) -> Option<Vec<&'a Image>> {
        let first = |group: &VecDeque<(usize, &Image)>| group.front().map(|(at, _)| *at);
        let group = self.0.values_mut().min_by_key(|group| first(group).unwrap_or(usize::MAX))?;
        let count = most(&group.front()?.1.spec).min(group.len());
        Some(group.drain(..count).map(|(_, image)| image).collect())
    }
}

impl Work<'_> {
    fn micro_batch(&self, images: &[&Image], tally: &mut Tally) -> Result<(), Fault> {
        let Some(first) = images.first() else { return Ok(()) };
        if let Err(fits) = self.sizes.begin(self.model, &first.spec, images.len()) {
            for part in images.chunks(fits) {
                if !tally.interrupted {
                    self.micro_batch(part, tally)?;
                }
            }
            return Ok(());
        }
        let started = Instant::now();
        let position = self.bar.position();
        let made = self.render(images, tally);
        self.sizes.end(&first.spec, images.len());
        match made {
            Ok(rendered) => {
                let seconds = started.elapsed().as_secs_f64() / images.len() as f64;
                for (image, rendered) in images.iter().zip(rendered) {
                    self.keep(image, &rendered, seconds, tally)?;
                }
            }
            Err(Error::Cancelled) => tally.interrupted = true,
            Err(_) if images.len() > 1 => {
                // One of them fails; alone, the others need not.
                self.bar.set_position(position);
                for image in images {
                    if !tally.interrupted {
                        self.micro_batch(&[image], tally)?;
                    }
                }
            }
            Err(error) => {
                tally.failed += 1;
                self.bar.set_position(position + u64::from(images[0].spec.steps));
                self.report_failure(images[0], Fault::from(error));
            }
        }
        Ok(())
    }

    fn render(&self, images: &[&Image], tally: &Tally) -> Result<Vec<Rendered>, Error> {
        let wanted = |image: &&Image| Wanted { spec: image.spec.clone(), accept: image.accept };
        let wanted: Vec<Wanted> = images.iter().map(wanted).collect();
        let outputs = Outputs { latents: self.args.trace.is_some(), maps: true };
        let search = Search::start(self.model, &wanted, outputs)?;
        let first = tally.made + tally.failed + 1;
        let last = first + images.len() - 1;
        let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let position = self.bar.position();
        let stop = || self.interrupted.load(Ordering::Relaxed);
        let mut begun = Instant::now();
        search.complete(&stop, |search, report| {
            self.first_step.get_or_init(OffsetDateTime::now_utc);
            let took = std::mem::replace(&mut begun, Instant::now()).elapsed();
            let specs: Vec<&Spec> =
                search.rows().iter().map(|&place| &images[place].spec).collect();
            let work = batch_size::Work::of(specs.iter().copied(), report);
            self.sizes.step(&images[0].spec, specs.len(), work, took);
            let losses: Vec<f32> =
                report.losses.iter().copied().filter(|loss| loss.is_finite()).collect();
            let loss = match losses.as_slice() {
                [] => String::new(),
                losses => format!(", loss {:.3}", losses.iter().sum::<f32>() / losses.len() as f32),
            };
            let (step, steps) = (report.step + 1, report.steps);
            let image = if self.total == 1 { "image" } else { "images" };
            let tried = search.rows().iter().map(|&place| search.try_of(place)).max();
            let tried = match tried.filter(|tried| *tried > 1) {
                Some(tried) => format!(", try {tried}"),
                None => String::new(),
            };
            let message =
                format!("{image} {numbers} of {}{tried}, step {step}/{steps}{loss}", self.total);
            self.bar.set_message(message);
            // The bar counts the steps that were asked for; PNDM makes one more. A further try goes
            // over the same ones again.
            let asked = u64::from(wanted[0].spec.steps) * images.len() as u64;
            self.bar.set_position(position + asked * step as u64 / steps as u64);
        })
    }

    /// Writes an image, then its sidecar, which says that it is finished.
    fn keep(
        &self,
        image: &Image,
        rendered: &Rendered,
        seconds: f64,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let png = rendered.picture.to_png_of(&rendered.spec)?;
        files::write(&image.path, &png)?;
        if self.args.attention {
            extras::draw_attention(image, rendered)?;
        }
        if let Some(path) = &self.args.trace {
            files::write(path, &Trace::to_bytes(rendered)?)?;
        }
        let (custom_id, labels) = (image.custom_id.clone(), image.labels.clone());
        let sidecar = sidecar::write(&image.path, &png, rendered, seconds, custom_id, labels)?;
        tally.made += 1;
        self.report(image, &sidecar);
        Ok(())
    }

    fn report(&self, image: &Image, sidecar: &Sidecar) {
        let mut line = format!("{}  {:.1} s", shown(&image.path), sidecar.seconds);
        let attention = &sidecar.attention;
        if let (Some(loss), Some(weakest)) = (attention.loss, &attention.weakest) {
            line.push_str(&format!(", loss {loss:.3}, weakest subject: {weakest}"));
        }
        if !sidecar.tries.is_empty() {
            let (seed, tries) = (sidecar.spec.seed, sidecar.tries.len());
            let tries = if tries == 1 { "1 try".into() } else { format!("{tries} tries") };
            line.push_str(&format!(", seed {seed} of {tries}"));
        }
        let refinements = sidecar.refinements();
        if refinements > 0 {
            line.push_str(&format!(", {refinements} refinement iterations"));
        }
        self.bar.suspend(|| self.printer.result(&line));
        self.printer.object(&with_sidecar(about(image, "made"), sidecar));
    }

    fn report_failure(&self, image: &Image, mut fault: Fault) {
        let mut object = about(image, "failed");
        object["error"] = json!(fault);
        self.printer.object(&object);
        fault.message = format!("{}: {}", shown(&image.path), fault.message);
        self.bar.suspend(|| self.printer.error(&fault));
    }
}

/// An image that was there already, for programs.
pub(super) fn skipped(image: &Image, sidecar: &Sidecar) -> Value {
    with_sidecar(about(image, "skipped"), sidecar)
}

fn about(image: &Image, status: &str) -> Value {
    let warning = |w: &Warning| json!({"code": w.code(), "message": w.to_string()});
    let warnings: Vec<Value> = image.warnings.iter().map(warning).collect();
    let found = |f: &FoundSubject| json!({"word": f.subject.word, "attributes": f.attributes, "sure": f.sure});
    json!({
        "v": 1, "status": status, "path": shown(&image.path), "custom_id": image.custom_id,
        "labels": image.labels, "prompt": image.spec.prompt, "seed": image.spec.seed,
        "method": image.spec.method.name(), "subjects": image.spec.subjects,
        "found": image.found.iter().map(found).collect::<Vec<_>>(), "warnings": warnings,
    })
}

fn with_sidecar(mut object: Value, sidecar: &Sidecar) -> Value {
    let attention = &sidecar.attention;
    object["seed"] = json!(sidecar.spec.seed);
    if !sidecar.tries.is_empty() {
        object["tries"] = json!(sidecar.tries);
    }
    object["loss"] = json!(attention.loss);
    object["scores"] = json!(attention.scores);
    object["weakest"] = json!(attention.weakest);
    object["refinements"] = json!(sidecar.refinements());
    object["seconds"] = json!(sidecar.seconds);
    object["sha256"] = json!(sidecar.sha256);
    object
}
