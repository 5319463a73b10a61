//! What an evaluation leaves: the report in three forms, charts, contact sheets.

use std::collections::BTreeMap;

use excite_eval::images::{Entry, Problem};
use excite_eval::report::{Input, Report, Style};
use excite_eval::scores::Score;
use excite_eval::statistics::RESAMPLES;

use crate::args::MetricArgs;
use crate::fault::Fault;
use crate::files;
use crate::printer::Printer;

pub(super) fn write(
    _entries: &[Entry],
    rows: &[&Score],
    problems: &[Problem],
    args: &MetricArgs,
    printer: &Printer,
) -> Result<(), Fault> {
    let kinds = BTreeMap::new();
    let input =
        Input { rows, problems, baseline: &args.baseline, kinds: &kinds, resamples: RESAMPLES };
    let report = Report::new(input);
    let json = serde_json::to_vec_pretty(&report).map_err(|e| Fault::bug(&e.to_string()))?;
    files::write(&args.out.join("report.json"), &json)?;
    files::write(&args.out.join("report.csv"), report.csv().as_bytes())?;
    files::write(&args.out.join("report.md"), report.table(Style::Markdown).as_bytes())?;
    printer.result(report.table(Style::Text).trim_end());
    printer.object(&report);
    Ok(())
}
