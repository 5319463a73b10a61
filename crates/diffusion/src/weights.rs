//! The tensors of one component, read one by one from one or several safetensors files.
//!
//! Every tensor is asked for with the shape that the configuration implies, checked to be
//! finite and put where the model computes, so that a wrong or damaged file fails at load with file, key and shapes;
//! and every tensor has to be asked for, so that a configuration that knows too little of its
//! weights fails too. Tensors are read one at a time: loading needs the memory of the model, not
//! twice that.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};

use crate::device::{Compute, Precision};
use crate::error::{Error, Result};
pub(crate) use file::{Data, File};

/// Tensors that some files carry and no network uses.
const UNUSED: [&str; 2] = ["position_ids", "logit_scale"];
/// The largest number of f16.
const F16_MAX: f32 = 65504.;
/// Keys named when a file has more than its configuration knows.
const NAMED_MAX: usize = 3;

/// The tensors of a component.
pub(crate) struct Weights {
    files: Vec<File>,
    entries: BTreeMap<String, Entry>,
    used: Mutex<BTreeSet<String>>,
    /// What to name where a tensor is in no file.
    name: String,
    /// Where they go.
    compute: Compute,
}

/// Where a tensor is.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Which file.
    pub(crate) file: usize,
    /// Its key there.
    pub(crate) key: String,
    pub(crate) part: Part,
    pub(crate) info: TensorInfo,
}

/// Which part of a stored tensor a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// The third number `.0` of three equal parts along the first axis.
    Third(usize),
    /// Two axes, the other way round.
    Transposed,
}

impl Entry {
    fn shape(&self) -> Vec<usize> {
        let mut shape = self.info.shape.clone();
        match self.part {
            Part::Whole => {}
            Part::Third(_) => {
                if let Some(rows) = shape.first_mut() {
                    *rows /= 3;
                }
            }
            Part::Transposed => shape.reverse(),
        }
        shape
    }
}

/// How large a component is, and how its weights are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Tensors.
    pub tensors: usize,
    /// Weights, not bytes.
    pub parameters: u64,
    /// Number formats in the files, such as `F16`.
    pub formats: Vec<String>,
}

impl Weights {
    /// All tensors of some files under their own keys.
    pub(crate) fn new(name: &str, files: Vec<File>) -> Self {
        let entry = |file: usize, key: &String, info: &TensorInfo| {
            let entry = Entry { file, key: key.clone(), part: Part::Whole, info: info.clone() };
            (key.clone(), entry)
        };
        let entries = files.iter().enumerate();
        let entries = entries
            .flat_map(|(i, file)| file.tensors().iter().map(move |(k, info)| entry(i, k, info)))
            .collect();
        Self::of(name, files, entries)
    }

    /// Chosen tensors of some files under other keys.
    pub(crate) fn of(name: &str, files: Vec<File>, entries: BTreeMap<String, Entry>) -> Self {
        let used = Mutex::new(BTreeSet::new());
        Self { files, entries, used, name: name.to_owned(), compute: Compute::cpu() }
    }

    /// The same, to be put on another device or in another precision than f32 on the CPU.
    pub(crate) fn on(self, compute: Compute) -> Self {
        Self { compute, ..self }
    }

    /// The keys below the empty prefix.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }

    pub(crate) fn stored(&self) -> Stored {
        let count = |entry: &Entry| entry.shape().iter().product::<usize>() as u64;
        let formats: BTreeSet<String> =
            self.entries.values().map(|entry| format!("{:?}", entry.info.dtype)).collect();
        let parameters = self.entries.values().map(count).sum();
        let tensors = self.entries.len();
        Stored { tensors, parameters, formats: formats.into_iter().collect() }
    }

    /// Fails if there are tensors that nobody asked for.
    pub(crate) fn require_all_used(&self) -> Result<()> {
        let Ok(used) = self.used.lock() else { return Ok(()) };
        let ignored = |key: &str| UNUSED.iter().any(|suffix| key.ends_with(suffix));
        let left: Vec<&String> =
            self.entries.keys().filter(|key| !used.contains(*key) && !ignored(key)).collect();
        let Some(first) = left.first().and_then(|key| self.entries.get(*key)) else {
            return Ok(());
        };
        Err(Error::UnusedTensors {
            file: self.files[first.file].name().to_owned(),
            count: left.len(),
            keys: left.iter().take(NAMED_MAX).map(|key| (*key).clone()).collect(),
        })
    }

    fn get(&self, key: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(entry) = self.entries.get(key) else {
            return Err(Error::MissingTensor {
                file: self.name.clone(),
                key: key.to_owned(),
                expected: shape.to_vec(),
            });
        };
        if let Ok(mut used) = self.used.lock() {
            used.insert(key.to_owned());
        }
        let file = &self.files[entry.file];
        let found = entry.shape();
        if found != shape {
            return Err(Error::Shape {
                file: file.name().to_owned(),
                key: entry.key.clone(),
                expected: shape.to_vec(),
                found,
            });
        }
        let corrupt = |message: String| Error::Corrupt { file: file.name().to_owned(), message };
        let dtype = match entry.info.dtype {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => return Err(corrupt(format!("tensor `{}` has type {other:?}", entry.key))),
        };
        let (mut from, mut to) = entry.info.data_offsets;
        if let Part::Third(part) = entry.part {
            let third = (to - from) / 3;
            (from, to) = (from + part * third, from + (part + 1) * third);
        }
        let bytes =
            file.read(from, to).map_err(|e| corrupt(format!("tensor `{}`: {e}", entry.key)))?;
        let tensor = match entry.part {
            Part::Whole | Part::Third(_) => {
                Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?
            }
            Part::Transposed => {
                let stored: Vec<usize> = shape.iter().rev().copied().collect();
                Tensor::from_raw_buffer(&bytes, dtype, &stored, &Device::Cpu)?.t()?.contiguous()?
            }
        };
        let checked = tensor.to_dtype(DType::F32)?;
        let magnitudes = checked.abs()?.flatten_all()?;
        let place = || (file.name().to_owned(), entry.key.clone());
        // A sum is finite only if every term is (or two infinities cancel, which gives NaN).
        let sum = magnitudes.sum_all()?.to_scalar::<f32>()?;
        if !sum.is_finite() && !magnitudes.to_vec1::<f32>()?.iter().all(|v| v.is_finite()) {
            let (file, key) = place();
            return Err(Error::NonFiniteWeights { file, key });
        }
        if self.compute.precision() == Precision::F16 && checked.elem_count() > 0 {
            let value = magnitudes.max(0)?.to_scalar::<f32>()?;
            if value > F16_MAX {
                let (file, key) = place();
                return Err(Error::WeightOverflow { file, key, value });
            }
        }
        // What is stored in the precision that is wanted is not converted to and fro.
        let wanted = self.compute.dtype();
        let tensor = if tensor.dtype() == wanted { tensor } else { checked.to_dtype(wanted)? };
        Ok(tensor.to_device(self.compute.device())?)
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
        let below = format!("{key}.");
        let mut from = self.weights.entries.range(below.clone()..);
        self.weights.entries.contains_key(&key)
            || from.next().is_some_and(|(first, _)| first.starts_with(&below))
    }

    /// The path of a module, for messages.
    pub(crate) fn path(&self) -> String {
        self.prefix.trim_end_matches('.').to_owned()
    }

    /// The first of `names` that is there, else the first: for legacy names of a module.
    pub(crate) fn at_any(&self, names: &[&str]) -> Self {
        let found = names.iter().find(|name| self.has(name)).unwrap_or(&names[0]);
        self.at(found)
    }

    /// The tensor `name`, where the model computes.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.get(&format!("{}{name}", self.prefix), shape)
    }

    /// The tensor `name` in the first of `shapes` that the file has it in, reshaped to `shapes[0]`:
    /// a 1x1 convolution may be stored as a linear layer and the other way round.
    pub(crate) fn get_any(&self, name: &str, shapes: &[&[usize]]) -> Result<Tensor> {
        let found = self.weights.entries.get(&format!("{}{name}", self.prefix)).map(Entry::shape);
        let shape = found.and_then(|found| shapes.iter().find(|s| **s == found.as_slice()));
        Ok(self.get(name, shape.unwrap_or(&shapes[0]))?.reshape(shapes[0])?)
    }
}
