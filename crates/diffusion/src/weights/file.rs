//! One safetensors file: its header, checked, and the bytes behind it.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::sync::Mutex;

use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::{Error, Result};

/// A header larger than this is refused (the format's own limit).
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// How pickles begin: as an archive (torch since 1.6), or as a pickle of protocol 2.
const PICKLES: [&[u8]; 2] = [b"PK\x03\x04", b"\x80\x02"];

/// Where the bytes are.
pub(crate) enum Data {
    File(std::fs::File),
    Memory(&'static [u8]),
}

/// An opened file.
pub(crate) struct File {
    name: String,
    data: Mutex<Data>,
    /// Offset of the first tensor byte in the file.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
    texts: HashMap<String, String>,
}

impl File {
    /// Reads the header.
    ///
    /// # Errors
    /// If the file is a pickle, its header is not one, or it is shorter or longer than that says.
    pub(crate) fn open(name: &str, mut data: Data) -> Result<Self> {
        let corrupt = |message: String| Error::Corrupt { file: name.to_owned(), message };
        let total = data.len().map_err(|e| corrupt(e.to_string()))?;
        let prefix = data.read(0, 8).map_err(|_| corrupt("shorter than its header".into()))?;
        if PICKLES.iter().any(|magic| prefix.starts_with(magic)) {
            return Err(Error::Pickle { file: name.to_owned() });
        }
        let header = u64::from_le_bytes(prefix.try_into().unwrap_or_default());
        if header > HEADER_BYTES_MAX || 8 + header > total {
            return Err(corrupt(format!("its header claims {header} bytes, the file has {total}")));
        }
        let bytes = data.read(8, header as usize).map_err(|e| corrupt(e.to_string()))?;
        // Deserialising checks that the tensors' offsets are ordered, gapless and fit the shapes.
        let metadata: Metadata =
            serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let (start, end) = (8 + header, 8 + header + metadata.data_len() as u64);
        if end != total {
            let cut = if total < end { "; the download was cut off" } else { "" };
            let message = format!("its header describes {end} bytes, the file has {total}{cut}");
            return Err(corrupt(message));
        }
        let tensors = metadata.tensors().into_iter().map(|(k, v)| (k, v.clone())).collect();
        let texts = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { name: name.to_owned(), data: Mutex::new(data), start, tensors, texts })
    }

    /// Path relative to the model folder.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Keys, types, shapes and places.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// A text of the header.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Bytes behind the header.
    pub(super) fn read(&self, from: usize, to: usize) -> std::io::Result<Vec<u8>> {
        let mut data = self.data.lock().map_err(|_| std::io::Error::other("a reader panicked"))?;
        data.read(self.start + from as u64, to - from)
    }
}

impl Data {
    fn len(&self) -> std::io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    fn read(&mut self, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
        let mut buffer = vec![0u8; len];
        match self {
            Self::File(file) => {
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(&mut buffer)?;
            }
            Self::Memory(bytes) => {
                let mut rest = bytes.get(offset as usize..).unwrap_or_default();
                rest.read_exact(&mut buffer)?;
            }
        }
        Ok(buffer)
    }
}
