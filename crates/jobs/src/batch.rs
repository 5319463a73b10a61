//! A batch as it is stored: a header that commits it, and parts of lines.
//!
//! A line stands for as many jobs as it has seeds; nothing is stored a job. The place of a job is
//! counted over the seeds of all lines in front of it, so a part and a place in it name each job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::id::{BatchId, JobId};
use crate::job::{Job, JobOutputs, Lane, VERSION};
use crate::limits;
use crate::seeds::Seeds;
use crate::spec::Spec;
use crate::tries::Accept;

/// The header of a batch: `batch.json`. Written last, so that it commits the batch; only
/// `name`, `weight`, `paused` and `cancelled` change later, with `revision`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// [`VERSION`].
    pub v: u32,
    /// Its name.
    pub id: BatchId,
    /// Counts changes of the header.
    pub revision: u64,
    /// What a person calls it.
    #[serde(default)]
    pub name: Option<String>,
    /// Who pays for it.
    pub tenant: String,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Jobs.
    pub jobs: u32,
    /// Lines.
    pub lines: u64,
    /// Where the lines are; empty where they are in `inline`.
    pub parts: Vec<Part>,
    /// The lines of a small batch.
    #[serde(default)]
    pub inline: Vec<StoredLine>,
    /// `name@digest`, for all its jobs.
    pub model: String,
    /// Which workers.
    pub class: String,
    /// Which queue.
    pub lane: Lane,
    /// What is stored beside the images.
    #[serde(default)]
    pub outputs: JobOutputs,
    /// Tries of a job.
    pub max_attempts: u32,
    /// Share beside other batches.
    pub weight: u32,
    /// Nothing more is fed.
    #[serde(default)]
    pub paused: bool,
    /// Nothing more is fed, and what runs stops.
    #[serde(default)]
    pub cancelled: bool,
    /// Each image is also made plain, with the same seed.
    #[serde(default)]
    pub compare: bool,
    /// Of whose jobs these are made anew, edited or with other seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BatchId>,
    /// The canary: it is taken away when it is done.
    #[serde(default)]
    pub canary: bool,
    /// Warnings by code, with the number of lines.
    #[serde(default)]
    pub warnings: BTreeMap<String, u64>,
    /// Total of steps times pixels, for estimates.
    pub work: Work,
    /// Trace context of the submission.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// SHA-256 of the body as it was uploaded.
    pub body_sha256: String,
}

/// What jobs cost, before anybody knows the seconds: steps times pixels, of one try each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Of images without guidance.
    pub plain: f64,
    /// Of images with guidance.
    pub guided: f64,
}

/// Some lines of a batch, gzipped NDJSON in one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Key of the object.
    pub key: String,
    /// Of the object, in hexadecimal.
    pub sha256: String,
    /// Of the object.
    pub bytes: u64,
    /// Lines in it.
    pub lines: u32,
    /// Place of its first job.
    pub first: u32,
    /// Jobs in it.
    pub jobs: u32,
}

/// A line with its defaults filled in and its words found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredLine {
    /// In the upload, from 1.
    pub line: u64,
    /// Place of its first job.
    pub first: u32,
    /// What the images are; each has its own seed.
    pub spec: Spec,
    /// One job each, as [`Seeds`] writes them.
    pub seeds: String,
    /// When an image is good enough; none: as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
    /// Place of the first job of the line whose images these are compared with: guided with plain,
    /// seed by seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<u32>,
    /// The person's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_id: Option<String>,
    /// What the person wants to find it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl StoredLine {
    /// How many jobs it is; 0 if it cannot be read.
    pub fn jobs(&self) -> u32 {
        let seeds = self.seeds.parse::<Seeds>().ok();
        seeds.and_then(|seeds| u32::try_from(seeds.count()).ok()).unwrap_or(0)
    }

    /// The job that the one at `index` is compared with.
    pub fn twin_of(&self, index: u32) -> Option<u32> {
        Some(self.compared_with? + index.checked_sub(self.first)?)
    }

    /// The spec of the job at `index`; `None` if the line has no such job.
    pub fn spec_at(&self, index: u32) -> Option<Spec> {
        let seeds: Seeds = self.seeds.parse().ok()?;
        let seed = seeds.nth(u64::from(index.checked_sub(self.first)?))?;
        Some(Spec { seed, ..self.spec.clone() })
    }
}

impl Batch {
    /// The part that holds the job at `index`; `None` if the lines are inline or there is no such.
    pub fn part_of(&self, index: u32) -> Option<usize> {
        let at = self.parts.partition_point(|part| part.first <= index).checked_sub(1)?;
        let part = &self.parts[at];
        (index - part.first < part.jobs).then_some(at)
    }

    /// The first publication of the job at `index`, whose line is among `lines` (of its part, or
    /// inline); `None` if it is not.
    pub fn job(&self, lines: &[StoredLine], index: u32) -> Option<Job> {
        let at = lines.partition_point(|line| line.first <= index).checked_sub(1)?;
        let line = &lines[at];
        Some(Job {
            v: VERSION,
            id: JobId::new(self.id, index),
            batch: self.id,
            index,
            custom_id: line.custom_id.clone(),
            labels: line.labels.clone(),
            tenant: self.tenant.clone(),
            spec: line.spec_at(index)?,
            outputs: self.outputs,
            accept: line.accept,
            lane: self.lane,
            class: self.class.clone(),
            lease: 1,
            attempt: 1,
            max_attempts: self.max_attempts,
            checkpoint: None,
            rest: serde_json::Map::new(),
        })
    }

    /// The lane of a batch of so many jobs where nobody says otherwise.
    pub fn lane_of(jobs: u32) -> Lane {
        if jobs <= limits::EXPRESS_JOBS_MAX { Lane::Express } else { Lane::Bulk }
    }
}

/// How far the feeder is: `cursor.json`. Written before the jobs it claims are published, so
/// whoever comes after publishes the last claim again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// [`VERSION`].
    pub v: u32,
    /// Of the dispatcher that wrote it.
    pub epoch: u64,
    /// First job of the last claim.
    pub from: u32,
    /// One behind its last job: all in front were published at least once, or are being published.
    pub to: u32,
}

/// Which dispatcher leads: `leader.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// [`VERSION`].
    pub v: u32,
    /// Raised by each that takes over.
    pub epoch: u64,
    /// Its name.
    pub dispatcher: String,
    /// When, by its clock: shown, never compared.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// Whose batch an idempotency key made: `idempotency/<sha256>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// [`VERSION`].
    pub v: u32,
    /// The batch.
    pub batch: BatchId,
    /// SHA-256 over options and body.
    pub body_sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::JOB;

    fn batch() -> (Batch, Vec<StoredLine>) {
        let job = Job::parse(JOB.as_bytes()).unwrap();
        let line = |line, first, seeds: &str| StoredLine {
            line,
            first,
            spec: job.spec.clone(),
            seeds: seeds.into(),
            accept: None,
            compared_with: None,
            custom_id: Some(format!("line-{line}")),
            labels: BTreeMap::new(),
        };
        let lines = vec![line(1, 10, "5..8"), line(3, 13, "9"), line(4, 14, "1,7")];
        let part = |first, jobs| Part {
            key: String::new(),
            sha256: String::new(),
            bytes: 0,
            lines: 3,
            first,
            jobs,
        };
        let batch = Batch {
            v: VERSION,
            id: job.batch,
            revision: 1,
            name: None,
            tenant: "default".into(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            jobs: 16,
            lines: 4,
            parts: vec![part(0, 10), part(10, 6)],
            inline: Vec::new(),
            model: job.spec.model.clone(),
            class: "default".into(),
            lane: Lane::Bulk,
            outputs: JobOutputs::default(),
            max_attempts: 8,
            weight: 1,
            paused: false,
            cancelled: false,
            compare: false,
            parent: None,
            canary: false,
            warnings: BTreeMap::new(),
            work: Work::default(),
            traceparent: None,
            body_sha256: String::new(),
        };
        (batch, lines)
    }

    #[test]
    fn every_place_has_its_line_and_seed() {
        let (batch, lines) = batch();
        let of = |index| batch.job(&lines, index).map(|j| (j.custom_id.unwrap(), j.spec.seed));
        let want = [("line-1", 5), ("line-1", 6), ("line-1", 7)];
        let want = want.into_iter().chain([("line-3", 9), ("line-4", 1), ("line-4", 7)]);
        for (index, (line, seed)) in (10..).zip(want) {
            assert_eq!(of(index), Some((line.to_owned(), seed)), "{index}");
        }
        assert_eq!((of(9), of(16)), (None, None));
        assert_eq!(batch.job(&[], 10), None);
        for (index, part) in [(0, Some(0)), (9, Some(0)), (10, Some(1)), (15, Some(1)), (16, None)]
        {
            assert_eq!(batch.part_of(index), part, "{index}");
        }
    }

    #[test]
    fn a_header_reads_back_and_needs_little() {
        let (batch, _) = batch();
        let json = serde_json::to_value(&batch).unwrap();
        assert_eq!(serde_json::from_value::<Batch>(json.clone()).unwrap(), batch);
        assert_eq!(json["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(json["lane"], "bulk");
    }
}
