//! `excite batch list`.

use excite_jobs::State;
use excite_jobs::api::{BatchPage, BatchView};

use super::view;
use crate::args::BatchListArgs;
use crate::client::{Client, Pages};
use crate::fault::{Fault, Status};

/// Batches a request.
const PAGE: usize = 200;
/// Pages looked through for a state.
const PAGES_MAX: usize = 500;

pub(super) fn run(args: &BatchListArgs, client: &Client<'_>) -> Result<Status, Fault> {
    let limit = args.limit as usize;
    let mut batches: Vec<BatchView> = Vec::new();
    // With a state most of what comes may be of another.
    let page = if args.state.is_some() { PAGE } else { limit.min(PAGE) };
    let mut pages = Pages::new("/v1/batches".into(), page);
    for _ in 0..PAGES_MAX {
        let page: BatchPage = client.get(&pages.target())?;
        let wanted = |batch: &BatchView| args.state.is_none_or(|state| batch.state == state);
        batches.extend(page.batches.into_iter().filter(wanted));
        if batches.len() >= limit || !pages.turn(page.next) {
            break;
        }
    }
    batches.truncate(limit);
    for batch in &batches {
        client.printer.document(batch);
    }
    if batches.is_empty() {
        client.printer.note("there is no batch");
        return Ok(Status::Done);
    }
    let head = ["ID", "STATE", "DONE", "DEAD", "JOBS", "MODEL", "CREATED", "NAME"];
    client.printer.table(&head, batches.iter().map(row));
    Ok(Status::Done)
}

fn row(batch: &BatchView) -> Vec<String> {
    let of = |state| batch.tally.as_ref().map_or("?".to_owned(), |t| t.of(state).to_string());
    vec![
        batch.id.to_string(),
        batch.state.as_str().to_owned(),
        of(State::Succeeded),
        of(State::Dead),
        batch.jobs.to_string(),
        view::model(&batch.model),
        view::moment(batch.created_at),
        batch.name.clone().unwrap_or_default(),
    ]
}
