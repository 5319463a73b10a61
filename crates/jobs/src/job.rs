//! A job as it travels: one image to make, and everything a worker needs to know of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::id::{BatchId, JobId};
use crate::spec::{Spec, names};
use crate::tries::Accept;

/// Version of every document and message.
pub const VERSION: u32 = 1;

/// One image to make. Fields that this version does not know are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// [`VERSION`].
    pub v: u32,
    /// Its name.
    pub id: JobId,
    /// The batch it belongs to.
    pub batch: BatchId,
    /// Place in the batch, from 0.
    pub index: u32,
    /// The person's own name for it.
    #[serde(default)]
    pub custom_id: Option<String>,
    /// What the person wants to find it by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Who pays for it.
    pub tenant: String,
    /// What the image is.
    pub spec: Spec,
    /// What is stored beside the image.
    #[serde(default)]
    pub outputs: JobOutputs,
    /// When its image is good enough; none: as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
    /// Which queue of its class.
    pub lane: Lane,
    /// Which workers: the queue's name.
    pub class: String,
    /// Which publication of the job this is, from 1.
    pub lease: u32,
    /// Which try that may fail, from 1. A preemption costs none.
    pub attempt: u32,
    /// Tries in all.
    pub max_attempts: u32,
    /// Key of the checkpoint to go on from.
    #[serde(default)]
    pub checkpoint: Option<String>,
    /// What later versions added.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What is stored beside image and sidecar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOutputs {
    /// A picture of the subjects' maps.
    pub attention: bool,
    /// What every step recorded, as safetensors.
    pub trace: bool,
}

/// A queue of a class.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Small batches: somebody waits for them.
    Express,
    /// All others.
    Bulk,
}

names!(Lane { Express = "express", Bulk = "bulk" });

impl Lane {
    /// Both, the one that goes first in front.
    pub const ALL: [Self; 2] = [Self::Express, Self::Bulk];
}

/// Why a message cannot be read as a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A later version wrote it. `job` is known if that version still says it.
    #[error("the message is of version {v}, this program reads version {VERSION}")]
    Version {
        /// Its version.
        v: u64,
        /// What it is about: job, lease and attempt.
        about: Option<About>,
    },
    /// It is no such message at all.
    #[error("the message cannot be read: {message}")]
    Unreadable {
        /// What is wrong.
        message: String,
        /// What it is about, as far as it can be made out.
        about: Option<About>,
    },
}

/// What an unreadable job message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct About {
    /// The job.
    #[serde(rename = "id")]
    pub job: JobId,
    /// Its lease.
    pub lease: u32,
    /// Its attempt.
    pub attempt: u32,
}

impl Job {
    /// Reads a message.
    ///
    /// # Errors
    /// If it is of another version or no job; what can be made out of it is in the error, so that
    /// it can be reported.
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let unreadable = |e: serde_json::Error, about| MessageError::Unreadable {
            message: e.to_string(),
            about,
        };
        let value: Value = serde_json::from_slice(body).map_err(|e| unreadable(e, None))?;
        let about = About::deserialize(&value).ok();
        match value.get("v").and_then(Value::as_u64) {
            Some(v) if v == u64::from(VERSION) => {}
            Some(v) => return Err(MessageError::Version { v, about }),
            None => {
                let message = "it has no `v`".into();
                return Err(MessageError::Unreadable { message, about });
            }
        }
        let job: Self = serde_json::from_value(value).map_err(|e| unreadable(e, about))?;
        if job.id != JobId::new(job.batch, job.index) {
            let message = format!("`id` is {}, but batch and index say otherwise", job.id);
            return Err(MessageError::Unreadable { message, about });
        }
        Ok(job)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const JOB: &str = r#"{"v":1,"id":"0192d7a0-0000-7000-8000-000000000001-00000007",
        "batch":"0192d7a0-0000-7000-8000-000000000001","index":7,"custom_id":"cat-7",
        "labels":{"set":"a"},"tenant":"default","spec":{"engine":1,"guidance_scale":7.5,
        "height":128,"method":"none","model":"emoji@0","negative_prompt":"","noise":"torch_cpu",
        "prompt":"a cat","scheduler":"pndm","seed":7,"steps":2,
        "subjects":[{"indices":[2],"word":"cat"}],"width":128},
        "outputs":{"attention":false,"trace":false},"lane":"bulk","class":"default","lease":1,
        "attempt":1,"max_attempts":5,"checkpoint":null,"later":{"x":1}}"#;

    #[test]
    fn what_a_later_version_adds_is_kept() {
        let job = Job::parse(JOB.as_bytes()).unwrap();
        assert_eq!((job.index, job.spec.steps, job.rest.len()), (7, 2, 1));
        let again = serde_json::to_vec(&job).unwrap();
        assert_eq!(Job::parse(&again).unwrap(), job);
        let want: Value = serde_json::from_str(JOB).unwrap();
        assert_eq!(serde_json::to_value(&job).unwrap(), want, "the written form is a contract");
    }

    #[test]
    fn a_message_that_cannot_be_read_still_says_whose_it_is() {
        let edit = |from: &str, to: &str| Job::parse(JOB.replacen(from, to, 1).as_bytes());
        let about = |error: MessageError| match error {
            MessageError::Version { about, .. } | MessageError::Unreadable { about, .. } => about,
        };
        let error = edit("\"v\":1", "\"v\":9").unwrap_err();
        assert!(matches!(error, MessageError::Version { v: 9, .. }), "{error}");
        assert_eq!(about(error).map(|about| about.job.index), Some(7));
        let error = edit("\"steps\":2", "\"steps\":\"two\"").unwrap_err();
        assert_eq!(about(error).map(|about| about.lease), Some(1));
        assert_eq!(about(edit("\"lease\":1", "\"lease\":-1").unwrap_err()), None);
        assert!(edit("\"index\":7", "\"index\":8").unwrap_err().to_string().contains("`id`"));
        assert_eq!(about(Job::parse(b"\xff").unwrap_err()), None);
    }
}
