//! How the process of a service begins and ends.

use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "cluster")]
use serde::Serialize;
use tracing::error;

#[cfg(feature = "cluster")]
use crate::config::Loaded;
use crate::telemetry::{self, Log};

/// Exit status of wrong flags or a wrong configuration.
const USAGE: u8 = 2;

/// Says what is wrong with flags or configuration, and with which status to end.
pub fn refuse(faults: &[String]) -> ExitCode {
    for fault in faults {
        write(&mut std::io::stderr(), &format!("error: {fault}"));
    }
    ExitCode::from(USAGE)
}

/// Shows every value and where it comes from.
#[cfg(feature = "cluster")]
pub fn print_config<T: Default + Serialize>(loaded: &Loaded<T>) -> ExitCode {
    say(&loaded.describe());
    ExitCode::SUCCESS
}

/// Starts logs and runtime, runs a service to its end, and gives the status it ends with. `name`
/// is what the logs call it; what still runs on the runtime's threads then has `last_tasks`.
pub fn run<E: Display>(
    name: &str,
    log: &Log,
    last_tasks: Duration,
    service: impl Future<Output = Result<ExitCode, E>>,
) -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = crate::failpoint::listen();
    if let Err(fault) = telemetry::init(log) {
        return refuse(&[fault]);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "the {name} cannot start");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(service);
    runtime.shutdown_timeout(last_tasks);
    ended.unwrap_or_else(|error| {
        error!(error = format!("{error:#}"), "the {name} ended");
        ExitCode::FAILURE
    })
}

/// Prints a text.
pub fn say(text: &str) {
    write(&mut std::io::stdout(), text);
}

fn write(to: &mut impl Write, text: &str) {
    // Nobody reads it: there is no place left to say so.
    let _ = writeln!(to, "{text}");
}
