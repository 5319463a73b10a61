//! Beam search: the likeliest sentences instead of the likeliest next words.
//!
//! Step for step what transformers 5.23 does (`GenerationMixin._beam_search` with `early_stopping`
//! false, length penalty 1 and one end token), so captions are the same token for token. Pure: the
//! caller computes the probabilities. Older releases, LAVIS' among them, divide a score by the
//! length with the prompt; here the prompt does not count.

use crate::error::Result;

/// Beams that go on.
pub(super) const BEAMS: usize = 3;
/// Candidates of a step: each beam may end, and as many must be left to go on.
const CANDIDATES: usize = 2 * BEAMS;

/// How long a sentence gets, in tokens, prompt included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    /// It does not end before.
    pub(super) min: usize,
    pub(super) max: usize,
}

/// A sentence and the sum of the logarithms of its probabilities; for a finished one, their mean.
#[derive(Debug, Clone, PartialEq)]
struct Beam {
    tokens: Vec<u32>,
    score: f32,
}

/// The best sentence that begins with `prompt`, with the `end` token if it has one.
///
/// `next` gets the tokens to read for each beam, the beams one after the other, and which of the
/// earlier beams each one continues, and returns a row of log-probabilities for each.
pub(super) fn search(
    prompt: &[u32],
    end: u32,
    lengths: Lengths,
    mut next: impl FnMut(&[u32], &[u32]) -> Result<Vec<Vec<f32>>>,
) -> Result<Vec<u32>> {
    let mut running = vec![Beam { tokens: prompt.to_vec(), score: 0. }];
    let mut finished: Vec<Beam> = Vec::new();
    let mut rows = next(prompt, &[0])?;
    loop {
        let length = running[0].tokens.len();
        if length < lengths.min {
            for row in &mut rows {
                row[end as usize] = f32::NEG_INFINITY;
            }
        }
        let candidates = best(&running, &rows);
        let ends = |token: u32| token == end || length + 1 >= lengths.max;
        let generated = length + 1 - prompt.len();
        let mut following = Vec::with_capacity(BEAMS);
        let mut parents = Vec::with_capacity(BEAMS);
        for (rank, &(parent, token, score)) in candidates.iter().enumerate() {
            let tokens = || [&running[parent].tokens[..], &[token]].concat();
            if !ends(token) {
                if following.len() < BEAMS {
                    following.push(Beam { tokens: tokens(), score });
                    parents.push(parent as u32);
                }
            } else if rank < BEAMS {
                // The candidates behind are there to go on only.
                finished.push(Beam { tokens: tokens(), score: score / generated as f32 });
            }
        }
        // Stable, so of equals the earlier one stays in front.
        finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        finished.truncate(BEAMS);
        // A sentence may end later with a better mean as long as one that goes on has a better mean
        // now than the worst that ended.
        let hopeful = following.first().is_some_and(|best| {
            let worst = finished.get(BEAMS - 1);
            worst.is_none_or(|worst| best.score / generated as f32 > worst.score)
        });
        if !hopeful {
            break;
        }
        running = following;
        let last: Vec<u32> =
            running.iter().filter_map(|beam| beam.tokens.last().copied()).collect();
        rows = next(&last, &parents)?;
    }
    Ok(finished.into_iter().next().map_or_else(|| prompt.to_vec(), |best| best.tokens))
}

/// The best continuations of all beams, best first: beam, token, score.
fn best(running: &[Beam], rows: &[Vec<f32>]) -> Vec<(usize, u32, f32)> {
    let mut best: Vec<(usize, u32, f32)> = Vec::with_capacity(CANDIDATES + 1);
    for (beam, (Beam { score, .. }, row)) in running.iter().zip(rows).enumerate() {
        for (token, log) in row.iter().enumerate() {
            let score = score + log;
            if best.len() == CANDIDATES && best.last().is_some_and(|worst| score <= worst.2) {
                continue;
            }
            let at = best.partition_point(|other| other.2 >= score);
            best.insert(at, (beam, token as u32, score));
            best.truncate(CANDIDATES);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = 0;
    const LENGTHS: Lengths = Lengths { min: 0, max: 8 };

    /// A language in which the row depends on the last token only: probabilities by token.
    fn search_in(rows: &[&[f32]], lengths: Lengths) -> (Vec<u32>, usize) {
        let mut steps = 0;
        let found = search(&[1], END, lengths, |tokens, _| {
            steps += 1;
            Ok(tokens.iter().map(|t| rows[*t as usize].iter().map(|p| p.ln()).collect()).collect())
        });
        (found.unwrap(), steps)
    }

    #[test]
    fn a_better_sentence_beats_a_better_word() {
        // After 1 the likeliest word is 2, but whatever follows it is unlikely; 3 4 is certain.
        let rows: [&[f32]; 5] = [
            &[0.2; 5],
            &[0.0001, 0.0001, 0.6, 0.3997, 0.0001],
            &[0.2, 0.2, 0.2, 0.2, 0.2],
            &[0.001, 0.001, 0.001, 0.001, 0.996],
            &[0.99, 0.0025, 0.0025, 0.0025, 0.0025],
        ];
        assert_eq!(search_in(&rows, LENGTHS).0, [1, 3, 4, END]);
    }

    #[test]
    fn nothing_ends_before_the_least_length_or_goes_on_behind_the_largest() {
        let willing: [&[f32]; 3] = [&[0.9, 0.05, 0.05]; 3];
        assert_eq!(search_in(&willing, LENGTHS).0.len(), 2);
        let found = search_in(&willing, Lengths { min: 5, max: 8 }).0;
        assert_eq!((found.len(), found[5]), (6, END));
        let unwilling: [&[f32]; 3] = [&[1e-9, 0.5, 0.5]; 3];
        let (found, steps) = search_in(&unwilling, LENGTHS);
        assert_eq!((found.len(), steps), (8, 7));
        assert!(!found.contains(&END));
    }

    #[test]
    fn it_stops_when_three_have_ended_and_none_can_be_better() {
        let rows: [&[f32]; 4] = [&[0.97, 0.01, 0.01, 0.01]; 4];
        let (found, steps) = search_in(&rows, Lengths { min: 0, max: 100 });
        assert_eq!(found, [1, END]);
        assert!(steps < 5, "{steps}");
    }

    #[test]
    fn beams_are_told_which_earlier_ones_they_continue() {
        let mut read: Vec<Vec<u32>> = vec![Vec::new()];
        let lengths = Lengths { min: 6, max: 6 };
        let found = search(&[1, 2], END, lengths, |tokens, parents| {
            let each = tokens.len() / parents.len();
            let follow = |(i, parent): (usize, &u32)| {
                [&read[*parent as usize][..], &tokens[i * each..(i + 1) * each]].concat()
            };
            read = parents.iter().enumerate().map(follow).collect();
            // The sum of all that was read decides, so a wrong parent would show.
            let row = |tokens: &Vec<u32>| {
                let sum: u32 = tokens.iter().sum();
                (0..7).map(|t| -(((sum * 31 + t * 17) % 13) as f32) - 0.1 * t as f32).collect()
            };
            Ok(read.iter().map(row).collect())
        });
        let found = found.unwrap();
        // What was read is the sentence without its last word.
        assert!(read.iter().any(|read| *read == found[..5]), "{found:?} of {read:?}");
    }
}
