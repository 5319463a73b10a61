//! Accepts batches: an upload is checked line by line while it comes in, its lines are stored in
//! parts, and `batch.json`, written last, commits it.
//!
//! Nothing is kept of an upload that is refused, cut or given up: what was stored of it is taken
//! away, at once or, if this process dies, by the sweeper. A batch that is committed is only then
//! told to the leading dispatcher; the broker need not be there for that.
//!
//! Not here: HTTP (`http`), what becomes of the batch (`lead`).

mod body;
mod check;
mod commit;
mod error;
mod matrix;
mod memo;
mod options;
mod orphans;
mod records;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use excite_jobs::api::{BatchOptions, DryRun};
use excite_jobs::store::Condition;
use excite_jobs::{
    Batch, BatchId, JobOutputs, Lane, MethodName, ModelCard, ModelFacts, Part, VERSION, keys,
    limits,
};
use excite_prompt::{CLIP_MERGES, CLIP_VOCAB, Tokenizer, TokenizerError};
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc};

use self::body::{Counted, Piece, Pieces};
use self::check::{CheckFault, Checked, FullPart, Terms, check};
use self::commit::{Claim, commit};
use self::memo::Memo;
use self::options::Options;
use self::orphans::Orphans;
use crate::estimates::EstimatesCache;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::ports::Ports;

pub use self::body::BodyFault;
pub use self::commit::announce;
pub use self::error::AcceptError;
pub(crate) use self::matrix::Written as Matrix;
pub(crate) use self::options::{batch_name, within};
pub use self::records::{Format, NumberedLine, csv_lines};
pub use self::sweep::sweeper;

/// Uploads that are checked at a time: each may take some 30 MB.
const UPLOADS_MAX: usize = 16;
/// How long an upload may wait for its turn.
const TURN_MAX: Duration = Duration::from_secs(10);
/// How long the next piece of an upload may take.
const PIECE_MAX: Duration = Duration::from_secs(60);
/// Pieces (of some 64 KB) that may wait for the thread that checks them.
const PIECES: usize = 16;
/// Parts that may wait to be stored.
const PARTS: usize = 2;
/// What is still read of an upload that was refused before its end: a sender that is in the middle
/// of it would not see the answer.
const REST_BYTES_MAX: usize = 64 << 20;

/// What somebody asks for.
#[derive(Debug, Clone)]
pub struct Submission {
    /// As they came.
    pub options: BatchOptions,
    /// How lines are written.
    pub format: Format,
    /// The body is gzip.
    pub gzip: bool,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// Trace context of the sender.
    pub traceparent: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It was only to be checked.
    DryRun(DryRun),
    /// It is a new batch.
    New(Batch),
    /// It is a batch already: the key was used for the same.
    Known(Batch),
}

/// Accepts batches.
pub struct Accept {
    ports: Ports,
    models: Arc<Models>,
    estimates: Arc<EstimatesCache>,
    metrics: Metrics,
    tokenizer: Arc<Tokenizer>,
    default_model: String,
    turns: Semaphore,
}

impl Accept {
    /// With the model that batches get which name none.
    ///
    /// # Errors
    /// If the tokenizer that is part of the program cannot be made.
    pub fn new(
        ports: Ports,
        models: Arc<Models>,
        estimates: Arc<EstimatesCache>,
        metrics: Metrics,
        default_model: String,
    ) -> Result<Self, TokenizerError> {
        // Only the pad token differs between models, and no word depends on it.
        let tokenizer = Arc::new(Tokenizer::new(CLIP_VOCAB, CLIP_MERGES, None)?);
        let turns = Semaphore::new(UPLOADS_MAX);
        Ok(Self { ports, models, estimates, metrics, tokenizer, default_model, turns })
    }

    /// Of prompts.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Whether a batch can have these options, before anything of it is sent.
    ///
    /// # Errors
    /// [`AcceptError::Option`] and [`AcceptError::UnknownModel`], or the store's.
    pub async fn check(&self, options: &BatchOptions) -> Result<(), AcceptError> {
        self.settle(options).await.map(|_| ())
    }

    async fn settle(
        &self,
        options: &BatchOptions,
    ) -> Result<(Options, Arc<ModelCard>), AcceptError> {
        let name = options.model.clone().unwrap_or_else(|| self.default_model.clone());
        Ok((Options::of(options)?, self.model(name).await?))
    }

    /// Reads an upload to its end and makes a batch of it. If the caller goes away meanwhile,
    /// nothing is accepted, or, once it is being committed, all of it.
    ///
    /// # Errors
    /// See [`AcceptError`]; nothing is stored then.
    pub async fn accept<E: std::fmt::Display>(
        &self,
        submission: Submission,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Accepted, AcceptError> {
        let (options, card) = self.settle(&submission.options).await?;
        let turn = tokio::time::timeout(TURN_MAX, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| AcceptError::Busy)?.map_err(|_| AcceptError::Busy)?;
        let id = BatchId::new();
        let mut upload = Upload {
            orphans: Orphans::new(self.ports.store.clone()),
            id,
            write: !submission.options.dry_run,
            parts: Vec::new(),
        };
        let facts = ModelFacts { name: card.full_name(), ..card.facts.clone() };
        let terms = Terms {
            facts,
            defaults: options.defaults.clone(),
            compare: submission.options.compare,
            methods: options.methods.clone(),
            tokenizer: self.tokenizer.clone(),
            memo: Memo::default(),
        };
        let checked = upload.read(terms, &submission, body).await?;
        self.metrics.accept_lines.inc_by(checked.lines);
        self.metrics.accept_bytes.inc_by(checked.bytes);
        if checked.refused > 0 {
            let Checked { lines, refused, refusals, .. } = checked;
            return Err(AcceptError::Lines { lines, refused, refusals });
        }
        if checked.lines == 0 {
            return Err(AcceptError::Empty);
        }
        let lane = options.lane.unwrap_or_else(|| Batch::lane_of(checked.jobs));
        if lane == Lane::Express && checked.jobs > limits::EXPRESS_JOBS_MAX {
            return Err(AcceptError::TooManyForExpress { jobs: checked.jobs });
        }
        if submission.options.dry_run {
            return Ok(Accepted::DryRun(self.dry_run(&card, checked).await));
        }
        self.finish(upload, submission, options, &card, lane, checked).await
    }

    async fn finish(
        &self,
        upload: Upload,
        submission: Submission,
        options: Options,
        card: &ModelCard,
        lane: Lane,
        checked: Checked,
    ) -> Result<Accepted, AcceptError> {
        let claim = submission.key.as_deref().map(|key| {
            Claim::new(key, &submission.options, submission.format.name(), &checked.sha256)
        });
        let traceparent = submission.traceparent.unwrap_or_else(new_traceparent);
        let outputs = &submission.options;
        let batch = Batch {
            v: VERSION,
            id: upload.id,
            revision: 1,
            name: options.name,
            tenant: "default".into(),
            created_at: OffsetDateTime::now_utc(),
            jobs: checked.jobs,
            lines: checked.lines,
            parts: upload.parts,
            inline: checked.inline.unwrap_or_default(),
            model: card.full_name(),
            class: card.class.clone(),
            lane,
            outputs: JobOutputs { attention: outputs.attention, trace: outputs.trace },
            max_attempts: options.max_attempts,
            weight: options.weight,
            paused: false,
            cancelled: false,
            compare: outputs.compare
                || options.methods.len() > 1 && options.methods.contains(&MethodName::None),
            parent: outputs.parent,
            canary: false,
            warnings: checked.warnings,
            work: checked.work,
            traceparent: Some(traceparent),
            body_sha256: checked.sha256,
        };
        let ports = self.ports.clone();
        // A task of its own: from here on it is done to the end even if the caller goes away.
        let commit = tokio::spawn(commit(ports, batch, claim, upload.orphans));
        commit.await.map_err(|e| AcceptError::Internal(e.to_string()))?
    }

    async fn model(&self, name: String) -> Result<Arc<ModelCard>, AcceptError> {
        if let Some(card) = self.models.card(&name).await? {
            return Ok(card);
        }
        let known = self.models.names().await?;
        Err(AcceptError::UnknownModel { name: name.chars().take(100).collect(), known })
    }

    async fn dry_run(&self, card: &ModelCard, checked: Checked) -> DryRun {
        let model = card.full_name();
        let gpu_seconds = self.estimates.get().await.seconds(&model, &checked.work);
        DryRun {
            lines: checked.lines,
            jobs: u64::from(checked.jobs),
            drain_seconds: self.drain_seconds(&card.class, gpu_seconds).await,
            model,
            gpu_seconds,
            price: None,
            currency: None,
            warnings: checked.warnings,
            warned_lines: checked.warned_lines,
            examples: checked.examples,
        }
    }

    /// Behind what is queued, with the workers that are ready now.
    async fn drain_seconds(&self, class: &str, gpu_seconds: Option<f64>) -> Option<f64> {
        let status = self.ports.progress.status().await.ok()??;
        let status = status.classes.into_iter().find(|status| status.class == class);
        let queued = status.map_or(Some(0.), |status| status.seconds)?;
        let workers = self.ports.progress.workers().await.ok()?;
        let ready = workers.iter().filter(|beat| beat.class == class && is_ready(beat)).count();
        (ready > 0).then_some((queued + gpu_seconds?) / ready as f64)
    }
}

fn is_ready(beat: &excite_jobs::progress::WorkerBeat) -> bool {
    beat.state == excite_jobs::progress::WorkerState::Ready
}

/// An upload while it comes in.
struct Upload {
    orphans: Orphans,
    id: BatchId,
    write: bool,
    parts: Vec<Part>,
}

impl Upload {
    async fn read<E: std::fmt::Display>(
        &mut self,
        terms: Terms,
        submission: &Submission,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Checked, AcceptError> {
        let (send_piece, pieces) = mpsc::channel(PIECES);
        let (send_part, parts) = mpsc::channel(PARTS);
        let (format, gzip, write) = (submission.format, submission.gzip, self.write);
        let checking = tokio::task::spawn_blocking(move || {
            let pieces = Pieces::new(pieces);
            let input = Counted::new(pieces, gzip, Sha256::new(), limits::BATCH_BYTES_MAX);
            check(&terms, format, input, |part| !write || send_part.blocking_send(part).is_ok())
        });
        let ((), stored, checked) =
            tokio::join!(pump(body, send_piece), self.store(parts), checking);
        let checked = checked.map_err(|e| AcceptError::Internal(e.to_string()))?;
        match (stored, checked) {
            (Err(error), Err(CheckFault::GivenUp)) => Err(error),
            (_, Err(fault)) => Err(fault.into()),
            (Err(error), Ok(checked)) if checked.refused == 0 => Err(error),
            (_, Ok(checked)) => Ok(checked),
        }
    }

    async fn store(&mut self, mut parts: mpsc::Receiver<FullPart>) -> Result<(), AcceptError> {
        while let Some(FullPart { mut part, body }) = parts.recv().await {
            part.key = keys::part(self.id, self.parts.len());
            self.orphans.add(&part.key);
            self.orphans.store().put(&part.key, body, Condition::Always).await?;
            self.parts.push(part);
        }
        Ok(())
    }
}

/// Hands the body on. One that fails or stops coming is cut.
async fn pump<E: std::fmt::Display>(
    body: impl Stream<Item = Result<Bytes, E>>,
    pieces: mpsc::Sender<Piece>,
) {
    let mut body = std::pin::pin!(body);
    let mut rest = 0;
    loop {
        let piece = match tokio::time::timeout(PIECE_MAX, body.next()).await {
            Ok(None) => return,
            Ok(Some(Ok(piece))) => Ok(piece),
            Ok(Some(Err(error))) => Err(BodyFault::Cut(error.to_string())),
            Err(_) => {
                let message = format!("nothing came for {} s", PIECE_MAX.as_secs());
                Err(BodyFault::Cut(message))
            }
        };
        let (cut, length) = (piece.is_err(), piece.as_ref().map_or(0, Bytes::len));
        if pieces.send(piece).await.is_err() {
            rest += length;
        }
        if cut || rest > REST_BYTES_MAX {
            return;
        }
    }
}

/// A trace begins here.
fn new_traceparent() -> String {
    let trace: u128 = rand::random_range(1..=u128::MAX);
    let span: u64 = rand::random_range(1..=u64::MAX);
    format!("00-{trace:032x}-{span:016x}-01")
}

/// Whether a header of the sender is a trace context of version 0.
pub fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return false };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    version == "00"
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && !zero(trace)
        && !zero(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_told_from_other_text() {
        assert!(is_traceparent(&new_traceparent()));
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in ["", "x", &good.to_uppercase(), &good[1..], &good.replace("4bf9", "0-00")] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        assert!(!is_traceparent(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))));
    }
}
