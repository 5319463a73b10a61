//! Results that are found again: a pointer from what an image is to the job that made it.
//!
//! Not here: who looks (`excite-worker`).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::JobId;
use crate::job::Job;
use crate::spec::Spec;
use crate::tries::Accept;

/// Where a result is: `reuse/<fingerprint>.json`. It proves nothing: whoever follows it checks what
/// is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reuse {
    /// [`crate::VERSION`].
    pub v: u32,
    /// Whose image and sidecar.
    pub job: JobId,
    /// Of the PNG file, in hexadecimal.
    pub sha256: String,
}

impl Job {
    /// SHA-256, in hexadecimal, of the canonical JSON of all that decides the job's image, and of
    /// its tenant, so that none comes upon another's.
    ///
    /// `accept` belongs to it where there is one, since the seed that is kept depends on it.
    ///
    /// # Errors
    /// If a number is not finite, which a checked job does not have.
    pub fn fingerprint(&self, kind: &str) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Identity<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            accept: Option<Accept>,
            kind: &'a str,
            spec: &'a Spec,
            tenant: &'a str,
        }
        let Self { accept, spec, tenant, .. } = self;
        let identity = Identity { accept: *accept, kind, spec, tenant };
        let identity = serde_json_canonicalizer::to_vec(&identity)?;
        Ok(format!("{:x}", Sha256::digest(&identity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::JOB;

    /// The pointers of one version are followed by the next.
    #[test]
    fn the_written_form_does_not_change_unnoticed() {
        let job = Job::parse(JOB.as_bytes()).unwrap();
        let reuse = Reuse { v: 1, job: job.id, sha256: "ab".into() };
        let want = r#"{"v":1,"job":"0192d7a0-0000-7000-8000-000000000001-00000007","sha256":"ab"}"#;
        assert_eq!(serde_json::to_string(&reuse).unwrap(), want);
        assert_eq!(serde_json::from_str::<Reuse>(want).unwrap(), reuse);
    }

    #[test]
    fn a_fingerprint_covers_all_that_decides_the_image_and_whose_it_is() {
        let job = Job::parse(JOB.as_bytes()).unwrap();
        let of = |job: &Job, kind| job.fingerprint(kind).unwrap();
        let one = of(&job, "cpu");
        let edited = |edit: fn(&mut Job)| {
            let mut other = job.clone();
            edit(&mut other);
            of(&other, "cpu")
        };
        let accept = |max_seeds| Some(Accept { min_score: 0.5, max_seeds });
        let others = [
            of(&job, "gpu"),
            edited(|job| job.spec.seed = 8),
            edited(|job| job.tenant = "other".into()),
            edited(|job| job.accept = Some(Accept { min_score: 0.5, max_seeds: 2 })),
        ];
        assert!(!others.contains(&one));
        let mut more = job.clone();
        more.accept = accept(3);
        assert_ne!(of(&more, "cpu"), others[3], "how many seeds are tried decides, too");
        let same = edited(|job| (job.lease, job.custom_id, job.index) = (2, None, 9));
        assert_eq!((one.len(), one), (64, same), "what it is called and its lease do not");
    }
}
