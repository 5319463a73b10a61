//! `excite token`: who may use a server.

use excite_dispatcher::tokens;
use serde_json::json;

use crate::args::TokenCommand;
use crate::fault::{Fault, Status};
use crate::printer::Printer;

pub(crate) fn run(command: &TokenCommand, printer: &Printer) -> Result<Status, Fault> {
    let TokenCommand::New(args) = command;
    let token = tokens::add(&args.file, &args.name, args.scope).map_err(|error| {
        let remedy = "Mend what is named, or use another file or name.";
        Fault::usage("token", error.to_string(), remedy)
    })?;
    printer.result(&token);
    printer.object(&json!({"v": 1, "name": args.name, "scope": args.scope, "token": token}));
    Ok(Status::Done)
}
