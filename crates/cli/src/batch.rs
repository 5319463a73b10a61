//! `excite batch`: batches of a cluster.

mod change;
mod delete;
mod fetch;
mod list;
mod show;
pub(crate) mod view;
pub(crate) mod watch;

use std::sync::atomic::AtomicBool;

use excite_jobs::api::BatchChange;

use crate::args::{BatchCommand, BatchOneArgs};
use crate::client::Client;
use crate::fault::{Fault, Status};
use crate::printer::Printer;

pub(crate) fn run(
    command: &BatchCommand,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let of = |args: &BatchOneArgs| Client::new(&args.server, printer, interrupted);
    let change =
        |args: &BatchOneArgs, change: BatchChange| change::run(&of(args)?, &args.id, change);
    match command {
        BatchCommand::List(args) => {
            list::run(args, &Client::new(&args.server, printer, interrupted)?)
        }
        BatchCommand::Show(args) => show::run(&args.id, &of(args)?),
        BatchCommand::Watch(args) => {
            let client = of(args)?;
            watch::follow(&client, client.batch_id(&args.id)?)
        }
        BatchCommand::Pause(args) => {
            change(args, BatchChange { paused: Some(true), ..BatchChange::default() })
        }
        BatchCommand::Resume(args) => {
            change(args, BatchChange { paused: Some(false), ..BatchChange::default() })
        }
        BatchCommand::Cancel(args) => {
            change(args, BatchChange { cancelled: Some(true), ..BatchChange::default() })
        }
        BatchCommand::Weight(args) => {
            let client = Client::new(&args.server, printer, interrupted)?;
            let weight = BatchChange { weight: Some(args.weight), ..BatchChange::default() };
            change::run(&client, &args.id, weight)
        }
        BatchCommand::Fetch(args) => {
            fetch::run(args, &Client::new(&args.server, printer, interrupted)?)
        }
        BatchCommand::Delete(args) => {
            delete::run(args, &Client::new(&args.server, printer, interrupted)?)
        }
    }
}
