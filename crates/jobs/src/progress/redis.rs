//! The mirror in Redis 6.2 or later, or Valkey.
//!
//! Of a batch, all keys with its name in braces, so that a cluster keeps them together:
//! `excite:{b:<batch>}:st` is a string of 4 bits a job, `…:n` a hash with the revision, a number a
//! state and the other sums, `…:ev` a stream of events. `excite:workers` names those that may live,
//! `excite:w:<worker>` expires. Nothing is found by going through all keys. A server that must drop
//! keys may drop these, but better refuses writes (`maxmemory-policy noeviction`).

mod link;
mod wire;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Client, IntoConnectionInfo, Pipeline, TlsCertificates};

use self::link::Link;
use self::wire::{CHUNK_BYTES, CHUNK_JOBS};
use super::{
    BatchEvent, BatchProgress, Change, DRAIN_SECONDS, EVENTS_MAX, EventId, FINISHED_SECONDS,
    POINTS_MAX, Point, Progress, ProgressError, STATUS_SECONDS, Status, WORKER_SECONDS, WorkerBeat,
};
use crate::done::Tally;
use crate::id::BatchId;

const WORKERS: &str = "excite:workers";
const CANCELLED: &str = "excite:cancel";
const STATUS: &str = "excite:status";
const POINTS: &str = "excite:points";
/// Points are of no use to anybody after a day without a leader.
const POINTS_SECONDS: i64 = 24 * 3600;

/// Where Redis is.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://` or `rediss://`, with user and password if need be.
    pub url: String,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// How long a call may take: 250 ms where nothing else is known.
    pub timeout: Duration,
    /// How the connection is called in the server's list of clients.
    pub name: String,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it may hold a password.
        let mut debug = f.debug_struct("RedisOptions");
        debug.field("timeout", &self.timeout).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Progress in Redis.
#[derive(Debug)]
pub struct RedisMirror {
    link: Link,
}

impl RedisMirror {
    /// Begins to connect, and goes on trying for as long as it takes. Within a tokio runtime; for
    /// `rediss://` rustls must have its default provider.
    ///
    /// # Errors
    /// If the URL or the certificates cannot be read.
    pub fn connect(options: RedisOptions) -> Result<Self, ProgressError> {
        // The client takes a text without any certificate for one, and then trusts nobody.
        let certificate = |pem: &Vec<u8>| {
            let begin = b"-----BEGIN CERTIFICATE-----";
            pem.windows(begin.len()).any(|window| window == begin)
        };
        if options.ca_pem.as_ref().is_some_and(|pem| !certificate(pem)) {
            return Err(ProgressError("there is no certificate (PEM) among those to trust".into()));
        }
        let failed = |error: redis::RedisError| {
            ProgressError(format!("the URL or the certificates cannot be used: {error}"))
        };
        let info = options.url.as_str().into_connection_info().map_err(failed)?;
        let client = match options.ca_pem {
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
                Client::build_with_tls(info, certificates)
            }
            None => Client::open(info),
        };
        // The server takes neither spaces nor line ends.
        let name = options.name.replace(|c: char| !c.is_ascii_graphic(), "-");
        Ok(Self { link: Link::new(client.map_err(failed)?, name, options.timeout) })
    }

    async fn run<T: redis::FromRedisValue>(&self, commands: Pipeline) -> Result<T, ProgressError> {
        self.link.call(async |mut link| commands.query_async(&mut link).await).await
    }
}

fn states_key(batch: BatchId) -> String {
    format!("excite:{{b:{batch}}}:st")
}

fn sums_key(batch: BatchId) -> String {
    format!("excite:{{b:{batch}}}:n")
}

fn events_key(batch: BatchId) -> String {
    format!("excite:{{b:{batch}}}:ev")
}

fn worker_key(worker: &str) -> String {
    format!("excite:w:{worker}")
}

fn drain_key(worker: &str) -> String {
    format!("excite:drain:{worker}")
}

#[async_trait]
impl Progress for RedisMirror {
    async fn beat(&self, beat: &WorkerBeat) -> Result<(), ProgressError> {
        let mut pipe = redis::pipe();
        pipe.sadd(WORKERS, &beat.worker).ignore();
        pipe.set_ex(worker_key(&beat.worker), wire::to_json(beat)?, WORKER_SECONDS).ignore();
        self.run(pipe).await
    }

    async fn gone(&self, worker: &str) -> Result<(), ProgressError> {
        let mut pipe = redis::pipe();
        pipe.srem(WORKERS, worker).ignore();
        pipe.del(worker_key(worker)).ignore().del(drain_key(worker)).ignore();
        self.run(pipe).await
    }

    async fn workers(&self) -> Result<Vec<WorkerBeat>, ProgressError> {
        let mut pipe = redis::pipe();
        pipe.smembers(WORKERS);
        let (names,): (BTreeSet<String>,) = self.run(pipe).await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for name in &names {
            pipe.get(worker_key(name));
        }
        let beats: Vec<Option<String>> = self.run(pipe).await?;
        let expired = names.iter().zip(&beats).filter(|(_, beat)| beat.is_none());
        let expired: Vec<&String> = expired.map(|(name, _)| name).collect();
        if !expired.is_empty() {
            // One that comes back meanwhile is named again with its next beat.
            let mut pipe = redis::pipe();
            pipe.srem(WORKERS, expired).ignore();
            self.run::<()>(pipe).await?;
        }
        // What cannot be read is of another version.
        Ok(beats.iter().flatten().filter_map(|beat| serde_json::from_str(beat).ok()).collect())
    }

    async fn batch(&self, batch: BatchId) -> Result<Option<BatchProgress>, ProgressError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HMGET").arg(sums_key(batch)).arg(wire::fields());
        let (values,): (Vec<Option<String>>,) = self.run(pipe).await?;
        wire::progress(values)
    }

    async fn states(&self, batch: BatchId) -> Result<Option<Vec<u8>>, ProgressError> {
        let mut states = Vec::new();
        loop {
            let end = states.len() + CHUNK_BYTES - 1;
            let mut pipe = redis::pipe();
            pipe.atomic().exists(sums_key(batch));
            pipe.getrange(states_key(batch), states.len() as isize, end as isize);
            let (there, piece): (bool, Vec<u8>) = self.run(pipe).await?;
            if !there {
                return Ok(None);
            }
            states.extend_from_slice(&piece);
            if piece.len() < CHUNK_BYTES {
                return Ok(Some(states));
            }
        }
    }

    async fn update(&self, change: &Change) -> Result<bool, ProgressError> {
        let highest = change.states.iter().map(|(index, _)| *index).max().unwrap_or(0);
        let mut pieces: Vec<_> = change.states.chunks(CHUNK_JOBS).collect();
        let last = pieces.pop().unwrap_or_default();
        // Pieces do not change the revision, so that a call that broke off can be made again; the
        // last one does.
        for (piece, is_last) in pieces.into_iter().map(|p| (p, false)).chain([(last, true)]) {
            let mut call = wire::update_script();
            call.key(states_key(change.batch))
                .key(sums_key(change.batch))
                .arg(&change.from)
                .arg(highest);
            call.arg(wire::packed_changes(piece));
            if is_last {
                for (field, value) in wire::sums(&change.to, &change.tally)? {
                    call.arg(field).arg(value);
                }
            }
            let fits: bool =
                self.link.call(async |mut link| call.invoke_async(&mut link).await).await?;
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn replace(
        &self,
        batch: BatchId,
        revision: &str,
        states: &[u8],
        tally: &Tally,
    ) -> Result<(), ProgressError> {
        let (key, sums) = (states_key(batch), wire::sums(revision, tally)?);
        let (first, rest) = states.split_at(states.len().min(CHUNK_BYTES));
        // Without its sums the batch counts as lost until all pieces are there.
        let mut pipe = redis::pipe();
        pipe.atomic().del(sums_key(batch)).ignore().set(&key, first).ignore();
        if rest.is_empty() {
            pipe.hset_multiple(sums_key(batch), &sums).ignore();
            return self.run(pipe).await;
        }
        self.run::<()>(pipe).await?;
        for (i, piece) in rest.chunks(CHUNK_BYTES).enumerate() {
            let mut pipe = redis::pipe();
            pipe.setrange(&key, ((i + 1) * CHUNK_BYTES) as isize, piece).ignore();
            self.run::<()>(pipe).await?;
        }
        let mut pipe = redis::pipe();
        pipe.hset_multiple(sums_key(batch), &sums).ignore();
        self.run(pipe).await
    }

    async fn finished(&self, batch: BatchId) -> Result<(), ProgressError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for key in [states_key(batch), sums_key(batch), events_key(batch)] {
            pipe.expire(key, FINISHED_SECONDS as i64).ignore();
        }
        self.run(pipe).await
    }

    async fn forget(&self, batch: BatchId) -> Result<(), ProgressError> {
        let mut pipe = redis::pipe();
        for key in [sums_key(batch), states_key(batch), events_key(batch)] {
            // A large string is freed beside the server's work.
            pipe.unlink(key).ignore();
        }
        pipe.srem(CANCELLED, batch.to_string()).ignore();
        self.run(pipe).await
    }

    async fn set_cancelled(&self, batch: BatchId, cancelled: bool) -> Result<(), ProgressError> {
        let mut pipe = redis::pipe();
        match cancelled {
            true => pipe.sadd(CANCELLED, batch.to_string()).ignore(),
            false => pipe.srem(CANCELLED, batch.to_string()).ignore(),
        };
        self.run(pipe).await
    }

    async fn cancelled(&self) -> Result<BTreeSet<BatchId>, ProgressError> {
        let mut pipe = redis::pipe();
        pipe.smembers(CANCELLED);
        let (batches,): (Vec<String>,) = self.run(pipe).await?;
        Ok(batches.iter().filter_map(|batch| batch.parse().ok()).collect())
    }

    async fn drain(&self, worker: &str) -> Result<(), ProgressError> {
        let mut pipe = redis::pipe();
        pipe.set_ex(drain_key(worker), 1, DRAIN_SECONDS).ignore();
        self.run(pipe).await
    }

    async fn is_drained(&self, worker: &str) -> Result<bool, ProgressError> {
        let mut pipe = redis::pipe();
        pipe.exists(drain_key(worker));
        self.run(pipe).await.map(|(there,)| there)
    }

    async fn event(&self, batch: BatchId, event: &BatchEvent) -> Result<(), ProgressError> {
        let (key, json) = (events_key(batch), wire::to_json(event)?);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("XADD").arg(&key).arg("MAXLEN").arg("~").arg(EVENTS_MAX);
        pipe.arg("*").arg("event").arg(json).ignore();
        pipe.expire(&key, FINISHED_SECONDS as i64).ignore();
        self.run(pipe).await
    }

    async fn events(
        &self,
        batch: BatchId,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<(String, BatchEvent)>, ProgressError> {
        let after = after.map(EventId::parse).transpose()?;
        let start = after.map_or("-".to_owned(), |id| format!("({id}"));
        // It keeps some more than asked for. 0 would be refused.
        let most = count.clamp(1, 2 * EVENTS_MAX);
        let mut pipe = redis::pipe();
        pipe.cmd("XRANGE").arg(events_key(batch)).arg(start).arg("+").arg("COUNT").arg(most);
        let (found,): (Vec<(String, Vec<String>)>,) = self.run(pipe).await?;
        let read = found.into_iter().take(count).filter_map(|(id, fields)| {
            let event = fields.get(1).and_then(|json| serde_json::from_str(json).ok())?;
            Some((id, event))
        });
        Ok(read.collect())
    }

    async fn set_status(&self, status: &Status) -> Result<(), ProgressError> {
        let mut pipe = redis::pipe();
        pipe.set_ex(STATUS, wire::to_json(status)?, STATUS_SECONDS).ignore();
        self.run(pipe).await
    }

    async fn status(&self) -> Result<Option<Status>, ProgressError> {
        let mut pipe = redis::pipe();
        pipe.get(STATUS);
        let (status,): (Option<String>,) = self.run(pipe).await?;
        Ok(status.and_then(|json| serde_json::from_str(&json).ok()))
    }

    async fn add_point(&self, point: &Point) -> Result<(), ProgressError> {
        let mut pipe = redis::pipe();
        pipe.rpush(POINTS, wire::to_json(point)?).ignore();
        pipe.ltrim(POINTS, -(POINTS_MAX as isize), -1).ignore();
        pipe.expire(POINTS, POINTS_SECONDS).ignore();
        self.run(pipe).await
    }

    async fn points(&self, count: usize) -> Result<Vec<Point>, ProgressError> {
        let count = isize::try_from(count).unwrap_or(isize::MAX);
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        pipe.lrange(POINTS, -count, -1);
        let (points,): (Vec<String>,) = self.run(pipe).await?;
        // One of another version is left out.
        Ok(points.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str, ca_pem: Option<&str>) -> RedisOptions {
        RedisOptions {
            url: url.to_owned(),
            ca_pem: ca_pem.map(|pem| pem.as_bytes().to_vec()),
            timeout: Duration::from_millis(250),
            name: "tests".to_owned(),
        }
    }

    #[test]
    fn options_do_not_show_their_password() {
        let shown = format!("{:?}", options("redis://user:secret@host", None));
        assert!(!shown.contains("secret") && shown.contains("250ms"), "{shown}");
    }

    #[tokio::test]
    async fn what_cannot_be_a_url_or_certificate_is_refused_at_once() {
        for (url, pem) in [
            ("", None),
            ("http://user:secret@host", None),
            ("host:6379", None),
            ("rediss://user:secret@host", Some("no PEM")),
        ] {
            let error = RedisMirror::connect(options(url, pem)).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
