//! Jobs of a batch by state, score, label and name, each once, in an order that a page can be cut
//! out of.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use excite_jobs::api::{JobPage, JobView};
use excite_jobs::progress::unpack;
use excite_jobs::{Batch, Done, State, StoredLine};
use serde::Deserialize;
use utoipa::ToSchema;

use super::App;
use super::problem::Fault;
use crate::job_index::{Found, Index};

/// Parts of lines that are looked through for a label or name: two million lines.
const PARTS_MAX: usize = 200;

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub(super) enum Sort {
    /// By place in the batch.
    #[serde(rename = "index")]
    Index,
    /// The weakest first; without a score last.
    #[serde(rename = "score")]
    Score,
    /// The strongest first; without a score last.
    #[serde(rename = "-score")]
    ScoreDown,
    /// What was concluded last first; what was not last.
    #[serde(rename = "-at")]
    Newest,
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) state: Option<State>,
    pub(super) label: Option<(String, String)>,
    pub(super) custom_id: Option<String>,
    pub(super) min_score: Option<f32>,
    pub(super) max_score: Option<f32>,
}

/// Behind a job of a sorted list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Behind {
    /// What the list is sorted by: a score, or the place in the order of conclusion.
    key: Option<f64>,
    index: u32,
}

impl FromStr for Behind {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parsed = || {
            let (key, index) = text.split_once('~')?;
            let key = if key.is_empty() { None } else { Some(key.parse().ok()?) };
            Some(Self { key, index: index.parse().ok()? })
        };
        parsed().ok_or_else(|| {
            let detail = "`after` is no place in this list".to_owned();
            Fault::bad("bad_query", detail, "Use `next` of the page before, with the same `sort`.")
        })
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => write!(f, "{key}~{}", self.index),
            None => write!(f, "~{}", self.index),
        }
    }
}

impl Sort {
    fn compare(self, a: &Behind, b: &Behind) -> Ordering {
        let by_key = match (self, a.key, b.key) {
            (Self::Index, ..) | (_, None, None) => Ordering::Equal,
            (_, None, _) => Ordering::Greater,
            (_, _, None) => Ordering::Less,
            (Self::Score, Some(a), Some(b)) => a.total_cmp(&b),
            (Self::ScoreDown | Self::Newest, Some(a), Some(b)) => b.total_cmp(&a),
        };
        by_key.then(a.index.cmp(&b.index))
    }

    fn key(self, found: &Found) -> Option<f64> {
        match self {
            Self::Index => None,
            Self::Score | Self::ScoreDown => found.score.map(f64::from),
            // Exact below 2^53: two million parts.
            Self::Newest => found.concluded.map(|place| place as f64),
        }
    }
}

impl Wanted {
    fn takes(&self, found: &Found) -> bool {
        let in_range = |score: f32| {
            self.min_score.is_none_or(|min| score >= min)
                && self.max_score.is_none_or(|max| score <= max)
        };
        let ranged = self.min_score.is_some() || self.max_score.is_some();
        self.state.is_none_or(|state| found.state == state)
            && (!ranged || found.score.is_some_and(in_range))
    }

    fn names(&self) -> bool {
        self.label.is_some() || self.custom_id.is_some()
    }

    fn takes_line(&self, line: &StoredLine) -> bool {
        self.label.as_ref().is_none_or(|(key, value)| line.labels.get(key) == Some(value))
            && self.custom_id.as_ref().is_none_or(|id| line.custom_id.as_ref() == Some(id))
    }
}

impl App {
    /// A page of the jobs that are wanted.
    pub(super) async fn find(
        &self,
        batch: &Batch,
        wanted: &Wanted,
        sort: Sort,
        after: Option<Behind>,
        limit: usize,
    ) -> Result<JobPage, Fault> {
        let index = self.indexes.of(batch).await?;
        let mut found = self.candidates(batch, &index, wanted).await?;
        if wanted.names() {
            let ranges = self.named(batch, wanted).await?;
            found.retain(|found| {
                let at = ranges.partition_point(|(first, _)| *first <= found.index);
                at.checked_sub(1).is_some_and(|at| found.index < ranges[at].1)
            });
        }
        let mut places: Vec<(Behind, State)> = found
            .into_iter()
            .map(|found| (Behind { key: sort.key(&found), index: found.index }, found.state))
            .filter(|(place, _)| after.is_none_or(|after| sort.compare(place, &after).is_gt()))
            .collect();
        places.sort_unstable_by(|(a, _), (b, _)| sort.compare(a, b));
        let more = places.len() > limit;
        places.truncate(limit);
        let jobs: Vec<u32> = places.iter().map(|(place, _)| place.index).collect();
        let mut records = self.indexes.records(&index, &jobs).await?;
        // Making the views reads lines: others may look at the index meanwhile.
        drop(index);
        let next = places.last().filter(|_| more).map(|(place, _)| place.to_string());
        let mut views = Vec::with_capacity(places.len());
        for (place, state) in places {
            let record = records.remove(&place.index).filter(|record| record.state == state);
            views.push(self.job_at(batch, place.index, state, record).await?);
        }
        Ok(JobPage { jobs: views, next })
    }

    async fn candidates(
        &self,
        batch: &Batch,
        index: &Index,
        wanted: &Wanted,
    ) -> Result<Vec<Found>, Fault> {
        let mut found: Vec<Found> = Vec::new();
        if wanted.state.is_none_or(State::is_terminal) {
            let terminal = index.concluded().filter(|found| found.state.is_terminal());
            found.extend(terminal.filter(|found| wanted.takes(found)));
        }
        // Of a cancelled batch nobody concluded the jobs that were never fed.
        let never = wanted.state == Some(State::Cancelled) && batch.cancelled;
        if never || wanted.state.is_none_or(|state| !state.is_terminal()) {
            let states = self.ports.progress.states(batch.id).await.unwrap_or_default();
            let states = states.unwrap_or_default();
            for job in 0..batch.jobs {
                if index.state(job).is_some_and(State::is_terminal) {
                    continue;
                }
                let state = if batch.cancelled { State::Cancelled } else { unpack(&states, job) };
                let one = Found { index: job, state, score: None, concluded: None };
                found.extend(Some(one).filter(|one| wanted.takes(one)));
            }
        }
        Ok(found)
    }

    /// Jobs whose line has the label or name, as ranges in order.
    async fn named(&self, batch: &Batch, wanted: &Wanted) -> Result<Vec<(u32, u32)>, Fault> {
        if batch.parts.len() > PARTS_MAX {
            let detail = format!("a batch of {} lines is not searched", batch.lines);
            let remedy = format!("Read `/v1/batches/{}/results` and search that.", batch.id);
            return Err(Fault::refused("too_large", detail, remedy));
        }
        let firsts: Vec<u32> = match batch.parts.as_slice() {
            [] => vec![0],
            parts => parts.iter().filter(|part| part.jobs > 0).map(|part| part.first).collect(),
        };
        let mut ranges = Vec::new();
        for first in firsts {
            let lines = self.manifests.lines(batch, first).await?;
            let named = lines.iter().filter(|line| wanted.takes_line(line));
            ranges.extend(named.map(|line| (line.first, line.first + line.jobs())));
        }
        Ok(ranges)
    }

    /// A job as lists show it.
    pub(super) async fn job_at(
        &self,
        batch: &Batch,
        index: u32,
        state: State,
        record: Option<Done>,
    ) -> Result<JobView, Fault> {
        match record {
            Some(record) => self.job_view(batch, record).await,
            None => {
                let (line, spec) = self.line_at(batch, index).await?;
                Ok(super::jobs::view(batch.id, index, &line, spec, state))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_where_they_were() {
        let place = |key, index| Behind { key, index };
        let mut all = [
            place(None, 1),
            place(Some(0.5), 4),
            place(Some(0.25), 9),
            place(Some(0.5), 2),
            place(None, 0),
        ];
        let order = |all: &mut [Behind], sort: Sort| {
            all.sort_unstable_by(|a, b| sort.compare(a, b));
            all.iter().map(|place| place.index).collect::<Vec<_>>()
        };
        assert_eq!(order(&mut all, Sort::Score), [9, 2, 4, 0, 1]);
        assert_eq!(order(&mut all, Sort::ScoreDown), [2, 4, 9, 0, 1]);
        assert_eq!(order(&mut all, Sort::Newest), [2, 4, 9, 0, 1]);
        assert_eq!(order(&mut all, Sort::Index), [0, 1, 2, 4, 9]);
        for place in all {
            assert_eq!(place.to_string().parse::<Behind>().unwrap(), place);
        }
        for bad in ["", "x", "1", "~", "0.5~", "~-1"] {
            assert!(bad.parse::<Behind>().is_err(), "{bad}");
        }
    }
}
