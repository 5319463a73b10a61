//! `excite batch watch`: follows a batch until nothing more happens to it.

use std::time::{Duration, Instant};

use excite_jobs::api::{BatchState, BatchView};
use excite_jobs::{BatchId, State, Tally};
use indicatif::ProgressBar;

use super::view;
use crate::client::{Client, Payload, Request, Trouble};
use crate::fault::{Fault, Status};

/// The first waits between two looks, and the longest.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Between lines where there is no terminal to draw a bar on.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Looks at a batch that has ended, until its jobs are counted.
const UNCOUNTED_LOOKS_MAX: u32 = 60;

/// Follows a batch. Ctrl-C ends the watching, not the batch.
pub(crate) fn follow(client: &Client<'_>, id: BatchId) -> Result<Status, Fault> {
    let mut screen = Screen::new(client);
    let ended = watch(client, id, &mut screen);
    screen.bar.finish_and_clear();
    match ended {
        Ok(batch) => Ok(finish(client, &batch)),
        Err(fault) if fault.status == Status::Interrupted => {
            client.printer.note(&format!(
                "stopped watching; the batch goes on: `excite batch watch {id}` follows it, \
                 `excite batch cancel {id}` ends it"
            ));
            Ok(Status::Interrupted)
        }
        Err(fault) => Err(fault),
    }
}

fn watch(client: &Client<'_>, id: BatchId, screen: &mut Screen<'_>) -> Result<BatchView, Fault> {
    let request = Request::get(format!("/v1/batches/{id}"));
    let (mut look, mut uncounted) = (LOOK, 0);
    let mut gone = false;
    loop {
        match client.try_once(&request, Payload::None) {
            Ok(answer) => {
                let batch: BatchView = client.document(&answer)?;
                if std::mem::take(&mut gone) {
                    screen.note("the server is there again");
                }
                screen.show(&batch);
                if view::ended(&batch) {
                    if batch.tally.is_some() || uncounted == UNCOUNTED_LOOKS_MAX {
                        return Ok(batch);
                    }
                    uncounted += 1;
                }
            }
            Err(Trouble::Gone { fault, wait }) => {
                if !std::mem::replace(&mut gone, true) {
                    screen.note(&format!("{}; trying on", fault.message));
                }
                client.pause(wait.unwrap_or(LOOK_MAX))?;
                continue;
            }
            Err(Trouble::Final(fault)) => return Err(*fault),
        }
        client.pause(look)?;
        look = look.mul_f64(1.2).min(LOOK_MAX);
    }
}

/// What people see of it.
struct Screen<'a> {
    client: &'a Client<'a>,
    bar: ProgressBar,
    started: Instant,
    /// Jobs that had succeeded when the watching began.
    before: Option<u64>,
    line_at: Option<Instant>,
    last: Option<(BatchState, Option<Tally>)>,
}

impl<'a> Screen<'a> {
    fn new(client: &'a Client<'a>) -> Self {
        Self {
            client,
            bar: client.printer.bar(0),
            started: Instant::now(),
            before: None,
            line_at: None,
            last: None,
        }
    }

    fn note(&self, line: &str) {
        self.bar.suspend(|| self.client.printer.note(line));
    }

    fn show(&mut self, batch: &BatchView) {
        let now = Some((batch.state, batch.tally.clone()));
        if now == self.last {
            self.bar.tick();
            return;
        }
        self.last = now;
        self.client.printer.document(batch);
        let text = self.text(batch);
        let terminal = batch.tally.as_ref().map_or(0, Tally::terminal);
        if self.bar.length() != Some(batch.jobs.into()) {
            self.bar.set_length(batch.jobs.into());
            // What was done before must not count as speed.
            self.bar.set_position(terminal);
            self.bar.reset_eta();
        }
        self.bar.set_position(terminal);
        self.bar.set_message(text.clone());
        let due = self.line_at.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if self.bar.is_hidden() && due {
            self.line_at = Some(Instant::now());
            let percent = 100 * terminal / u64::from(batch.jobs).max(1);
            self.client.printer.note(&format!("{percent} % of {} jobs; {text}", batch.jobs));
        }
    }

    fn text(&mut self, batch: &BatchView) -> String {
        let Some(tally) = &batch.tally else { return "counting".to_owned() };
        let succeeded = tally.of(State::Succeeded);
        let made = succeeded.saturating_sub(*self.before.get_or_insert(succeeded));
        let rate = made as f64 / self.started.elapsed().as_secs_f64().max(0.1);
        let mut text = view::counts(tally);
        if made > 0 {
            text += &format!(", {rate:.1} images/s");
            let left = u64::from(batch.jobs).saturating_sub(tally.terminal());
            if self.bar.is_hidden() && left > 0 {
                text += &format!(", {} left", view::span(left as f64 / rate));
            }
        }
        if !tally.failures.is_empty() {
            text += &format!(", failures: {}", view::by_code(&tally.failures));
        }
        if batch.state == BatchState::Paused {
            text = format!("paused; {text}");
        }
        text
    }
}

fn finish(client: &Client<'_>, batch: &BatchView) -> Status {
    let id = batch.id;
    let Some(tally) = &batch.tally else {
        client.printer.result(&format!("{id} {}; its jobs are not counted yet", batch.state));
        return Status::Failed;
    };
    client.printer.result(&format!("{id} {}: {}", batch.state, view::counts(tally)));
    if tally.of(State::Dead) > 0 {
        client.printer.note(&format!("see what died of what: `excite dead list --batch {id}`"));
    }
    if tally.of(State::Succeeded) > 0 {
        client.printer.note(&format!("fetch images with `excite batch fetch {id} --out images`"));
    }
    status(batch, tally)
}

/// Exit status of a batch that has ended.
pub(super) fn status(batch: &BatchView, tally: &Tally) -> Status {
    match tally.of(State::Succeeded) {
        all if all >= u64::from(batch.jobs) => Status::Done,
        0 => Status::Failed,
        _ => Status::PartlyFailed,
    }
}
