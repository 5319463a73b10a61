//! What steps take and images need, learnt while micro-batches run, for each model and size of
//! image.
//!
//! Steps are compared with their like only: guided ones with guided ones, with one median for each
//! size. Their share among an image's steps weighs them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use excite_diffusion::{Model, StepReport};
use excite_jobs::Spec;
use excite_jobs::progress::MicroBatchSize;
use excite_service::memory;

use super::{BatchSize, Choice, Limits, choose, fits};

/// Steps that a median is of at most.
const STEPS_KEPT: usize = 33;
/// Steps after which a size is measured.
pub const STEPS_MIN: usize = 3;
/// A kind of step that is rarer than this among those of an image does not count.
const SHARE_MIN: f64 = 0.1;
/// Steps by which shares are known; then the older ones count half.
const SHARES_OF: f64 = 4096.;
/// Micro-batches after which a size that none had is measured again: the machine may be another
/// one by now, or have other work.
const STALE: u64 = 200;
/// Models and sizes of images that are known; then the longest unused is forgotten.
const KNOWN_MAX: usize = 64;
/// Bytes of a weight in memory.
const WEIGHT_BYTES: u64 = 4;

/// What a step did for each of its images, if for all the same: only that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    /// One gradient pass and no refinement.
    guided: bool,
    /// Predictions: both halves of classifier-free guidance, or one a phrase and one without any.
    passes: usize,
}

impl Work {
    /// Of the images of a step; `None` if they differ, or some were refined.
    pub fn of<'a>(specs: impl IntoIterator<Item = &'a Spec>, report: &StepReport) -> Option<Self> {
        if report.refinements.iter().any(|refinements| *refinements > 0) {
            return None;
        }
        let works = specs
            .into_iter()
            .zip(&report.losses)
            .map(|(spec, loss)| Self { guided: !loss.is_nan(), passes: passes(spec) });
        works.map(Some).reduce(|a, b| if a == b { a } else { None }).flatten()
    }
}

/// Predictions that a step makes for an image.
fn passes(spec: &Spec) -> usize {
    let all = spec.method.passes();
    if spec.guidance_scale > 1. { all } else { all.saturating_sub(1) }
}

/// What a model's images of one size were measured to take.
#[derive(Debug)]
struct Known {
    model: String,
    width: u32,
    height: u32,
    /// Of the last use, for forgetting.
    used: u64,
    /// Micro-batches.
    runs: u64,
    series: BTreeMap<(usize, Work), VecDeque<f64>>,
    /// At which micro-batch a size was measured last.
    measured_at: BTreeMap<usize, u64>,
    /// Steps and images by what was done.
    shares: BTreeMap<Work, f64>,
    /// Memory of an image, estimated before it is measured.
    image_bytes: u64,
    image_measured: bool,
    fits: Option<usize>,
    failed: Option<usize>,
    choice: Choice,
}

impl Known {
    fn is(&self, spec: &Spec) -> bool {
        (self.width, self.height) == (spec.width, spec.height) && self.model == spec.model
    }

    fn is_stale(&self, size: usize) -> bool {
        self.measured_at.get(&size).is_some_and(|at| at + STALE < self.runs)
    }

    /// Seconds a step and image, by size, each kind of step by how often it is made.
    fn seconds(&self) -> BTreeMap<usize, f64> {
        let all: f64 = self.shares.values().sum();
        let usual = |share: f64| share >= SHARE_MIN * all;
        let of_size = |size: usize| {
            let (mut seconds, mut weight) = (0., 0.);
            for (work, share) in self.shares.iter().filter(|(_, share)| usual(**share)) {
                seconds += share * median(self.series.get(&(size, *work))?)?;
                weight += share;
            }
            Some((size, seconds / weight / size as f64))
        };
        let sizes = self.measured_at.keys().filter(|size| !self.is_stale(**size));
        sizes.filter_map(|size| of_size(*size)).collect()
    }

    fn note(&mut self, images: usize, work: Work, took: f64) {
        if self.is_stale(images) {
            self.series.retain(|(size, _), _| *size != images);
        }
        self.measured_at.insert(images, self.runs);
        let series = self.series.entry((images, work)).or_default();
        series.push_back(took);
        if series.len() > STEPS_KEPT {
            series.pop_front();
        }
        *self.shares.entry(work).or_default() += images as f64;
        if self.shares.values().sum::<f64>() > SHARES_OF {
            self.shares.values_mut().for_each(|share| *share /= 2.);
        }
    }
}

fn median(series: &VecDeque<f64>) -> Option<f64> {
    if series.len() < STEPS_MIN {
        return None;
    }
    let mut sorted: Vec<f64> = series.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Sizes of micro-batches, learnt while they run.
#[derive(Debug)]
pub struct BatchSizes {
    set: BatchSize,
    slots: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Vec<Known>,
    clock: u64,
    /// Memory of the process before the run.
    before: Option<u64>,
}

impl BatchSizes {
    /// Nothing is known. A micro-batch has `slots` jobs at most.
    pub fn new(set: BatchSize, slots: usize) -> Self {
        Self { set, slots: slots.max(1), state: Mutex::default() }
    }

    /// The most jobs of a micro-batch of this model and size.
    pub fn jobs(&self, spec: &Spec) -> usize {
        let unknown = match self.set {
            BatchSize::Auto => self.slots,
            BatchSize::Jobs(jobs) => self.slots.min(jobs.into()),
        };
        let state = self.state();
        let known = state.known.iter().find(|known| known.is(spec));
        known.map_or(unknown, |known| known.choice.jobs)
    }

    /// What was chosen, for each model and size.
    pub fn shown(&self) -> Vec<MicroBatchSize> {
        let state = self.state();
        let shown = |known: &Known| MicroBatchSize {
            model: known.model.clone(),
            width: known.width,
            height: known.height,
            jobs: u32::try_from(known.choice.jobs).unwrap_or(u32::MAX),
            reason: known.choice.reason.clone(),
        };
        state.known.iter().map(shown).collect()
    }

    /// A run of so many images is to begin.
    ///
    /// # Errors
    /// How many images there is memory for, if that is less and nobody set how many to make.
    pub fn begin(&self, model: &Model, spec: &Spec, images: usize) -> Result<(), usize> {
        // A GPU's memory is not the process's; where it is short, the micro-batch is halved.
        let on_cpu = !model.compute().is_gpu();
        let (available, total) = match on_cpu {
            true => (memory::available_bytes(), memory::total_bytes()),
            false => (None, None),
        };
        let mut state = self.state();
        let known = state.known(spec);
        if !known.image_measured {
            known.image_bytes = guess(model, spec);
        }
        known.fits = available.zip(total).map(|(a, total)| fits(a, total, known.image_bytes));
        self.settle(known);
        if let (BatchSize::Auto, Some(fits)) = (self.set, known.fits)
            && images > fits
        {
            return Err(fits);
        }
        known.runs += 1;
        state.before = if on_cpu && memory::reset_peak() { memory::resident_bytes() } else { None };
        Ok(())
    }

    /// A step of so many images took so long; the choice, if it is another one now.
    pub fn step(
        &self,
        spec: &Spec,
        images: usize,
        work: Option<Work>,
        took: Duration,
    ) -> Option<Choice> {
        let work = work?;
        let mut state = self.state();
        let known = state.known(spec);
        known.note(images, work, took.as_secs_f64());
        let before = known.choice.jobs;
        self.settle(known);
        (known.choice.jobs != before).then(|| known.choice.clone())
    }

    /// A run of so many images ended.
    pub fn end(&self, spec: &Spec, images: usize) {
        let mut state = self.state();
        let Some(grown) = state.before.take().and_then(|before| {
            Some(memory::peak_since_reset()?.saturating_sub(before) / images.max(1) as u64)
        }) else {
            return;
        };
        let known = state.known(spec);
        // A later run may find memory that an earlier one left to the process.
        known.image_bytes = if known.image_measured { known.image_bytes.max(grown) } else { grown };
        known.image_measured = true;
    }

    /// Memory was short with so many images; the choice from now on.
    pub fn out_of_memory(&self, spec: &Spec, images: usize) -> Choice {
        let mut state = self.state();
        let known = state.known(spec);
        let half = images.div_ceil(2);
        known.failed = Some(known.failed.map_or(half, |failed| failed.min(half)));
        self.settle(known);
        known.choice.clone()
    }

    fn settle(&self, known: &mut Known) {
        let Known { fits, failed, .. } = *known;
        let limits = Limits { slots: self.slots, fits, failed };
        known.choice = self.choose(limits, Some(known));
    }

    fn choose(&self, limits: Limits, known: Option<&Known>) -> Choice {
        match self.set {
            BatchSize::Auto => choose(limits, &known.map(Known::seconds).unwrap_or_default()),
            BatchSize::Jobs(jobs) => {
                let limits = Limits { slots: limits.slots.min(jobs.into()), fits: None, ..limits };
                Choice { jobs: limits.most(), reason: format!("as it is set{}", limits.note()) }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn known(&mut self, spec: &Spec) -> &mut Known {
        self.clock += 1;
        let at = self.known.iter().position(|known| known.is(spec)).unwrap_or_else(|| {
            if self.known.len() == KNOWN_MAX {
                let oldest = (0..KNOWN_MAX).min_by_key(|at| self.known[*at].used).unwrap_or(0);
                self.known.remove(oldest);
            }
            self.known.push(Known {
                model: spec.model.clone(),
                width: spec.width,
                height: spec.height,
                used: 0,
                runs: 0,
                series: BTreeMap::new(),
                measured_at: BTreeMap::new(),
                shares: BTreeMap::new(),
                image_bytes: 0,
                image_measured: false,
                fits: None,
                failed: None,
                choice: Choice { jobs: 1, reason: String::new() },
            });
            self.known.len() - 1
        });
        let known = &mut self.known[at];
        known.used = self.clock;
        known
    }
}

/// Bytes of an image before one was measured: a guided image of the model's own size takes about
/// as much as the weights with SD 1.x and 2.x, half as much with SDXL.
fn guess(model: &Model, spec: &Spec) -> u64 {
    let facts = model.facts();
    let weights: u64 = model.components().iter().map(|(_, stored)| stored.parameters).sum();
    let pixels = |width: u32, height: u32| u128::from(width) * u128::from(height);
    let bytes = u128::from(weights * WEIGHT_BYTES) * pixels(spec.width, spec.height)
        / pixels(facts.width, facts.height).max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::job;

    fn spec(side: u32) -> Spec {
        Spec { width: side, ..job(0).spec }
    }

    const PLAIN: Work = Work { guided: false, passes: 2 };
    const GUIDED: Work = Work { guided: true, passes: 2 };

    /// Steps of a size that take so many milliseconds an image.
    fn steps(sizes: &BatchSizes, spec: &Spec, images: usize, work: Work, each: u64) {
        let took = Duration::from_millis(each * images as u64);
        for _ in 0..STEPS_MIN {
            sizes.step(spec, images, Some(work), took);
        }
    }

    #[test]
    fn each_model_and_size_of_image_has_its_own() {
        let sizes = BatchSizes::new(BatchSize::Auto, 4);
        let (small, large) = (spec(128), spec(256));
        assert_eq!(sizes.jobs(&small), 4);
        assert!(sizes.shown().is_empty(), "asking is not using");
        steps(&sizes, &small, 4, PLAIN, 100);
        assert_eq!((sizes.jobs(&small), sizes.jobs(&large)), (2, 4));
        steps(&sizes, &small, 2, PLAIN, 100);
        steps(&sizes, &small, 1, PLAIN, 100);
        assert_eq!((sizes.jobs(&small), sizes.jobs(&large)), (1, 4));
        let shown = sizes.shown().remove(0);
        assert_eq!((shown.model.as_str(), shown.width, shown.jobs), ("emoji@0", 128, 1));
        assert!(shown.reason.contains("0.100 with 4"), "{}", shown.reason);
    }

    #[test]
    fn a_choice_is_told_once_and_after_enough_steps() {
        let sizes = BatchSizes::new(BatchSize::Auto, 2);
        let step = || sizes.step(&spec(128), 2, Some(PLAIN), Duration::from_secs(1));
        let told: Vec<Option<usize>> = (0..4).map(|_| step().map(|choice| choice.jobs)).collect();
        // The first is of a model and size that nobody knew.
        assert_eq!(told, [Some(2), None, Some(1), None]);
        let mixed = sizes.step(&spec(128), 1, None, Duration::from_secs(1));
        assert_eq!(mixed, None, "what cannot be compared is not");
    }

    #[test]
    fn kinds_of_steps_count_by_their_share() {
        let of = |guided: u64, plain: u64| {
            let sizes = BatchSizes::new(BatchSize::Auto, 2);
            let spec = spec(128);
            // Alone, plain steps are as fast as in pairs, guided ones slower.
            for _ in 0..guided {
                steps(&sizes, &spec, 2, GUIDED, 100);
                steps(&sizes, &spec, 1, GUIDED, 120);
            }
            for _ in 0..plain {
                steps(&sizes, &spec, 2, PLAIN, 100);
                steps(&sizes, &spec, 1, PLAIN, 100);
            }
            sizes.jobs(&spec)
        };
        assert_eq!(of(1, 0), 2);
        assert_eq!(of(1, 1), 2);
        assert_eq!(of(1, 4), 1, "4 % slower in all");
        assert_eq!(of(1, 20), 1);
        // A pair that was never guided is not known to be as fast.
        let sizes = BatchSizes::new(BatchSize::Auto, 2);
        let spec = spec(128);
        steps(&sizes, &spec, 2, PLAIN, 100);
        steps(&sizes, &spec, 1, PLAIN, 100);
        steps(&sizes, &spec, 1, GUIDED, 120);
        assert_eq!(sizes.jobs(&spec), 2);
    }

    #[test]
    fn short_memory_halves_for_that_model_and_size() {
        let sizes = BatchSizes::new(BatchSize::Auto, 8);
        let (small, large) = (spec(128), spec(256));
        assert_eq!(sizes.out_of_memory(&large, 6).jobs, 3);
        assert_eq!(sizes.out_of_memory(&large, 8).jobs, 3, "no more than before");
        assert_eq!((sizes.jobs(&large), sizes.jobs(&small)), (3, 8));
        assert_eq!(sizes.out_of_memory(&large, 1).jobs, 1);
        let set = BatchSizes::new(BatchSize::Jobs(4), 8);
        assert_eq!(set.jobs(&small), 4);
        steps(&set, &small, 4, PLAIN, 100);
        assert_eq!(set.jobs(&small), 4, "as it is set, whatever is measured");
        assert_eq!(set.out_of_memory(&small, 4).jobs, 2);
        assert_eq!(BatchSizes::new(BatchSize::Jobs(16), 8).jobs(&small), 8);
    }

    #[test]
    fn what_was_not_had_for_long_is_measured_again() {
        let sizes = BatchSizes::new(BatchSize::Auto, 2);
        let spec = spec(128);
        steps(&sizes, &spec, 2, PLAIN, 200);
        steps(&sizes, &spec, 1, PLAIN, 100);
        assert_eq!(sizes.jobs(&spec), 1);
        sizes.state().known(&spec).runs += STALE + 1;
        steps(&sizes, &spec, 1, PLAIN, 100);
        assert_eq!(sizes.jobs(&spec), 2);
        steps(&sizes, &spec, 2, PLAIN, 80);
        assert_eq!(sizes.jobs(&spec), 2, "what was measured before is forgotten");
    }

    #[test]
    fn only_so_many_are_remembered() {
        let sizes = BatchSizes::new(BatchSize::Auto, 2);
        for n in 0..=KNOWN_MAX as u32 {
            sizes.out_of_memory(&spec(64 * (n + 1)), 2);
            sizes.out_of_memory(&spec(64), 2);
        }
        assert_eq!(sizes.shown().len(), KNOWN_MAX);
        assert_eq!((sizes.jobs(&spec(64)), sizes.jobs(&spec(128))), (1, 2), "the longest unused");
    }
}
