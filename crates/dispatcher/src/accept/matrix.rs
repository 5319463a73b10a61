//! A matrix: values of some fields, and every combination of them (`product`) or the first of each,
//! then the second of each (`zip`). Combinations are made one by one, so that a matrix of millions
//! takes no more memory than its values.

use std::io::Read;

use excite_jobs::api::LineRefusal;
use excite_jobs::limits::{BATCH_LINES_MAX, JOBS_MAX};
use excite_jobs::{Line, Seeds};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::{BodyFault, Counted};

/// Bytes of a matrix: it is read whole.
const BYTES_MAX: u64 = 16 << 20;
/// Axes: as many as a line has fields, with room for options of a method.
const AXES_MAX: usize = 32;

/// A matrix as it is written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Matrix)]
pub(crate) struct Written {
    /// How the values are combined.
    #[serde(default)]
    mode: Mode,
    /// By field of a line (or `method_params.` and an option), its values; seeds also as `0..8`.
    #[schema(value_type = Object)]
    axes: Map<String, Value>,
    /// What lines say nothing of.
    #[serde(default)]
    #[schema(value_type = Line)]
    defaults: Map<String, Value>,
}

/// How values of fields are combined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Each with each.
    #[default]
    Product,
    /// The first of each, then the second.
    Zip,
}

/// A matrix that can be walked.
#[derive(Debug)]
pub(super) struct Matrix {
    mode: Mode,
    axes: Vec<(String, Vec<Value>)>,
    defaults: Map<String, Value>,
    lines: u64,
    at: u64,
}

impl Matrix {
    /// Reads one to its end.
    ///
    /// # Errors
    /// The outer one if the body fails; the inner one if it is no matrix, or one without end.
    pub(super) fn read(input: &mut Counted) -> Result<Result<Self, LineRefusal>, BodyFault> {
        let mut text = Vec::new();
        input.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(|e| BodyFault::from_io(&e))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(BodyFault::TooLarge { max: BYTES_MAX });
        }
        Ok(Self::parse(&text))
    }

    fn parse(text: &[u8]) -> Result<Self, LineRefusal> {
        let written: Written = serde_json::from_slice(text).map_err(|error| {
            let remedy = "Write {\"mode\": \"product\", \"axes\": {\"prompt\": [...], \"seed\": \"0..8\"}, \
                          \"defaults\": {...}}.";
            refused("matrix", "matrix_not_json", error.to_string(), remedy.into())
        })?;
        if written.axes.is_empty() || written.axes.len() > AXES_MAX {
            let message = format!("there are {} axes", written.axes.len());
            return Err(refused("axes", "axes", message, format!("Name 1 to {AXES_MAX} axes.")));
        }
        let mut axes = Vec::with_capacity(written.axes.len());
        for (name, values) in written.axes {
            axes.push((name.clone(), values_of(&name, values, written.mode)?));
        }
        let lines = match written.mode {
            Mode::Product => product(&axes)?,
            Mode::Zip => zipped(&axes)?,
        };
        Ok(Self { mode: written.mode, axes, defaults: written.defaults, lines, at: 0 })
    }
}

impl Iterator for Matrix {
    /// Its number, from 1, and the line in JSON.
    type Item = (u64, String);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.lines {
            return None;
        }
        let mut line = self.defaults.clone();
        let mut rest = self.at;
        // The last axis changes fastest.
        for (name, values) in self.axes.iter().rev() {
            let place = match self.mode {
                Mode::Product => {
                    let place = rest % values.len() as u64;
                    rest /= values.len() as u64;
                    place
                }
                Mode::Zip => self.at,
            };
            set(&mut line, name, values[place as usize].clone());
        }
        self.at += 1;
        Some((self.at, Value::Object(line).to_string()))
    }
}

/// The values of an axis. Seeds of a product are one line's, and cost nothing.
fn values_of(name: &str, values: Value, mode: Mode) -> Result<Vec<Value>, LineRefusal> {
    let field = format!("axes.{name}");
    let is_seed = matches!(name, "seed" | "seeds");
    let values = match values {
        Value::Array(values) => values,
        Value::String(text) if is_seed => match (text.parse::<Seeds>(), mode) {
            (Ok(_), Mode::Product) => vec![Value::String(text)],
            (Ok(seeds), Mode::Zip) => seeds.iter().map(Value::from).collect(),
            (Err(error), _) => {
                let remedy = "Write 0..8, 0..=7 or 1,5,9, or a list of numbers.";
                return Err(refused(&field, "seeds", error.to_string(), remedy.into()));
            }
        },
        _ => {
            let message = "an axis is a list of values".into();
            return Err(refused(&field, "axis", message, "Write [\"one\", \"another\"].".into()));
        }
    };
    if values.is_empty() {
        let message = "the axis has no value".into();
        return Err(refused(
            &field,
            "axis",
            message,
            "Name a value, or leave the axis out.".into(),
        ));
    }
    if is_seed && mode == Mode::Product && values.len() > 1 {
        let number = |value: &Value| value.as_u64().map(|seed| seed.to_string());
        let texts: Option<Vec<String>> = values.iter().map(number).collect();
        let text = texts.map(|texts| texts.join(","));
        let text = text.ok_or_else(|| {
            let message = "a seed is no number".into();
            refused(&field, "seeds", message, "Use numbers from 0 to 4294967295.".into())
        })?;
        return Ok(vec![Value::String(text)]);
    }
    Ok(values)
}

fn product(axes: &[(String, Vec<Value>)]) -> Result<u64, LineRefusal> {
    let lines =
        axes.iter().fold(1_u128, |lines, (_, values)| lines.saturating_mul(values.len() as u128));
    let seeds = axes.iter().filter(|(name, _)| matches!(name.as_str(), "seed" | "seeds"));
    let seeds = seeds.filter_map(|(_, values)| match &values[0] {
        Value::String(text) => text.parse::<Seeds>().ok().map(|seeds| u128::from(seeds.count())),
        _ => None,
    });
    let jobs = seeds.fold(lines, u128::saturating_mul);
    if lines > u128::from(BATCH_LINES_MAX) || jobs > u128::from(JOBS_MAX) {
        let message = format!("the matrix has {lines} combinations and {jobs} jobs");
        let remedy = format!("Ask for at most {BATCH_LINES_MAX} combinations and {JOBS_MAX} jobs.");
        return Err(refused("axes", "too_many_jobs", message, remedy));
    }
    Ok(lines as u64)
}

fn zipped(axes: &[(String, Vec<Value>)]) -> Result<u64, LineRefusal> {
    let lines = axes[0].1.len();
    if let Some((name, values)) = axes.iter().find(|(_, values)| values.len() != lines) {
        let message = format!("`{name}` has {} values, `{}` has {lines}", values.len(), axes[0].0);
        let remedy = "Give all axes of a zip as many values, or use the mode `product`.";
        return Err(refused(&format!("axes.{name}"), "axis_length", message, remedy.into()));
    }
    Ok(lines as u64)
}

/// Sets a field, or a field of a field: `method_params.scale_factor`.
fn set(line: &mut Map<String, Value>, name: &str, value: Value) {
    let name = match (name, &value) {
        // A line names several seeds in a field of its own.
        ("seed", Value::String(_)) => "seeds",
        _ => name,
    };
    if matches!(name, "seed" | "seeds") {
        line.remove("seed");
        line.remove("seeds");
    }
    match name.split_once('.') {
        None => {
            line.insert(name.to_owned(), value);
        }
        Some((outer, inner)) => {
            let field = line.entry(outer).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(fields) = field {
                set(fields, inner, value);
            }
        }
    }
}

fn refused(field: &str, code: &str, message: String, remedy: String) -> LineRefusal {
    LineRefusal { line: 1, field: field.into(), code: code.into(), message, remedy }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(matrix: &Value) -> Vec<Value> {
        let matrix = Matrix::parse(matrix.to_string().as_bytes()).unwrap();
        matrix.map(|(_, line)| serde_json::from_str(&line).unwrap()).collect()
    }

    fn refusal(matrix: &Value) -> LineRefusal {
        Matrix::parse(matrix.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn a_product_is_every_combination_and_seeds_stay_together() {
        let got = lines(&json!({
            "axes": {"prompt": ["a cat", "a dog"], "seed": "0..3", "method": ["none"],
                     "method_params.scale_factor": [10, 20]},
            "defaults": {"steps": 2, "seed": 9},
        }));
        let line = |prompt, factor| {
            json!({"prompt": prompt, "seeds": "0..3", "method": "none", "steps": 2,
                "method_params": {"scale_factor": factor}})
        };
        let mut got = got;
        got.sort_by_key(ToString::to_string);
        let mut want =
            vec![line("a cat", 10), line("a cat", 20), line("a dog", 10), line("a dog", 20)];
        want.sort_by_key(ToString::to_string);
        assert_eq!(got, want);
        let listed = lines(&json!({"axes": {"prompt": ["a"], "seed": [4, 9]}}));
        assert_eq!(listed, [json!({"prompt": "a", "seeds": "4,9"})]);
    }

    #[test]
    fn a_zip_takes_one_of_each() {
        let got = lines(&json!({
            "mode": "zip", "axes": {"prompt": ["a cat", "a dog"], "seed": "5..7"},
        }));
        assert_eq!(
            got,
            [json!({"prompt": "a cat", "seed": 5}), json!({"prompt": "a dog", "seed": 6})]
        );
        let uneven = json!({"mode": "zip", "axes": {"prompt": ["a"], "steps": [1, 2]}});
        assert_eq!(refusal(&uneven).code, "axis_length");
    }

    #[test]
    fn what_has_no_end_is_refused_before_it_begins() {
        let many: Vec<u32> = (0..10_000).collect();
        let huge = json!({"axes": {"prompt": many, "steps": many, "width": many}});
        assert_eq!(refusal(&huge).code, "too_many_jobs");
        let seeds = json!({"axes": {"prompt": many, "seed": "0..1000000"}});
        assert_eq!(refusal(&seeds).code, "too_many_jobs");
        for (matrix, code) in [
            (json!({"axes": {}}), "axes"),
            (json!({"axes": {"prompt": []}}), "axis"),
            (json!({"axes": {"prompt": "a cat"}}), "axis"),
            (json!({"axes": {"seed": "8..0"}}), "seeds"),
            (json!({"axes": {"prompt": ["a"]}, "mode": "sum"}), "matrix_not_json"),
            (json!([]), "matrix_not_json"),
        ] {
            assert_eq!(refusal(&matrix).code, code, "{matrix}");
        }
    }
}
