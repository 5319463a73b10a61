//! Rows of what was measured beside diffusers and beside their goals, and the table they are shown
//! in (Markdown, so that it can go into docs as it is).

use serde_json::{Value, json};

/// The same thing, measured several times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) min: f64,
    pub(super) median: f64,
}

impl Measured {
    /// `None` without any.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len().is_multiple_of(2) { values[middle - 1] } else { upper };
        Some(Self { min: values[0], median: f64::midpoint(lower, upper) })
    }

    /// What follows from it, minimum from minimum and median from median.
    pub(super) fn map(self, follows: impl Fn(f64) -> f64) -> Self {
        Self { min: follows(self.min), median: follows(self.median) }
    }

    fn json(self) -> Value {
        json!({ "min": self.min, "median": self.median })
    }
}

/// What a row is measured in; names it in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    ImagesPerSecond,
    Bytes,
    /// A number without a unit.
    Factor,
    /// A part of 1.
    Share,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::ImagesPerSecond => "images_per_second",
            Self::Bytes => "bytes",
            Self::Factor => "factor",
            Self::Share => "share",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value >= 10. => format!("{value:.2} s"),
            Self::Seconds => format!("{value:.4} s"),
            Self::ImagesPerSecond => format!("{value:.3}/s"),
            Self::Bytes => format!("{:.2} GB", value / 1e9),
            Self::Factor => format!("{value:.2}"),
            Self::Share => format!("{:.1} %", 100. * value),
        }
    }
}

/// What a row is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// So many times diffusers' minimum at most.
    OfDiffusers(f64),
    /// Below this.
    Below(f64),
    /// This or more.
    AtLeast(f64),
    /// Within [`NEAR`] of this, or below.
    Near(f64),
}

/// How far above it something may be that is to be near its goal.
const NEAR: f64 = 0.1;

impl Goal {
    fn value(self) -> f64 {
        match self {
            Self::OfDiffusers(goal)
            | Self::Below(goal)
            | Self::AtLeast(goal)
            | Self::Near(goal) => goal,
        }
    }

    fn show(self, unit: Unit) -> String {
        match self {
            Self::OfDiffusers(goal) => format!("ratio <= {goal}"),
            Self::Below(goal) => {
                format!("< {goal}{}", if unit == Unit::Seconds { " s" } else { "" })
            }
            Self::AtLeast(goal) => format!(">= {}", unit.show(goal)),
            Self::Near(goal) => format!("{goal} + {:.0} %", 100. * NEAR),
        }
    }

    fn json(self) -> Value {
        match self {
            Self::OfDiffusers(goal) => json!({ "ratio_at_most": goal }),
            Self::Below(goal) => json!({ "below": goal }),
            Self::AtLeast(goal) => json!({ "at_least": goal }),
            Self::Near(goal) => json!({ "near": goal, "above_by_at_most": NEAR }),
        }
    }
}

/// How a row stands to its goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    pub(super) met: bool,
    /// How far above the goal it is, as a part of the goal; negative below it.
    pub(super) above: f64,
}

/// Something measured, ours beside diffusers' where that has it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// In JSON.
    pub(super) name: &'static str,
    /// In the table.
    pub(super) label: &'static str,
    pub(super) unit: Unit,
    pub(super) ours: Measured,
    pub(super) peer: Option<Measured>,
    pub(super) goal: Option<Goal>,
}

impl Row {
    /// Below 1 where ours is less. Of the minima: other programs only ever add.
    pub(super) fn ratio(&self) -> Option<f64> {
        self.peer.map(|peer| self.ours.min / peer.min)
    }

    /// `None` without a goal, and without what it is compared with.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let goal = self.goal?;
        let value = match goal {
            Goal::OfDiffusers(_) => self.ratio()?,
            Goal::Below(_) | Goal::AtLeast(_) | Goal::Near(_) => self.ours.min,
        };
        let above = value / goal.value() - 1.;
        let met = match goal {
            Goal::OfDiffusers(goal) => value <= goal,
            Goal::Below(goal) => value < goal,
            Goal::AtLeast(goal) => value >= goal,
            Goal::Near(_) => above <= NEAR,
        };
        Some(Verdict { met, above })
    }

    fn verdict_text(&self) -> String {
        let Some(Verdict { met, above }) = self.verdict() else { return String::new() };
        let percent = format!("{:.1} %", 100. * above.abs());
        match (met, self.goal) {
            (met, Some(Goal::Near(_))) => {
                let side = if above > 0. { "above" } else { "below" };
                format!("{}, {percent} {side}", if met { "met" } else { "missed" })
            }
            (true, _) => "met".to_owned(),
            (false, _) => format!("missed by {percent}"),
        }
    }

    /// All of it, as an object.
    pub(super) fn json(&self) -> Value {
        let verdict = self.verdict();
        json!({
            "unit": self.unit.name(),
            "excite": self.ours.json(),
            "diffusers": self.peer.map(Measured::json),
            "ratio": self.ratio(),
            "goal": self.goal.map(Goal::json),
            "met": verdict.map(|verdict| verdict.met),
            "above_goal_by": verdict.map(|verdict| verdict.above),
        })
    }
}

/// The table.
pub(super) fn text(rows: &[Row]) -> String {
    let titles = [
        "",
        "excite min",
        "median",
        "diffusers min",
        "median",
        "ratio of minima",
        "goal",
        "goal met",
    ];
    let mut lines = vec![titles.map(ToOwned::to_owned)];
    let none = || "-".to_owned();
    for row in rows {
        let peer = |pick: fn(Measured) -> f64| {
            row.peer.map_or_else(none, |peer| row.unit.show(pick(peer)))
        };
        // More images a second are better, so their ratio would be read the wrong way round.
        let ratio = row.ratio().filter(|_| row.unit != Unit::ImagesPerSecond);
        lines.push([
            row.label.to_owned(),
            row.unit.show(row.ours.min),
            row.unit.show(row.ours.median),
            peer(|peer| peer.min),
            peer(|peer| peer.median),
            ratio.map_or_else(none, |ratio| format!("{ratio:.2}")),
            row.goal.map_or_else(String::new, |goal| goal.show(row.unit)),
            row.verdict_text(),
        ]);
    }
    let mut lines = aligned(&lines);
    let rule = lines[0].chars().map(|c| if c == '|' { '|' } else { '-' }).collect::<String>();
    // A colon puts numbers to the right.
    lines.insert(1, rule.replace("-|", ":|").replacen(":|", "-|", 1));
    lines.join("\n")
}

fn aligned<const N: usize>(lines: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let cell = |(column, text): (usize, &String)| match column {
        0 => format!(" {text:<0$} ", widths[column]),
        _ => format!(" {text:>0$} ", widths[column]),
    };
    let line = |line: &[String; N]| line.iter().enumerate().map(cell).collect::<Vec<_>>().join("|");
    lines.iter().map(|texts| format!("|{}|", line(texts))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, ours: f64, peer: Option<f64>, goal: Option<Goal>) -> Row {
        let measured = |min| Measured { min, median: 2. * min };
        let (ours, peer) = (measured(ours), peer.map(measured));
        Row { name: "x", label: "a thing", unit, ours, peer, goal }
    }

    #[test]
    fn minimum_and_median() {
        for (values, min, median) in
            [(&[3., 1., 2.][..], 1., 2.), (&[4., 1., 3., 2.], 1., 2.5), (&[5.], 5., 5.)]
        {
            let measured = Measured::of(values.to_vec()).unwrap();
            assert_eq!((measured.min, measured.median), (min, median));
            assert_eq!(measured.map(|x| 2. * x), Measured { min: 2. * min, median: 2. * median });
        }
        assert!(Measured::of(Vec::new()).is_none());
    }

    #[test]
    fn a_goal_is_met_or_missed_by_so_much() {
        use Goal::{AtLeast, Below, Near, OfDiffusers};
        use Unit::{Bytes, Factor, Seconds, Share};
        #[rustfmt::skip]
        let table = [
            // unit   ours   peer       goal              shown as         verdict
            (Seconds, 1.,    Some(2.),  OfDiffusers(0.5), "ratio <= 0.5",  "met"),
            (Seconds, 1.2,   Some(2.),  OfDiffusers(0.5), "ratio <= 0.5",  "missed by 20.0 %"),
            (Bytes,   8e9,   None,      OfDiffusers(0.8), "ratio <= 0.8",  ""),
            (Seconds, 0.3,   None,      Below(0.3),       "< 0.3 s",       "missed by 0.0 %"),
            (Seconds, 0.29,  None,      Below(0.3),       "< 0.3 s",       "met"),
            (Share,   0.97,  None,      AtLeast(0.97),    ">= 97.0 %",     "met"),
            (Share,   0.873, None,      AtLeast(0.97),    ">= 97.0 %",     "missed by 10.0 %"),
            (Factor,  1.,    None,      Near(1.25),       "1.25 + 10 %",   "met, 20.0 % below"),
            (Factor,  1.35,  None,      Near(1.25),       "1.25 + 10 %",   "met, 8.0 % above"),
            (Factor,  1.4,   None,      Near(1.25),       "1.25 + 10 %",   "missed, 12.0 % above"),
        ];
        for (unit, ours, peer, goal, shown, verdict) in table {
            let row = row(unit, ours, peer, Some(goal));
            assert_eq!((goal.show(unit).as_str(), row.verdict_text().as_str()), (shown, verdict));
            assert_eq!(row.json()["met"].as_bool(), row.verdict().map(|verdict| verdict.met));
        }
        assert_eq!(row(Seconds, 1., Some(2.), None).verdict(), None);
    }

    #[test]
    fn the_table_is_markdown() {
        let rows = [
            row(Unit::Seconds, 0.5, Some(1.), Some(Goal::OfDiffusers(0.4))),
            row(Unit::Seconds, 12.5, None, None),
            row(Unit::ImagesPerSecond, 4., Some(2.), None),
            row(Unit::Bytes, 8.5e9, None, None),
        ];
        let table = text(&rows);
        let lines: Vec<&str> = table.lines().collect();
        let words: Vec<Vec<&str>> =
            lines.iter().map(|line| line.split('|').map(str::trim).collect()).collect();
        let want = ["a thing", "0.5000 s", "1.0000 s", "1.0000 s", "2.0000 s", "0.50"];
        assert_eq!(words[2][1..7], want);
        assert_eq!(words[2][7..], ["ratio <= 0.4", "missed by 25.0 %", ""]);
        assert_eq!(words[3][1..7], ["a thing", "12.50 s", "25.00 s", "-", "-", "-"]);
        assert_eq!(words[3][7..], ["", "", ""]);
        assert_eq!(words[4][1..7], ["a thing", "4.000/s", "8.000/s", "2.000/s", "4.000/s", "-"]);
        assert_eq!(words[5][2], "8.50 GB");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
        assert!(lines[1].starts_with("|--") && lines[1].ends_with("-:|"), "{table}");
        assert_eq!(lines[1].matches(":|").count(), 7, "{table}");
    }
}
