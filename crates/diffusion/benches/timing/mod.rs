//! What the benchmarks share: specs, the seconds they took, and how they are shown.
//!
//! Not what is timed: that is each benchmark's.

use std::error::Error;

use excite_diffusion::Model;
use excite_jobs::{Line, Spec};
use serde_json::{Value, json};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Names and seconds of what was timed.
pub(crate) type Timings = Vec<(&'static str, Vec<f64>)>;

/// The spec of a line of JSON.
pub(crate) fn spec(model: &Model, line: &Value) -> Result<Spec> {
    let resolved = Line::parse(&line.to_string())?.resolve(&model.facts(), model.tokenizer())?;
    resolved.specs().next().ok_or_else(|| "the job has no image".into())
}

/// What every report begins with.
pub(crate) fn report(timings: &Timings) -> Value {
    let version = format!("{} ({})", env!("CARGO_PKG_VERSION"), excite_diffusion::kind());
    let mut report = json!({
        "tool": "excite",
        "versions": { "excite": version },
        "threads": candle_core::utils::get_num_threads(),
    });
    for (name, times) in timings {
        let (min, median) = min_and_median(times);
        report[*name] = json!({ "min": min, "median": median, "times": times });
    }
    report
}

/// The same as a table.
pub(crate) fn print(timings: &Timings) {
    println!("threads {}", candle_core::utils::get_num_threads());
    println!("{:<16}{:>10}{:>10}", "seconds", "min", "median");
    for (name, times) in timings {
        let (min, median) = min_and_median(times);
        println!("{name:<16}{min:>10.4}{median:>10.4}");
    }
}

fn min_and_median(times: &[f64]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let lower = if sorted.len().is_multiple_of(2) { middle - 1 } else { middle };
    (sorted[0], f64::midpoint(sorted[lower], sorted[middle]))
}
