//! Lines that were checked before: prompts come again with other seeds, and reading their words is
//! most of the work of a line.
//!
//! Bounded, in two generations: when the young one is full it becomes the old one, and what is
//! asked for again moves over. Not here: what is checked (`excite_jobs::Line::resolve`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use excite_jobs::{Line, LineError, Resolved};

/// Lines of a generation.
const LINES_MAX: usize = 2048;
/// Bytes of their text as it came; in memory they take some five times as much.
const BYTES_MAX: u64 = 2 << 20;

/// What checks side by side remember.
#[derive(Default)]
pub(super) struct Memo(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<u64, Arc<Known>>,
    old: HashMap<u64, Arc<Known>>,
    /// Of the young one.
    bytes: u64,
}

/// A line that was well, without what it is called.
struct Known {
    line: Line,
    resolved: Resolved,
    bytes: u64,
}

impl Memo {
    /// Resolves a line of `bytes` bytes: from one that is alike, or else with `resolve`.
    pub(super) fn resolve(
        &self,
        line: Line,
        bytes: u64,
        resolve: impl FnOnce(&Line) -> Result<Resolved, LineError>,
    ) -> Result<Resolved, LineError> {
        let key = key(&line);
        if let Some(known) = self.find(key).filter(|known| known.line.is_alike(&line)) {
            return line.resolve_as(&known.resolved);
        }
        let resolved = resolve(&line)?;
        let line = Line { seed: None, seeds: None, custom_id: None, labels: None, ..line };
        let kept = Resolved { custom_id: None, labels: Default::default(), ..resolved.clone() };
        self.keep(key, Arc::new(Known { line, resolved: kept, bytes }));
        Ok(resolved)
    }

    fn find(&self, key: u64) -> Option<Arc<Known>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.young.get(&key) {
            return Some(known.clone());
        }
        let known = kept.old.remove(&key)?;
        kept.insert(key, known.clone());
        Some(known)
    }

    fn keep(&self, key: u64, known: Arc<Known>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known);
    }
}

impl Generations {
    fn insert(&mut self, key: u64, known: Arc<Known>) {
        if self.young.len() >= LINES_MAX || self.bytes >= BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += known.bytes;
        self.young.insert(key, known);
    }
}

/// Lines that are alike have the same key; others seldom have, and are compared.
fn key(line: &Line) -> u64 {
    let mut hash = DefaultHasher::new();
    (&line.prompt, &line.negative_prompt, &line.subjects).hash(&mut hash);
    (line.width, line.height, line.steps, line.scheduler).hash(&mut hash);
    line.guidance_scale.map(f64::to_bits).hash(&mut hash);
    line.method.map(|method| method.as_str()).hash(&mut hash);
    line.noise.map(|noise| noise.as_str()).hash(&mut hash);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use excite_jobs::{ModelFacts, SchedulerName};
    use excite_prompt::{CLIP_MERGES, CLIP_VOCAB, Tokenizer};

    use super::*;

    fn facts() -> ModelFacts {
        ModelFacts {
            name: "emoji@0".into(),
            width: 128,
            height: 128,
            size_multiple: 8,
            side_min: 64,
            train_timesteps: 1000,
            scheduler: Ok(SchedulerName::Pndm),
            prompt_only_tokens: false,
        }
    }

    #[test]
    fn a_line_gets_what_it_would_without_the_memo_and_is_read_once() {
        let (facts, memo) = (facts(), Memo::default());
        let tokenizer = Tokenizer::new(CLIP_VOCAB, CLIP_MERGES, None).unwrap();
        let read = Cell::new(0);
        let resolve = |line: &Line| {
            read.set(read.get() + 1);
            line.resolve(&facts, &tokenizer)
        };
        #[rustfmt::skip]
        let table = [
            // besides the prompt                               read
            (r#", "seed": 5, "custom_id": "x""#,                1),
            (r#", "labels": {"a": "b"}"#,                       1),
            (r#", "seeds": "3..9""#,                            1),
            (r#", "seeds": "4..4""#,                            1), // refused
            (r#", "seed": 1, "seeds": "1..2""#,                 1), // refused
            (r#", "custom_id": "../x""#,                        1), // refused
            (r#", "labels": {"a": "\u0007"}"#,                  1), // refused
            (r#", "steps": 3"#,                                 2),
            (r#", "subjects": ["cat"]"#,                        3),
            (r#", "method_params": {"preset": "paper"}"#,       4),
            (r#", "negative_prompt": "a dog", "seed": 9"#,      5),
            (r#", "negative_prompt": "a dog", "seed": 8"#,      5),
            (r#", "accept": {"min_score": 0.5}, "seed": 1"#,    6),
            (r#", "accept": {"min_score": 0.5}, "seed": 2"#,    6),
            (r#", "accept": {"min_score": 0.6}"#,               7),
            (r#", "steps": 0"#,                                 8), // refused, and not kept
            (r#", "steps": 0"#,                                 9),
        ];
        for (more, want) in table {
            let text = format!(r#"{{"prompt": "a cat and a mood"{more}}}"#);
            let line = Line::parse(&text).unwrap();
            let got = memo.resolve(line.clone(), text.len() as u64, resolve);
            assert_eq!(read.get(), want, "{text}");
            assert_eq!(got, line.resolve(&facts, &tokenizer), "{text}");
        }
    }

    #[test]
    fn it_is_bounded_and_what_comes_again_stays() {
        let (facts, memo) = (facts(), Memo::default());
        let tokenizer = Tokenizer::new(CLIP_VOCAB, CLIP_MERGES, None).unwrap();
        let often = Line::parse(r#"{"prompt": "a cat"}"#).unwrap();
        let resolved = often.resolve(&facts, &tokenizer).unwrap();
        let read = Cell::new(0);
        for n in 0..4 * LINES_MAX {
            let prompt = Some(n.to_string());
            let line = Line { prompt, ..Line::default() };
            memo.resolve(line, 10, |_| Ok(resolved.clone())).unwrap();
            let count = |_: &Line| {
                read.set(read.get() + 1);
                Ok(resolved.clone())
            };
            memo.resolve(often.clone(), 10, count).unwrap();
        }
        let kept = memo.0.lock().unwrap();
        assert_eq!(read.get(), 1);
        assert!(kept.young.len() <= LINES_MAX && kept.old.len() <= LINES_MAX);
        drop(kept);
        let large = |n: u64| Line { steps: Some(n as u32), ..often.clone() };
        for n in 0..10 {
            memo.resolve(large(n), BYTES_MAX, |_| Ok(resolved.clone())).unwrap();
        }
        let kept = memo.0.lock().unwrap();
        assert!(kept.young.len() + kept.old.len() <= 2 + LINES_MAX);
        assert!(kept.young.len() == 1, "{}", kept.young.len());
    }
}
