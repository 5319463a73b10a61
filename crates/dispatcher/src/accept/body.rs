//! The body of an upload as bytes that a thread can read: unzipped, counted, hashed.
//!
//! Not here: what the bytes say (`records`).

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

/// Why a body cannot be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The sender stopped in the middle, or was too slow.
    #[error("the upload ended before its end: {0}")]
    Cut(String),
    /// It says that it is gzip, and is not.
    #[error("the upload is not valid gzip: {0}")]
    NotGzip(String),
    /// More bytes than a batch may have.
    #[error("the upload has more than {max} bytes")]
    TooLarge {
        /// The most.
        max: u64,
    },
    /// A record of a CSV file has no end.
    #[error("a row has more than {max} bytes")]
    RowTooLong {
        /// The most.
        max: u64,
    },
}

impl BodyFault {
    /// What a reading library made of it.
    pub(super) fn from_io(error: &io::Error) -> Self {
        let ours = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>());
        match (ours, error.kind()) {
            (Some(ours), _) => ours.clone(),
            // Only the unzipper complains of what it is given.
            (None, io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                Self::NotGzip(error.to_string())
            }
            (None, _) => Self::Cut(error.to_string()),
        }
    }
}

impl From<BodyFault> for io::Error {
    fn from(fault: BodyFault) -> Self {
        Self::other(fault)
    }
}

/// Pieces of a body on their way from the network to the thread that reads them.
pub(super) type Piece = Result<Bytes, BodyFault>;

/// Reads pieces as they come. Blocks: not for tasks.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
}

impl Pieces {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, piece: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.piece.has_remaining() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Counts and hashes what is read, and stops where a body or one of its rows is too long.
pub(super) struct Counted {
    inner: Box<dyn Read + Send>,
    hash: Sha256,
    bytes: u64,
    bytes_max: u64,
    row: u64,
    row_max: u64,
}

impl Counted {
    /// Reads `inner`, unzipped if it is gzip. `hash` may have begun with other things.
    pub(super) fn new(
        inner: impl Read + Send + 'static,
        gzip: bool,
        hash: Sha256,
        bytes_max: u64,
    ) -> Self {
        let inner: Box<dyn Read + Send> =
            if gzip { Box::new(MultiGzDecoder::new(inner)) } else { Box::new(inner) };
        Self { inner, hash, bytes: 0, bytes_max, row: 0, row_max: u64::MAX }
    }

    /// From here on at most `max` bytes may come until this is called again: the next row begins.
    pub(super) fn row(&mut self, max: u64) {
        (self.row, self.row_max) = (0, max);
    }

    /// Bytes so far.
    pub(super) fn count(&self) -> u64 {
        self.bytes
    }

    /// SHA-256 of all of it, in hexadecimal.
    pub(super) fn sha256(self) -> String {
        format!("{:x}", self.hash.finalize())
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        self.row = self.row.saturating_add(count as u64);
        if self.bytes > self.bytes_max {
            return Err(BodyFault::TooLarge { max: self.bytes_max }.into());
        }
        if self.row > self.row_max {
            return Err(BodyFault::RowTooLong { max: self.row_max }.into());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(mut input: Counted) -> Result<(Vec<u8>, String), BodyFault> {
        let mut got = Vec::new();
        input.read_to_end(&mut got).map_err(|e| BodyFault::from_io(&e))?;
        Ok((got, input.sha256()))
    }

    #[test]
    fn zipped_and_plain_bodies_are_the_same() {
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(b"a cat\na dog\n").unwrap();
        let zipped = zip.finish().unwrap();
        let of = |bytes: &[u8], gzip| {
            read(Counted::new(io::Cursor::new(bytes.to_vec()), gzip, Sha256::new(), 100))
        };
        let plain = of(b"a cat\na dog\n", false).unwrap();
        assert_eq!(of(&zipped, true).unwrap(), plain);
        assert!(matches!(of(&zipped[..zipped.len() - 4], true), Err(BodyFault::Cut(_))));
        assert!(matches!(of(b"a cat\na dog\n", true), Err(BodyFault::NotGzip(_))));
        assert_eq!(of(&[b'x'; 101], false), Err(BodyFault::TooLarge { max: 100 }));
    }

    #[test]
    fn a_bomb_is_stopped_by_what_comes_out_of_it() {
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        zip.write_all(&vec![b'x'; 1 << 20]).unwrap();
        let zipped = zip.finish().unwrap();
        assert!(zipped.len() < 2000);
        let counted = Counted::new(io::Cursor::new(zipped), true, Sha256::new(), 10_000);
        assert_eq!(read(counted), Err(BodyFault::TooLarge { max: 10_000 }));
    }

    #[tokio::test]
    async fn an_upload_that_fails_in_the_middle_is_cut() {
        let (send, pieces) = mpsc::channel(4);
        send.send(Ok(Bytes::from_static(b"a c"))).await.unwrap();
        send.send(Err(BodyFault::Cut("gone".into()))).await.unwrap();
        let read = tokio::task::spawn_blocking(move || {
            read(Counted::new(Pieces::new(pieces), false, Sha256::new(), 100))
        });
        assert_eq!(read.await.unwrap(), Err(BodyFault::Cut("gone".into())));
    }
}
