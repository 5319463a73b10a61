//! `excite batch delete`.

use excite_jobs::api::Deletion;
use ureq::http::Method;

use super::view;
use crate::args::DeleteArgs;
use crate::client::{Client, Request};
use crate::fault::{Fault, Status};

pub(super) fn run(args: &DeleteArgs, client: &Client<'_>) -> Result<Status, Fault> {
    let id = client.batch_id(&args.id)?;
    let dry = if args.yes { "" } else { "?dry_run=true" };
    let request = Request::new(Method::DELETE, format!("/v1/batches/{id}{dry}"));
    let deletion: Deletion = client.document(&client.call(&request)?)?;
    let (objects, images) = (deletion.objects, view::images(deletion.images));
    client.printer.document(&deletion);
    if deletion.deleted {
        client.printer.result(&format!("{id} is deleted: {objects} objects, {images} among them"));
    } else {
        client.printer.result(&format!("{id} has {objects} objects, {images} among them"));
        let again = format!("nothing was deleted; `excite batch delete {id} --yes` does it");
        client.printer.note(&again);
    }
    Ok(Status::Done)
}
