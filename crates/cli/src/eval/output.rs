//! What an evaluation leaves: the report in three forms, charts, contact sheets.

use excite_eval::images::{Entry, Problem};
use excite_eval::plots;
use excite_eval::report::{Input, Report, Style};
use excite_eval::scores::{Book, Score};
use excite_eval::sheets::Sheet;
use excite_eval::statistics::RESAMPLES;
use serde_json::json;

use crate::args::{MetricArgs, ReportArgs};
use crate::fault::Fault;
use crate::files;
use crate::generate::slug;
use crate::printer::Printer;

const SHEETS: &str = "sheets";

pub(super) fn write(
    rows: &[&Score],
    problems: &[Problem],
    args: &ReportArgs,
    printer: &Printer,
) -> Result<(), Fault> {
    let baseline = &args.baseline;
    let report = Report::new(Input { rows, problems, baseline, resamples: RESAMPLES });
    let json = json!({"v": 1, "report": report});
    let text = serde_json::to_vec_pretty(&json).map_err(|e| Fault::bug(&e.to_string()))?;
    files::write(&args.out.join("report.json"), &text)?;
    files::write(&args.out.join("report.csv"), report.csv().as_bytes())?;
    files::write(&args.out.join("report.md"), report.table(Style::Markdown).as_bytes())?;
    for figure in plots::figures(&report) {
        let path = args.out.join(format!("{}.png", figure.name));
        files::write(&path, &figure.picture.to_png(&[])?)?;
    }
    printer.result(report.table(Style::Text).trim_end());
    printer.result(&format!("\nreport and charts are in {}", args.out.display()));
    printer.object(&json);
    Ok(())
}

/// A contact sheet a prompt.
pub(super) fn sheets(entries: &[Entry], book: &Book, args: &MetricArgs) -> Result<(), Fault> {
    let folder = args.report.out.join(SHEETS);
    files::prepare_folder(&folder)?;
    let mut names = crate::generate::Names::default();
    for sheet in Sheet::all(entries, &args.report.baseline, |entry| book.get(entry)) {
        let stem = names.take(&slug(sheet.prompt));
        for page in 0..sheet.pages() {
            let suffix = if page > 0 { format!("-{}", page + 1) } else { String::new() };
            let path = folder.join(format!("{stem}{suffix}.png"));
            files::write(&path, &sheet.draw(page).to_png(&[])?)?;
        }
    }
    Ok(())
}
