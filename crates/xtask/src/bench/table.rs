//! Timings, and the table they are shown in (Markdown, so that it can go into docs as it is).

use serde_json::{Value, json};

/// Seconds of the same work, done several times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) min: f64,
    pub(super) median: f64,
}

impl Timing {
    /// `None` without any.
    pub(super) fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        let middle = seconds.len() / 2;
        let upper = *seconds.get(middle)?;
        let lower = if seconds.len().is_multiple_of(2) { seconds[middle - 1] } else { upper };
        Some(Self { min: seconds[0], median: f64::midpoint(lower, upper) })
    }

    pub(super) fn json(&self) -> Value {
        json!({ "min": self.min, "median": self.median })
    }
}

/// Ours beside diffusers.
#[derive(Debug)]
pub(super) struct Row {
    /// In JSON.
    pub(super) name: &'static str,
    /// In the table.
    pub(super) label: &'static str,
    pub(super) ours: Timing,
    pub(super) peer: Option<Timing>,
}

impl Row {
    /// Below 1 where ours is faster. Of the minima: other programs only ever add.
    pub(super) fn ratio(&self) -> Option<f64> {
        self.peer.map(|peer| self.ours.min / peer.min)
    }
}

/// The table; the last row is a batch of `images`.
pub(super) fn text(rows: &[Row], (images, batch): (f64, &Timing)) -> String {
    let titles = ["seconds", "excite min", "median", "diffusers min", "median", "ratio of minima"];
    let mut lines = vec![titles.map(ToOwned::to_owned)];
    for row in rows {
        let peer = |seconds: fn(Timing) -> f64| {
            row.peer.map_or("-".to_owned(), |peer| format!("{:.4}", seconds(peer)))
        };
        lines.push([
            row.label.to_owned(),
            format!("{:.4}", row.ours.min),
            format!("{:.4}", row.ours.median),
            peer(|timing| timing.min),
            peer(|timing| timing.median),
            row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        ]);
    }
    let rate = |seconds: f64| format!("{:.3}", images / seconds);
    let label = format!("guided, batch {images}: images per second");
    let none = || "-".to_owned();
    lines.push([label, rate(batch.min), rate(batch.median), none(), none(), none()]);
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

    #[test]
    fn minimum_and_median() {
        for (seconds, min, median) in
            [(&[3., 1., 2.][..], 1., 2.), (&[4., 1., 3., 2.], 1., 2.5), (&[5.], 5., 5.)]
        {
            let timing = Timing::of(seconds.to_vec()).unwrap();
            assert_eq!((timing.min, timing.median), (min, median));
        }
        assert!(Timing::of(Vec::new()).is_none());
    }

    #[test]
    fn the_table_is_markdown() {
        let timing = |min| Timing { min, median: 2. * min };
        let row = |label, ours, peer| Row { name: "", label, ours: timing(ours), peer };
        let rows = [row("plain step", 0.5, Some(timing(1.))), row("guided step", 0.25, None)];
        let table = text(&rows, (4., &timing(2.)));
        let lines: Vec<&str> = table.lines().collect();
        let words: Vec<Vec<&str>> =
            lines.iter().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(
            words[2],
            ["", "plain step", "0.5000", "1.0000", "1.0000", "2.0000", "0.50", ""]
        );
        assert_eq!(words[3], ["", "guided step", "0.2500", "0.5000", "-", "-", "-", ""]);
        assert_eq!(words[4][1..4], ["guided, batch 4: images per second", "2.000", "1.000"]);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
        assert!(lines[1].starts_with("|--") && lines[1].ends_with("-:|"), "{table}");
        assert_eq!(lines[1].matches(":|").count(), 5, "{table}");
    }
}
