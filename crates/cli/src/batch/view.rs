//! How batches are shown: counts, spans of time, names.

use std::collections::BTreeMap;

use excite_jobs::api::{BatchState, BatchView};
use excite_jobs::{State, Tally};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::printer::Printer;

/// Characters shown of a model's digest.
const DIGEST_CHARS: usize = 10;

/// `64 images`.
pub(crate) fn images(count: u64) -> String {
    if count == 1 { "1 image".to_owned() } else { format!("{count} images") }
}

/// `name@digest` with as much of the digest as people look at.
pub(crate) fn model(full: &str) -> String {
    match full.split_once('@') {
        Some((name, digest)) => {
            format!("{name}@{}", digest.get(..DIGEST_CHARS).unwrap_or(digest))
        }
        None => full.to_owned(),
    }
}

/// Seconds as people say them: `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`.
pub(crate) fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0. {
        return "?".to_owned();
    }
    if seconds < 99.5 {
        return format!("{seconds:.0} s");
    }
    let minutes = (seconds / 60.).round() as u64;
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A moment, to the second.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

/// `60 succeeded, 3 dead, 1 running`: states without jobs are left out.
pub(crate) fn counts(tally: &Tally) -> String {
    // What is finished first, then what is on its way.
    let order = [
        State::Succeeded,
        State::Dead,
        State::Cancelled,
        State::Retrying,
        State::Running,
        State::Queued,
        State::Waiting,
    ];
    let named = order.map(|state| (tally.of(state), state.as_str()));
    joined(
        named.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")),
    )
}

/// `3 timeout, 1 capacity`.
pub(crate) fn by_code(codes: &BTreeMap<String, u64>) -> String {
    joined(codes.iter().map(|(code, count)| format!("{count} {code}")))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// Whether nothing more happens to it.
pub(crate) fn ended(view: &BatchView) -> bool {
    matches!(view.state, BatchState::Finished | BatchState::Cancelled)
}

/// Warnings of a batch's lines.
pub(crate) fn note_warnings(warnings: &BTreeMap<String, u64>, printer: &Printer) {
    for (code, lines) in warnings {
        let lines = if *lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") };
        printer.warning(&format!("`{code}` in {lines}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, want) in [
            (0., "0 s"),
            (45.4, "45 s"),
            (99.4, "99 s"),
            (100., "2 min"),
            (3599., "1 h 0 min"),
            (11_100., "3 h 5 min"),
            (187_200., "2 d 4 h"),
            (f64::NAN, "?"),
            (-1., "?"),
        ] {
            assert_eq!(span(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn counts_begin_with_what_is_finished() {
        let mut tally = Tally::default();
        assert_eq!(counts(&tally), "none");
        tally.states =
            BTreeMap::from([(State::Waiting, 7), (State::Dead, 2), (State::Succeeded, 60)]);
        assert_eq!(counts(&tally), "60 succeeded, 2 dead, 7 waiting");
        assert_eq!(model("emoji@0123456789abcdef"), "emoji@0123456789");
        assert_eq!(moment(OffsetDateTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}
