//! The report as a table for programs: a number a line.

use super::{Metric, Report};
use crate::statistics::{Interval, Rate};

const HEADER: [&str; 7] = ["subset", "method", "metric", "n", "value", "low", "high"];

pub(super) fn long(report: &Report) -> String {
    let mut lines = vec![HEADER.map(str::to_owned).to_vec()];
    for subset in &report.subsets {
        for method in &subset.methods {
            let mut add = |metric: &str, n: usize, Interval { value, low, high }: Interval| {
                let numbers = [value, low, high].map(|number| number.to_string());
                let mut line =
                    vec![subset.name.clone(), method.name.clone(), metric.into(), n.to_string()];
                line.extend(numbers);
                lines.push(line);
            };
            for (metric, estimate) in &method.metrics {
                add(metric.as_str(), estimate.n, estimate.interval);
            }
            for (metric, paired) in &method.differences {
                let name = format!("{}_minus_{}", Metric::as_str(*metric), report.baseline);
                add(&name, paired.pairs, paired.difference);
            }
            let Some(mending) = &method.mending else { continue };
            let mut rate = |name: &str, rate: &Rate| add(name, rate.of, rate.share);
            mending.mended.iter().for_each(|mended| rate("mended", mended));
            for (kind, mended) in &mending.by_kind {
                rate(&format!("mended_{kind}"), mended);
            }
            mending.lost.iter().for_each(|lost| rate("lost", lost));
        }
    }
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    // Into memory, with as many fields a line as in the first.
    let written = lines.iter().try_for_each(|line| writer.write_record(line));
    let bytes = written.ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
