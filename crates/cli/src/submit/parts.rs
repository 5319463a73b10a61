//! A large file in parts: what has arrived is not sent again, whatever breaks off in between.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use excite_jobs::BatchId;
use excite_jobs::api::{UploadCommit, UploadPart, UploadView};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use ureq::http::Method;

use crate::client::{Answer, Client, Payload, Request};
use crate::fault::{Fault, Status};

/// Longer files are sent in parts.
pub(super) const ABOVE_BYTES: u64 = 32 << 20;
/// Bytes of a part: the longest file that is taken has 512 of them.
const PART_BYTES: u64 = 16 << 20;

/// A file that is sent in parts.
pub(super) struct Parts<'a> {
    pub(super) path: &'a Path,
    /// What is sent of it: what is appended meanwhile is not.
    pub(super) bytes: u64,
    pub(super) media_type: &'static str,
}

impl Parts<'_> {
    /// Sends what has not arrived under this key, and commits it; the answer is that of a
    /// submission in one piece. `query` has the options.
    pub(super) fn submit(
        &self,
        client: &Client<'_>,
        query: &str,
        key: &str,
        bar: &ProgressBar,
    ) -> Result<Answer, Fault> {
        let mut begin = Request::new(Method::POST, format!("/v1/uploads{query}"));
        begin.headers =
            vec![("content-type", self.media_type.to_owned()), ("idempotency-key", key.to_owned())];
        let upload: UploadView = client.document(&client.call(&begin)?)?;
        let part_bytes = PART_BYTES.min(upload.part_bytes_max).max(1);
        let count = self.bytes.div_ceil(part_bytes);
        let count = u32::try_from(count).ok().filter(|count| *count <= upload.parts_max);
        let count = count.ok_or_else(|| {
            let message = format!("the server takes {} parts of such a file", upload.parts_max);
            Fault::usage("too_large", message, "Split the file.")
        })?;
        for n in 1..=count {
            let from = u64::from(n - 1) * part_bytes;
            bar.set_position(from);
            let piece = self.piece(from, part_bytes.min(self.bytes - from))?;
            let part = UploadPart { n, bytes: piece.bytes, sha256: piece.hex() };
            if upload.parts.contains(&part) {
                continue;
            }
            if let Some(batch) = upload.batch {
                return Err(reused(batch));
            }
            let mut put = Request::new(Method::PUT, format!("/v1/uploads/{}/parts/{n}", upload.id));
            put.headers = vec![
                ("content-type", "application/octet-stream".to_owned()),
                ("content-digest", format!("sha-256=:{}:", BASE64_STANDARD.encode(piece.sha256))),
            ];
            client.call_with(&put, &|| piece.open(bar))?;
        }
        if let Some(batch) = upload.batch
            && upload.parts.len() != count as usize
        {
            return Err(reused(batch));
        }
        bar.set_position(self.bytes);
        bar.set_message("being checked");
        let commit = Request::new(Method::POST, format!("/v1/uploads/{}/commit", upload.id));
        let json = serde_json::to_vec(&UploadCommit { parts: count });
        let json = json.map_err(|e| Fault::bug(&e.to_string()))?;
        client.call_with(&commit, &|| Ok(Payload::Json(json.clone())))
    }

    fn piece(&self, from: u64, bytes: u64) -> Result<Piece<'_>, Fault> {
        let mut piece = Piece { path: self.path, from, bytes, sha256: [0; 32] };
        let mut hash = Sha256::new();
        let read = std::io::copy(&mut piece.reader()?, &mut hash);
        let read = read.map_err(|e| Fault::io("read", self.path, &e))?;
        if read < bytes {
            let message = format!("{} became shorter while it was read", self.path.display());
            return Err(Fault::usage("changed", message, "Submit it when nobody writes to it."));
        }
        piece.sha256 = hash.finalize().into();
        Ok(piece)
    }
}

/// The key has made a batch of other bytes.
fn reused(batch: BatchId) -> Fault {
    let message = format!("the idempotency key was used for something else: batch {batch}");
    let remedy = "Use another --idempotency-key, or none.".into();
    Fault::new(Status::Failed, "idempotency_key_reused", message, remedy)
}

/// A piece of the file.
struct Piece<'a> {
    path: &'a Path,
    from: u64,
    bytes: u64,
    sha256: [u8; 32],
}

impl Piece<'_> {
    fn reader(&self) -> Result<std::io::Take<File>, Fault> {
        let opened = File::open(self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.from))?;
            Ok(file.take(self.bytes))
        });
        opened.map_err(|e| Fault::io("read", self.path, &e))
    }

    fn hex(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The body, for one try.
    fn open(&self, bar: &ProgressBar) -> Result<Payload, Fault> {
        bar.set_position(self.from);
        let reader = Box::new(bar.wrap_read(self.reader()?));
        Ok(Payload::Stream { reader, bytes: Some(self.bytes) })
    }
}
