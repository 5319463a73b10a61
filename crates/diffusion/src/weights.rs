//! One safetensors file, read tensor by tensor.
//!
//! Every tensor is asked for with the shape that the configuration implies, converted to f32 and
//! checked to be finite, so that a wrong or damaged file fails at load with file, key and shapes.
//! Tensors are read one at a time: loading needs the memory of the model, not twice that.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::{Error, Result};

/// A header larger than this is refused (the format's own limit).
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Where the bytes are.
pub(crate) enum Data {
    File(File),
    Memory(&'static [u8]),
}

/// An opened weight file.
pub(crate) struct Weights {
    file: String,
    data: Mutex<Data>,
    /// Offset of the first tensor byte in the file.
    start: u64,
    tensors: HashMap<String, TensorInfo>,
}

impl Weights {
    pub(crate) fn open(file: &str, mut data: Data) -> Result<Self> {
        let corrupt = |message: String| Error::Corrupt { file: file.to_owned(), message };
        let total = data.len().map_err(|e| corrupt(e.to_string()))?;
        let prefix = data.read(0, 8).map_err(|_| corrupt("shorter than its header".into()))?;
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
            return Err(corrupt(format!("its header describes {end} bytes, the file has {total}")));
        }
        let tensors = metadata.tensors().into_iter().map(|(k, v)| (k, v.clone())).collect();
        Ok(Self { file: file.to_owned(), data: Mutex::new(data), start, tensors })
    }

    /// The keys below the empty prefix.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }

    fn get(&self, key: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(info) = self.tensors.get(key) else {
            return Err(Error::MissingTensor {
                file: self.file.clone(),
                key: key.to_owned(),
                expected: shape.to_vec(),
            });
        };
        if info.shape != shape {
            return Err(Error::Shape {
                file: self.file.clone(),
                key: key.to_owned(),
                expected: shape.to_vec(),
                found: info.shape.clone(),
            });
        }
        let corrupt = |message: String| Error::Corrupt { file: self.file.clone(), message };
        let (from, to) = info.data_offsets;
        let mut data = self.data.lock().map_err(|_| corrupt("a reader panicked".into()))?;
        let bytes = data
            .read(self.start + from as u64, to - from)
            .map_err(|e| corrupt(format!("tensor `{key}`: {e}")))?;
        let dtype = DType::try_from(info.dtype)
            .map_err(|_| corrupt(format!("tensor `{key}` has type {:?}", info.dtype)))?;
        let tensor = Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?;
        let tensor = tensor.to_dtype(DType::F32)?;
        // A sum is finite only if every term is (or two infinities cancel, which gives NaN).
        let sum = tensor.abs()?.sum_all()?.to_scalar::<f32>()?;
        if !sum.is_finite()
            && !tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| v.is_finite())
        {
            return Err(Error::NonFiniteWeights { file: self.file.clone(), key: key.to_owned() });
        }
        Ok(tensor)
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

/// The tensors below a key prefix. Prefixes equal the checkpoint's names, so the code that loads a
/// module documents the checkpoint.
#[derive(Clone)]
pub(crate) struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl Scope<'_> {
    /// One level down: `scope.at("down_blocks.0")`.
    pub(crate) fn at(&self, name: &str) -> Self {
        Self { weights: self.weights, prefix: format!("{}{name}.", self.prefix) }
    }

    /// Whether any tensor lies below `name` (or is it).
    pub(crate) fn has(&self, name: &str) -> bool {
        let key = format!("{}{name}", self.prefix);
        self.weights.tensors.contains_key(&key)
            || self.weights.tensors.keys().any(|k| k.starts_with(&format!("{key}.")))
    }

    /// The first of `names` that is there, else the first: for legacy names of a module.
    pub(crate) fn at_any(&self, names: &[&str]) -> Self {
        let found = names.iter().find(|name| self.has(name)).unwrap_or(&names[0]);
        self.at(found)
    }

    /// The tensor `name` as f32.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.get(&format!("{}{name}", self.prefix), shape)
    }

    /// The tensor `name` in the first of `shapes` that the file has it in, reshaped to `shapes[0]`:
    /// a 1x1 convolution may be stored as a linear layer and the other way round.
    pub(crate) fn get_any(&self, name: &str, shapes: &[&[usize]]) -> Result<Tensor> {
        let found = self.weights.tensors.get(&format!("{}{name}", self.prefix));
        let shape = found.and_then(|info| shapes.iter().find(|s| **s == info.shape.as_slice()));
        Ok(self.get(name, shape.unwrap_or(&shapes[0]))?.reshape(shapes[0])?)
    }
}
