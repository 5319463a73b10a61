//! `excite batch show`.

use excite_jobs::State;
use excite_jobs::api::BatchView;

use super::view;
use crate::client::Client;
use crate::fault::{Fault, Status};
use crate::model::bytes;

pub(super) fn run(id: &str, client: &Client<'_>) -> Result<Status, Fault> {
    let id = client.batch_id(id)?;
    let batch: BatchView = client.get(&format!("/v1/batches/{id}"))?;
    client.printer.document(&batch);
    for (name, value) in lines(&batch) {
        client.printer.result(&format!("{name:<10}  {value}"));
    }
    let id = batch.id;
    let dead = batch.tally.as_ref().map_or(0, |tally| tally.of(State::Dead));
    if dead > 0 {
        client.printer.note(&format!("see `excite dead list --batch {id}`"));
    }
    Ok(Status::Done)
}

fn lines(batch: &BatchView) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("id", batch.id.to_string()),
        ("state", batch.state.as_str().to_owned()),
        ("model", batch.model.clone()),
        ("created", view::moment(batch.created_at)),
        ("size", format!("{} of {} lines", view::images(batch.jobs.into()), batch.lines)),
        (
            "queue",
            format!("class {}, lane {}, weight {}", batch.class, batch.lane.as_str(), batch.weight),
        ),
    ];
    if let Some(name) = &batch.name {
        lines.insert(1, ("name", name.clone()));
    }
    if let Some(at) = batch.finished_at {
        lines.push(("finished", view::moment(at)));
    }
    match &batch.tally {
        None => lines.push(("jobs", "being counted again".to_owned())),
        Some(tally) => {
            lines.push(("jobs", view::counts(tally)));
            if !tally.failures.is_empty() {
                lines.push(("failures", view::by_code(&tally.failures)));
            }
            if tally.retries + tally.preemptions > 0 {
                let (retries, preemptions) = (tally.retries, tally.preemptions);
                lines.push(("again", format!("{retries} retries, {preemptions} preemptions")));
            }
            let (spent, size) = (view::span(tally.seconds), bytes(tally.bytes));
            lines.push(("spent", format!("{spent} of compute time, {size} of images")));
        }
    }
    if let Some(seconds) = batch.gpu_seconds_left.filter(|_| !view::ended(batch)) {
        lines.push(("left", format!("{} of compute time", view::span(seconds))));
    }
    if !batch.warnings.is_empty() {
        lines.push(("warnings", format!("{} (lines)", view::by_code(&batch.warnings))));
    }
    lines
}
