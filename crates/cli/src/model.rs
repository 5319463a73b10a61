//! `excite model`: what models are here, what they are, whether they are whole, and more of them.

mod check;
mod list;
mod pull;
pub(crate) mod push;
mod show;

use std::sync::atomic::AtomicBool;

use excite_diffusion::Stored;

use crate::args::ModelCommand;
use crate::fault::{Fault, Status};
use crate::printer::Printer;

pub(crate) fn run(
    command: &ModelCommand,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    match command {
        ModelCommand::List(_) => list::run(printer),
        ModelCommand::Show(args) => show::run(args, printer),
        ModelCommand::Check(args) => check::run(args, printer, interrupted),
        ModelCommand::Pull(args) => pull::run(args, printer, interrupted),
        ModelCommand::Push(args) => push::run(args, printer, interrupted),
    }
}

/// One line a component: how large it is and how it is stored.
pub(crate) fn component_lines(components: &[(String, Stored)]) -> Vec<String> {
    let line = |(name, stored): &(String, Stored)| {
        let (millions, formats) = (stored.parameters as f64 / 1e6, stored.formats.join(", "));
        format!(
            "  {name:<15} {:>5} tensors, {millions:>7.1} million weights, {formats}",
            stored.tensors
        )
    };
    components.iter().map(line).collect()
}

/// Bytes as people read them: 1.3 GB.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KB", "MB", "GB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000. && unit + 1 < UNITS.len() {
        value /= 1000.;
        unit += 1;
    }
    if unit < 2 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_short() {
        for (count, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_500, "2 KB"),
            (16_900_000, "16.9 MB"),
            (13_700_000_000, "13.7 GB"),
            (2_000_000_000_000, "2000.0 GB"),
        ] {
            assert_eq!(bytes(count), want);
        }
    }
}
