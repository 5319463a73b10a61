//! The subject finder against prompts tagged by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the figures are worth reading")]

use std::fmt::Write as _;

use excite_prompt::{Doubt, Found, Tokenizer, find_subjects};

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji/tokenizer/", $name))
    };
}

/// Half, prompt, and `word[attribute, ...]; ...`, or `-` for none, or `!` for another language.
const TAGGED: &str = include_str!("tagged_prompts.tsv");

fn find(prompt: &str) -> Found {
    static ONE: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    let new = || Tokenizer::new(data!("vocab.json"), data!("merges.txt"), None).unwrap();
    find_subjects(&ONE.get_or_init(new).encode(prompt).unwrap())
}

#[derive(Default)]
struct Score {
    right: usize,
    found: usize,
    tagged: usize,
    /// Of subjects that are right: all attributes right.
    attributes: usize,
    /// Wrong subjects, and those of them that were said to be sure.
    wrong_sure: usize,
    missed: usize,
    missed_silently: usize,
    list: String,
}

/// Positions, attributes.
type Tag = (Vec<u32>, Vec<String>);

fn tags(prompt: &str, text: &str) -> Vec<Tag> {
    static ONE: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    let new = || Tokenizer::new(data!("vocab.json"), data!("merges.txt"), None).unwrap();
    let encoding = ONE.get_or_init(new).encode(prompt).unwrap();
    if matches!(text, "-" | "!") {
        return Vec::new();
    }
    let tag = |entry: &str| {
        let (word, attributes) = entry.split_once('[').unwrap_or((entry, "]"));
        let subject = encoding.subject(word).unwrap_or_else(|error| panic!("{prompt}: {error}"));
        let attributes = attributes.trim_end_matches(']').split(", ").filter(|a| !a.is_empty());
        (subject.indices, attributes.map(str::to_owned).collect())
    };
    text.split("; ").map(tag).collect()
}

fn score(half: &str) -> Score {
    let mut score = Score::default();
    for line in TAGGED.lines().filter(|line| line.starts_with(half)) {
        let [_, prompt, text] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let (want, got) = (tags(prompt, text), find(prompt));
        let foreign = got.doubts.contains(&Doubt::NotEnglish);
        let before = (score.right, score.attributes);
        score.found += got.subjects.len();
        score.tagged += want.len();
        for found in &got.subjects {
            match want.iter().find(|(indices, _)| *indices == found.subject.indices) {
                Some((_, attributes)) => {
                    score.right += 1;
                    let same = found.attributes.iter().map(|a| &a.word).eq(attributes);
                    score.attributes += usize::from(same);
                }
                None => score.wrong_sure += usize::from(found.sure),
            }
        }
        let missed = want.len() - (score.right - before.0);
        score.missed += missed;
        score.missed_silently += if got.doubts.is_empty() { missed } else { 0 };
        let all = (before.0 + want.len(), before.1 + want.len());
        let perfect = (score.right, score.attributes) == all && got.subjects.len() == want.len();
        if !perfect || foreign != (text == "!") {
            let show = |found: &excite_prompt::FoundSubject| {
                let attributes: Vec<_> = found.attributes.iter().map(|a| a.word.as_str()).collect();
                let sure = if found.sure { "" } else { "?" };
                format!("{}{sure}[{}]", found.subject.word, attributes.join(", "))
            };
            let said: Vec<_> = got.subjects.iter().map(show).collect();
            let codes: Vec<_> = got.doubts.iter().map(Doubt::code).collect();
            let said = said.join("; ");
            let _ = writeln!(score.list, "{prompt}\n    want {text}\n    got  {said} {codes:?}");
        }
    }
    score
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[test]
fn tagged_prompts() {
    for half in ["dev", "held"] {
        let s = score(half);
        println!(
            "{half}: precision {:.3}, recall {:.3}, attributes {:.3}; {} wrong, {} of them sure; {} missed, {} silently",
            share(s.right, s.found),
            share(s.right, s.tagged),
            share(s.attributes, s.right),
            s.found - s.right,
            s.wrong_sure,
            s.missed,
            s.missed_silently,
        );
        if std::env::var("SHOW").is_ok_and(|show| show == half) {
            println!("{}", s.list);
        }
    }
}
