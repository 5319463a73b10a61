//! `excite`: images that show what their prompts say, on the command line.

mod args;
mod batch;
mod client;
mod dead;
mod doctor;
mod eval;
mod explain;
mod fault;
mod files;
mod generate;
mod model;
mod models;
mod parity;
mod printer;
mod prompt_set;
mod serve;
mod sidecar;
mod submit;
mod token;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};
use excite_diffusion::Instructions;

use args::{Cli, Command, CompletionsArgs};
use fault::{Fault, Status};
use printer::Printer;

/// candle walks its graph by recursion, deeper than a thread's usual stack with a large model.
const STACK_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let printer = Printer::new(cli.json());
    let work = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || run(cli));
    let result = match work.map(std::thread::JoinHandle::join) {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Fault::bug("a thread panicked")),
        Err(error) => Err(Fault::bug(&error.to_string())),
    };
    match result {
        Ok(status) => status.into(),
        Err(fault) => {
            printer.fault(&fault);
            fault.status.into()
        }
    }
}

fn run(cli: Cli) -> Result<Status, Fault> {
    let printer = Printer::new(cli.json());
    if cli.command.computes() {
        Instructions::choose().map_err(excite_diffusion::Error::from)?;
        excite_diffusion::threads()?;
    }
    let interrupted = interrupted()?;
    match cli.command {
        Command::Generate(args) => generate::run(*args, &printer, &interrupted),
        Command::Explain(args) => explain::run(&args, &printer, &interrupted),
        Command::Model(command) => model::run(&command, &printer, &interrupted),
        Command::Parity(args) => parity::run(&args, &printer, &interrupted),
        Command::Eval(args) => eval::run(&args, &printer, &interrupted),
        Command::Serve(args) => serve::run(&args, &printer),
        Command::Submit(args) => submit::run(&args, &printer, &interrupted),
        Command::Batch(command) => batch::run(&command, &printer, &interrupted),
        Command::Dead(command) => dead::run(&command, &printer, &interrupted),
        Command::Token(command) => token::run(&command, &printer),
        Command::Completions(args) => completions(&args, &printer),
        Command::Doctor(args) => doctor::run(&args, &printer, &interrupted),
    }
}

fn completions(args: &CompletionsArgs, printer: &Printer) -> Result<Status, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "excite", &mut script);
    printer.result(String::from_utf8_lossy(&script).trim_end());
    Ok(Status::Done)
}

/// A flag that Ctrl-C sets; a second Ctrl-C ends the program where it stands.
fn interrupted() -> Result<Arc<AtomicBool>, Fault> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::SeqCst) {
            #[expect(clippy::exit, reason = "the second Ctrl-C asks for just that")]
            std::process::exit(Status::Interrupted.code());
        }
    })
    .map_err(|e| Fault::bug(&format!("Ctrl-C cannot be handled: {e}")))?;
    Ok(flag)
}
