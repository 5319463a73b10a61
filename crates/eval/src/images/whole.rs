//! What shows only when all images are known: twins, unequal counts, times that were shared.

use std::collections::BTreeMap;

use super::{Count, Entry, Problem};

/// Leaves out further images of the same method, prompt and seed.
pub(super) fn once(entries: Vec<Entry>, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let same = |other: &&Entry| {
            let of = |e: &Entry| (e.seed, e.method.clone(), e.prompt.clone());
            entry.seed.is_some() && of(other) == of(&entry)
        };
        match kept.last().filter(same) {
            Some(first) => {
                problems.push(Problem::Twice { path: entry.name, first: first.name.clone() });
            }
            None => kept.push(entry),
        }
    }
    kept
}

/// The methods whose prompts do not have equally many images, of the method and the prompt of each
/// image.
pub fn unequal<'a>(images: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Problem> {
    let mut methods: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (method, prompt) in images {
        *methods.entry(method).or_default().entry(prompt).or_default() += 1;
    }
    let mut problems = Vec::new();
    for (method, prompts) in methods {
        let mut counts = BTreeMap::new();
        for images in prompts.into_values() {
            *counts.entry(images).or_insert(0) += 1;
        }
        if counts.len() > 1 {
            let count = |(images, prompts)| Count { images, prompts };
            let counts = counts.into_iter().rev().map(count).collect();
            problems.push(Problem::UnequalCounts { method: method.to_owned(), counts });
        }
    }
    problems
}

/// Pairs of methods whose images have the very same time: `excite generate --compare` makes them in
/// one micro-batch and tells each an equal share. Two measurements never agree to the last bit.
pub(super) fn shared_seconds(entries: &[Entry]) -> Vec<Problem> {
    let mut alike: BTreeMap<(&str, Option<u32>, u64), Vec<&str>> = BTreeMap::new();
    for entry in entries {
        if let Some(seconds) = entry.seconds.filter(|seconds| *seconds > 0.) {
            let key = (entry.prompt.as_str(), entry.seed, seconds.to_bits());
            alike.entry(key).or_default().push(&entry.method);
        }
    }
    let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for methods in alike.into_values() {
        for (i, other) in methods.iter().enumerate() {
            for method in methods[..i].iter().filter(|method| *method != other) {
                *pairs.entry((method, other)).or_default() += 1;
            }
        }
    }
    let problem = |((method, other), images): ((&str, &str), usize)| Problem::SharedSeconds {
        method: method.to_owned(),
        other: other.to_owned(),
        images,
    };
    pairs.into_iter().map(problem).collect()
}
