//! Metrics and settings as pages show them: rows of a table.
//!
//! For the tests that compare `docs/metrics.md` with what a service registers, and
//! `docs/operations.md` with what it can be told.

use std::fmt::Write as _;

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use serde::Serialize;
use serde_json::Value;

/// A metric, for documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// What it counts.
    pub help: String,
}

/// What a collector registers, also before anything was counted.
pub fn described(collector: &dyn Collector) -> Vec<Described> {
    // A family without children is empty, but has its type.
    let kind = collector.collect().first().map(|family| family.get_field_type());
    let kind = match kind {
        Some(MetricType::COUNTER) => "counter",
        Some(MetricType::HISTOGRAM) => "histogram",
        Some(MetricType::SUMMARY) => "summary",
        _ => "gauge",
    };
    let described = collector.desc().into_iter().map(|desc| {
        let own = desc.const_label_pairs.iter().map(|pair| pair.name().to_owned());
        let labels = own.chain(desc.variable_labels.iter().cloned()).collect();
        Described { name: desc.fq_name.clone(), kind, labels, help: desc.help.clone() }
    });
    described.collect()
}

/// The table of these metrics, by name, as Markdown.
pub fn table(mut metrics: Vec<Described>) -> String {
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut table = String::from("| metric | type | labels | |\n|---|---|---|---|\n");
    for Described { name, kind, labels, help } in metrics {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a text does not fail.
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    table
}

/// How a page's tables of settings differ from the defaults of a configuration: rows that it
/// lacks, and keys of these sections that there are not.
pub fn wrong_settings<T: Default + Serialize>(page: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let all = serde_json::to_value(T::default()).unwrap_or_default();
    flatten("", &all, &mut rows);
    let row = |(key, value): &(String, String)| format!("| `{key}` | `{value}` |");
    let lacks = rows.iter().map(row).filter(|row| !page.contains(row));
    let mut wrong: Vec<String> = lacks.map(|row| format!("lacks {row}")).collect();
    let sections = all.as_object().into_iter().flat_map(|all| all.keys());
    for section in sections {
        let begin = format!("| `{section}.");
        let keys = page.lines().filter(|line| line.starts_with(&begin));
        for key in keys.filter_map(|line| line.split('`').nth(1)) {
            if !rows.iter().any(|(known, _)| known == key) {
                wrong.push(format!("has `{key}`, which is no setting"));
            }
        }
    }
    wrong
}

fn flatten(key: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let Value::Object(inner) = value else {
        // What depends on the machine is shown as most machines have it.
        let temporary = std::env::temp_dir().display().to_string();
        let text = value
            .to_string()
            .replace(&format!("\"{}/", temporary.trim_end_matches('/')), "\"/tmp/");
        rows.push((key.replace(".pools.default.", ".pools.NAME."), text));
        return;
    };
    for (name, value) in inner {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        flatten(&key, value, rows);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, IntGauge, Opts};

    use super::*;

    #[test]
    fn metrics_are_rows_before_anything_was_counted() {
        let jobs = IntCounterVec::new(Opts::new("b_total", "Jobs"), &["model", "kind"]).unwrap();
        let held = IntGauge::with_opts(Opts::new("a", "Held").const_label("service", "x")).unwrap();
        let rows = [described(&jobs), described(&held)].concat();
        assert_eq!(
            table(rows),
            "| metric | type | labels | |\n|---|---|---|---|\n\
             | `a` | gauge | `service` | Held |\n\
             | `b_total` | counter | `model`, `kind` | Jobs |\n"
        );
    }
}
