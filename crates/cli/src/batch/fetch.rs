//! `excite batch fetch`: the images of a batch, checked, as files.
//!
//! Where it stopped it goes on: what is there already, and whole, is not fetched again.

mod download;
mod names;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use excite_jobs::api::{BatchView, JobPage, JobView};
use excite_jobs::{BatchId, State};
use indicatif::ProgressBar;
use serde_json::json;

use super::view;
use crate::args::FetchArgs;
use crate::client::{Client, Pages};
use crate::fault::{Fault, Status};
use crate::files;
use download::{Got, Target};
use names::Names;

/// Jobs a request.
const PAGE: usize = 1000;
/// Between two looks for new images.
const LOOK: Duration = Duration::from_secs(2);
/// Reports that wait to be shown; downloads wait when there are more.
const REPORTS: usize = 64;
/// Faults that are shown; the others are counted.
const FAULTS_SHOWN: usize = 20;

pub(super) fn run(args: &FetchArgs, client: &Client<'_>) -> Result<Status, Fault> {
    let id = client.batch_id(&args.id)?;
    let mut batch: BatchView = client.get(&format!("/v1/batches/{id}"))?;
    files::prepare_folder(&args.out)?;
    let mut fetch = Fetch::new(args, client, id);
    loop {
        let ended = view::ended(&batch);
        fetch.look()?;
        fetch.download()?;
        if !args.watch || ended {
            break;
        }
        if let Err(fault) = client.pause(LOOK) {
            fetch.summary(&batch);
            return Err(fault);
        }
        batch = client.get(&format!("/v1/batches/{id}"))?;
    }
    Ok(fetch.summary(&batch))
}

struct Fetch<'a> {
    args: &'a FetchArgs,
    client: &'a Client<'a>,
    pages: Pages,
    names: Names,
    /// By their place in the batch.
    targets: BTreeMap<u32, Target>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    fetched: usize,
    replaced: usize,
    skipped: usize,
    failed: usize,
    bytes: u64,
}

impl<'a> Fetch<'a> {
    fn new(args: &'a FetchArgs, client: &'a Client<'a>, id: BatchId) -> Self {
        Self {
            args,
            client,
            pages: Pages::new(format!("/v1/batches/{id}/jobs?state=succeeded"), PAGE),
            names: Names::new(args.layout),
            targets: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// Finds out what images there are that were not there at the last look.
    fn look(&mut self) -> Result<(), Fault> {
        // By place, so that names do not depend on who was finished first; the later of two
        // counts.
        let mut found: BTreeMap<u32, JobView> = BTreeMap::new();
        loop {
            let page: JobPage = self.client.get(&self.pages.target())?;
            let succeeded = page.jobs.into_iter().filter(|job| job.state == State::Succeeded);
            found.extend(succeeded.map(|job| (job.index, job)));
            if !self.pages.turn(page.next) {
                break;
            }
        }
        for (index, job) in found {
            let Some(success) = &job.success else { continue };
            match self.targets.get_mut(&index) {
                Some(target) if target.sha256 == success.sha256 => {}
                Some(target) => {
                    target.sha256.clone_from(&success.sha256);
                    target.done = false;
                }
                None => {
                    let path = self.args.out.join(self.names.path(&job));
                    let target = Target {
                        id: job.id,
                        path,
                        sha256: success.sha256.clone(),
                        sidecar: self.args.sidecars,
                        done: false,
                    };
                    self.targets.insert(index, target);
                }
            }
        }
        Ok(())
    }

    /// Fetches what is missing, several at the same time.
    fn download(&mut self) -> Result<(), Fault> {
        let mut todo: Vec<&mut Target> = self.targets.values_mut().filter(|t| !t.done).collect();
        if todo.is_empty() {
            return Ok(());
        }
        let bar = self.client.printer.bar(todo.len() as u64);
        bar.set_message("fetching");
        let fetched = {
            let targets: Vec<&Target> = todo.iter().map(|target| &**target).collect();
            at_once(self.client, &targets, self.args.jobs, &bar, &mut self.tally)
        };
        bar.finish_and_clear();
        for target in &mut todo {
            // What failed is not tried again by this command.
            target.done = true;
        }
        fetched
    }

    fn summary(&self, batch: &BatchView) -> Status {
        let Tally { fetched, replaced, skipped, failed, bytes } = self.tally;
        let printer = self.client.printer;
        let (out, there) = (self.args.out.display(), fetched + skipped);
        printer.object(&json!({"v": 1, "summary": {
            "fetched": fetched, "skipped": skipped, "replaced": replaced, "failed": failed,
            "bytes": bytes, "jobs": batch.jobs, "out": self.args.out,
        }}));
        let size = crate::model::bytes(bytes);
        printer.result(&format!(
            "{} in {out}, {fetched} of them new ({size})",
            view::images(there as u64)
        ));
        if skipped > 0 {
            printer.note(&format!("{skipped} were there already"));
        }
        if replaced > 0 {
            printer.note(&format!("{replaced} were there with other contents and are replaced"));
        }
        if failed > 0 {
            printer.note(&format!("{failed} could not be fetched; the same command tries again"));
        }
        let missing = (batch.jobs as usize).saturating_sub(self.targets.len());
        if missing > 0 {
            let counts = batch.tally.as_ref().map_or("not counted".to_owned(), view::counts);
            printer.note(&format!("{missing} jobs of {} have no image: {counts}", batch.jobs));
        }
        match (there, failed + missing) {
            (_, 0) => Status::Done,
            (0, _) => Status::Failed,
            _ => Status::PartlyFailed,
        }
    }
}

/// What a download tells: which target, and what came of it.
type Report<'a> = (&'a Target, Result<Got, Fault>);

fn at_once(
    client: &Client<'_>,
    targets: &[&Target],
    threads: u32,
    bar: &ProgressBar,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let (next, halt) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, reports) = sync_channel(REPORTS);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(targets.len() as u32) {
            let (sender, next, halt) = (sender.clone(), &next, &halt);
            scope.spawn(move || work(client, targets, next, halt, &sender));
        }
        drop(sender);
        let mut last = Ok(());
        for (target, got) in reports {
            bar.inc(1);
            match got {
                Ok(got) => count(client, target, &got, tally),
                Err(fault) if fatal(&fault) => {
                    halt.store(true, Ordering::Relaxed);
                    last = Err(fault);
                }
                Err(fault) => {
                    tally.failed += 1;
                    if tally.failed <= FAULTS_SHOWN {
                        bar.suspend(|| client.printer.fault(&fault));
                    }
                }
            }
        }
        last
    })
}

/// Whether the other images would meet the same.
fn fatal(fault: &Fault) -> bool {
    fault.status == Status::Interrupted
        || matches!(fault.code.as_str(), "server_unreachable" | "io")
}

fn work<'a>(
    client: &Client<'_>,
    targets: &[&'a Target],
    next: &AtomicUsize,
    halt: &AtomicBool,
    reports: &SyncSender<Report<'a>>,
) {
    while !halt.load(Ordering::Relaxed) {
        let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
        if reports.send((target, download::run(client, target))).is_err() {
            return;
        }
    }
}

fn count(client: &Client<'_>, target: &Target, got: &Got, tally: &mut Tally) {
    let skipped = match got {
        Got::There => {
            tally.skipped += 1;
            true
        }
        Got::Fetched { bytes, replaced } => {
            tally.fetched += 1;
            tally.bytes += bytes;
            tally.replaced += usize::from(*replaced);
            false
        }
    };
    client.printer.object(&json!({
        "v": 1, "id": target.id, "index": target.id.index, "path": target.path,
        "sha256": target.sha256, "skipped": skipped,
    }));
}
