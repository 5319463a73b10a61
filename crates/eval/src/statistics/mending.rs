//! What a method mends and what it loses: of the images that plain sampling gets wrong, how many it
//! gets right, and the other way round.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Interval, ratio};

/// The same prompt and seed, made plainly and by a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict<'a> {
    /// Of both images.
    pub prompt: &'a str,
    /// How plain sampling fails, such as `doubled` or `lone`; the caller's word.
    pub kind: Option<&'a str>,
    /// Whether the plain image shows all subjects.
    pub plain: bool,
    /// Whether the method's image shows all subjects.
    pub method: bool,
}

/// A share of images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Images it happens to.
    pub count: usize,
    /// Images it can happen to.
    pub of: usize,
    /// `count / of`.
    #[serde(flatten)]
    pub share: Interval,
}

/// What a method changes. `None` where there is no image it could happen to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mending {
    /// Of the images where plain sampling lacks a subject, those where the method shows all.
    pub mended: Option<Rate>,
    /// The same by kind of failure.
    pub by_kind: BTreeMap<String, Rate>,
    /// Of the images where plain sampling shows all, those where the method lacks a subject.
    pub lost: Option<Rate>,
}

/// Counts what was mended and lost, with intervals over prompts: over all of them, for how many
/// fail is chance too.
pub fn mending(verdicts: &[Verdict<'_>], resamples: usize) -> Mending {
    let mended = |verdict: &Verdict<'_>| (!verdict.plain).then_some(verdict.method);
    let lost = |verdict: &Verdict<'_>| verdict.plain.then_some(!verdict.method);
    let kinds: BTreeSet<&str> = verdicts.iter().filter_map(|verdict| verdict.kind).collect();
    let by_kind = kinds.into_iter().filter_map(|kind| {
        let of_kind = |v: &Verdict<'_>| mended(v).filter(|_| v.kind == Some(kind));
        Some((kind.to_owned(), rate(verdicts, of_kind, resamples)?))
    });
    Mending {
        by_kind: by_kind.collect(),
        mended: rate(verdicts, mended, resamples),
        lost: rate(verdicts, lost, resamples),
    }
}

/// The share of images where `happens` says yes, among those where it says anything.
fn rate<'a>(
    verdicts: &[Verdict<'a>],
    happens: impl Fn(&Verdict<'a>) -> Option<bool>,
    resamples: usize,
) -> Option<Rate> {
    let (mut count, mut of) = (0, 0);
    let mut parts = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        let happens = happens(verdict);
        of += usize::from(happens.is_some());
        count += usize::from(happens == Some(true));
        let one = |yes: bool| f64::from(u8::from(yes));
        parts.push((verdict.prompt, one(happens == Some(true)), one(happens.is_some())));
    }
    let share = ratio(parts, resamples)?;
    Some(Rate { count, of, share })
}
