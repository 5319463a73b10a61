//! `excite batch pause`, `resume`, `cancel` and `weight`.

use excite_jobs::api::{BatchChange, BatchView};
use ureq::http::Method;

use super::view;
use crate::client::{Client, Request};
use crate::fault::{Fault, Status};

pub(super) fn run(client: &Client<'_>, id: &str, change: BatchChange) -> Result<Status, Fault> {
    let id = client.batch_id(id)?;
    let request = Request::new(Method::PATCH, format!("/v1/batches/{id}"));
    let batch: BatchView = client.send(&request, &change)?;
    let jobs = batch.tally.as_ref().map_or(String::new(), |t| format!(": {}", view::counts(t)));
    let (state, weight) = (batch.state.as_str(), batch.weight);
    client.printer.result(&format!("{id} is {state}, weight {weight}{jobs}"));
    client.printer.document(&batch);
    Ok(Status::Done)
}
