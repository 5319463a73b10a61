//! `excite eval report`: the report on rows that were measured before, wherever that was.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use excite_eval::images::unequal;
use excite_eval::scores::{Lines, Score, latest};

use super::output;
use crate::args::RowsArgs;
use crate::fault::{Fault, Status};
use crate::files;
use crate::printer::Printer;

const STDIN: &str = "-";

pub(super) fn run(args: &RowsArgs, printer: &Printer) -> Result<Status, Fault> {
    let mut all = Vec::new();
    for path in &args.files {
        let Lines { rows, ignored, .. } = read(path)?;
        if ignored.broken + ignored.cut > 0 {
            let lines = match ignored.broken + ignored.cut {
                1 => "1 line of".to_owned(),
                more => format!("{more} lines of"),
            };
            printer.warning(&format!("not used, for no scores: {lines} {}", path.display()));
        }
        all.extend(rows);
    }
    let rows = latest(all);
    if rows.is_empty() {
        let message = "there is not one score".to_owned();
        let remedy = "Name a file `scores.ndjson` that `excite eval` wrote.";
        return Err(Fault::new(Status::Failed, "no_scores", message, remedy.into()));
    }
    let problems = unequal(rows.iter().map(|row| (row.method.as_str(), row.prompt.as_str())));
    for problem in &problems {
        printer.warning(&problem.to_string());
    }
    files::prepare_folder(&args.report.out)?;
    let rows: Vec<&Score> = rows.iter().collect();
    output::write(&rows, &problems, &args.report, printer)?;
    Ok(if problems.is_empty() { Status::Done } else { Status::PartlyFailed })
}

fn read(path: &Path) -> Result<Lines, Fault> {
    let lines = if path == Path::new(STDIN) {
        Lines::read(std::io::stdin().lock())
    } else {
        File::open(path).and_then(|file| Lines::read(BufReader::new(file)))
    };
    lines.map_err(|e| Fault::io("read", path, &e))
}
