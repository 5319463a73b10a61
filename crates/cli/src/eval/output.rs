//! What an evaluation leaves: the report in three forms, charts, contact sheets.

use std::collections::BTreeMap;

use excite_eval::images::{Entry, Problem};
use excite_eval::plots;
use excite_eval::report::{Input, Report, Style};
use excite_eval::scores::{Book, Score};
use excite_eval::sheets::Sheet;
use excite_eval::statistics::RESAMPLES;
use serde_json::json;

use super::foretell;
use crate::args::MetricArgs;
use crate::fault::Fault;
use crate::files;
use crate::generate::slug;
use crate::printer::Printer;

const SHEETS: &str = "sheets";

pub(super) fn write(
    entries: &[Entry],
    book: &Book,
    problems: &[Problem],
    args: &MetricArgs,
    printer: &Printer,
) -> Result<(), Fault> {
    let rows: Vec<&Score> = book.of(entries).collect();
    let baseline = rows.iter().filter(|row| row.method == args.baseline);
    let kinds: BTreeMap<String, String> =
        baseline.filter_map(|row| Some((row.path.clone(), row.failure()?.to_owned()))).collect();
    let input = Input {
        rows: &rows,
        problems,
        baseline: &args.baseline,
        kinds: &kinds,
        resamples: RESAMPLES,
    };
    let report = Report::new(input);
    let foretold = foretell::foretold(entries, book);
    let json = json!({"v": 1, "report": report, "foretold": foretold});
    let text = serde_json::to_vec_pretty(&json).map_err(|e| Fault::bug(&e.to_string()))?;
    files::write(&args.out.join("report.json"), &text)?;
    files::write(&args.out.join("report.csv"), report.csv().as_bytes())?;
    let mut markdown = report.table(Style::Markdown);
    markdown.push_str(&foretell::markdown(&foretold));
    files::write(&args.out.join("report.md"), markdown.as_bytes())?;
    for figure in plots::figures(&report) {
        let path = args.out.join(format!("{}.png", figure.name));
        files::write(&path, &figure.picture.to_png(&[])?)?;
    }
    if args.sheets {
        sheets(entries, book, args)?;
    }
    printer.result(report.table(Style::Text).trim_end());
    foretell::print(&foretold, printer);
    printer.result(&format!("\nreport, scores and charts are in {}", args.out.display()));
    printer.object(&json);
    Ok(())
}

fn sheets(entries: &[Entry], book: &Book, args: &MetricArgs) -> Result<(), Fault> {
    let folder = args.out.join(SHEETS);
    files::prepare_folder(&folder)?;
    let mut names = crate::generate::Names::default();
    for sheet in Sheet::all(entries, &args.baseline, |entry| book.get(entry)) {
        let stem = names.take(&slug(sheet.prompt));
        for page in 0..sheet.pages() {
            let suffix = if page > 0 { format!("-{}", page + 1) } else { String::new() };
            let path = folder.join(format!("{stem}{suffix}.png"));
            files::write(&path, &sheet.draw(page).to_png(&[])?)?;
        }
    }
    Ok(())
}
