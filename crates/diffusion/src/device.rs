//! Where a model computes, the CPU or a GPU, and the number format of its weights there.
//!
//! Only the networks know of it: latents, schedulers, losses, checkpoints and records are f32 on
//! the CPU, and what goes into a network or comes out of it is copied. Not here: what a machine of
//! some kind computes with (`kind`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The component that is the autoencoder.
const VAE: &str = "vae";

/// A device as people name it: `auto`, `cpu`, `cuda` (the first GPU) or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum DeviceChoice {
    /// The first GPU if this program can use one and there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number, from 0.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("`{text}` is no device; use auto, cpu, cuda or cuda:N")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The number format of weights and activations in text encoders and UNet. The autoencoder computes
/// in f32 whatever is chosen: its activations leave f16's range. So do softmax, the statistics of
/// norms, and the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits, what the CPU computes with.
    F32,
    /// 16 bits up to 65504 with 11 significant bits; the default on a GPU.
    F16,
    /// 16 bits with the range of f32 and 8 significant bits.
    Bf16,
}

impl Precision {
    /// All of them, by name.
    pub const NAMES: [&'static str; 3] = ["f32", "f16", "bf16"];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of a weight.
    pub fn bytes(self) -> u64 {
        self.dtype().size_in_bytes() as u64
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::F32, Self::F16, Self::Bf16];
        let found = all.into_iter().find(|precision| precision.name() == text);
        found.ok_or_else(|| format!("`{text}` is no precision; use f32, f16 or bf16"))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a model computes on. Clones share the device.
#[derive(Debug, Clone)]
pub struct Compute {
    device: Device,
    precision: Precision,
    kind: Arc<str>,
    name: Arc<str>,
}

impl Compute {
    /// The CPU, in f32.
    pub fn cpu() -> Self {
        let kind = crate::kind();
        Self {
            device: Device::Cpu,
            precision: Precision::F32,
            kind: kind.into(),
            name: kind.into(),
        }
    }

    /// What is asked for; without a precision the device's own, f16 on a GPU and f32 on the CPU.
    ///
    /// # Errors
    /// If there is no such device, this program cannot use it, or it does not compute in that
    /// precision; the error says what to do.
    pub fn choose(choice: DeviceChoice, precision: Option<Precision>) -> Result<Self> {
        match choice {
            DeviceChoice::Cpu => Self::on_cpu(precision),
            DeviceChoice::Cuda(number) => gpu::open(number, precision.unwrap_or(Precision::F16)),
            DeviceChoice::Auto if gpu::count().is_ok_and(|count| count > 0) => {
                gpu::open(0, precision.unwrap_or(Precision::F16))
            }
            DeviceChoice::Auto => Self::on_cpu(precision),
        }
    }

    fn on_cpu(precision: Option<Precision>) -> Result<Self> {
        match precision {
            None | Some(Precision::F32) => Ok(Self::cpu()),
            Some(precision) => Err(Error::Precision {
                precision,
                device: "cpu".into(),
                remedy: "Leave `--precision` out or set it to f32, or name a GPU with `--device`."
                    .into(),
            }),
        }
    }

    /// The kind of machine, such as `cpu-avx512-f32` or `cuda-sm90-f16`: the same job gives the
    /// same numbers on machines of one kind, to the bit on a CPU.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What people call the device: a GPU's model, or the CPU's kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number format of the weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether it is a GPU.
    pub fn is_gpu(&self) -> bool {
        !self.device.is_cpu()
    }

    /// Bytes of the GPU's memory that are free now; `None` on the CPU.
    ///
    /// # Errors
    /// If the driver does not say.
    pub fn free_bytes(&self) -> Result<Option<u64>> {
        gpu::free_bytes(&self.device)
    }

    /// Returns once everything that was asked of the device is done.
    pub(crate) fn finish(&self) -> Result<()> {
        Ok(self.device.synchronize()?)
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    /// What a component of a model computes on: the autoencoder's activations are too large for
    /// f16, so it always computes in f32.
    pub(crate) fn of(&self, component: &str) -> Self {
        let precision = if component == VAE { Precision::F32 } else { self.precision };
        Self { precision, ..self.clone() }
    }

    /// From f32 on the CPU to where and what this computes with. Has a gradient if `tensor` has.
    pub(crate) fn enter(&self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        tensor.to_device(&self.device)?.to_dtype(self.dtype())
    }

    /// In one of the 16-bit formats on the CPU, slow and for tests: it takes the way of a GPU.
    #[cfg(test)]
    pub(crate) fn composed(precision: Precision) -> Self {
        Self { precision, kind: "test".into(), ..Self::cpu() }
    }
}

/// The way back to f32 on the CPU.
pub(crate) fn leave(tensor: &Tensor) -> candle_core::Result<Tensor> {
    tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)
}

/// GPUs, in a program that is built for them.
#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    use super::{Compute, Precision};
    use crate::error::{Error, Result};

    /// The first generation with bf16, and the one that the kernels are built for.
    const BF16_FROM: i32 = 80;

    /// How many there are.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn count() -> Result<usize, String> {
        let count = CudaContext::device_count().map_err(|error| error.to_string())?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    pub(super) fn open(number: usize, precision: Precision) -> Result<Compute> {
        let absent = |why: String, remedy: &str| Error::NoDevice {
            device: format!("cuda:{number}"),
            why,
            remedy: remedy.into(),
        };
        let cpu = "Look at `nvidia-smi`, or compute with `--device cpu`.";
        match count() {
            Err(error) => return Err(absent(format!("the driver says {error}"), cpu)),
            Ok(0) => return Err(absent("this machine has no GPU".into(), cpu)),
            Ok(count) if number >= count => {
                let names = if count == 1 { "0".into() } else { format!("0 to {}", count - 1) };
                let why = format!("this machine has {count}, numbered {names}");
                return Err(absent(why, "Name one of those with `--device cuda:N`."));
            }
            Ok(_) => {}
        }
        let device = Device::new_cuda(number)
            .map_err(|error| absent(format!("it cannot be used: {error}"), cpu))?;
        let stream = device.as_cuda_device()?.cuda_stream();
        let context = stream.context();
        let said = |error: &dyn std::fmt::Display| absent(format!("it says {error}"), cpu);
        let (major, minor) = context.compute_capability().map_err(|e| said(&e))?;
        let name = context.name().map_err(|e| said(&e))?;
        let generation = 10 * major + minor;
        if generation < BF16_FROM && precision == Precision::Bf16 {
            return Err(Error::Precision {
                precision,
                device: format!("{name}, of compute capability {major}.{minor}"),
                remedy: "Set `--precision` to f16 or f32.".into(),
            });
        }
        let kind = format!("cuda-sm{generation}-{precision}").into();
        Ok(Compute { device, precision, kind, name: name.into() })
    }

    pub(super) fn free_bytes(device: &Device) -> Result<Option<u64>> {
        let Device::Cuda(cuda) = device else { return Ok(None) };
        let said = cuda.cuda_stream().context().mem_get_info();
        let (free, _) = said.map_err(candle_core::Error::wrap)?;
        Ok(Some(free as u64))
    }
}

/// GPUs, in a program that cannot use any.
#[cfg(not(feature = "cuda"))]
mod gpu {
    use candle_core::Device;

    use super::{Compute, Precision};
    use crate::error::{Error, Result};

    pub(super) fn count() -> Result<usize, String> {
        Ok(0)
    }

    pub(super) fn open(number: usize, _: Precision) -> Result<Compute> {
        Err(Error::NoDevice {
            device: format!("cuda:{number}"),
            why: "this program was built without GPUs".into(),
            remedy: "Build it with `--features cuda`, or leave `--device` out.".into(),
        })
    }

    pub(super) fn free_bytes(_: &Device) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_precisions_are_read_as_they_are_written() {
        for (text, want) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(want));
            assert_eq!(want.to_string(), text);
            let json = serde_json::to_string(&want).unwrap();
            assert_eq!(serde_json::from_str::<DeviceChoice>(&json).unwrap(), want);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for bad in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda0"] {
            let error = bad.parse::<DeviceChoice>().unwrap_err();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("cuda:N"), "{error}");
        }
        for name in Precision::NAMES {
            let precision: Precision = name.parse().unwrap();
            assert_eq!(precision.to_string(), name);
            assert_eq!(serde_json::to_string(&precision).unwrap(), format!("\"{name}\""));
        }
        assert!("fp16".parse::<Precision>().unwrap_err().contains("bf16"));
    }

    #[test]
    fn the_cpu_computes_in_f32_alone() {
        for precision in [None, Some(Precision::F32)] {
            let compute = Compute::choose(DeviceChoice::Cpu, precision).unwrap();
            assert_eq!((compute.kind(), compute.is_gpu()), (crate::kind(), false));
            assert_eq!(compute.free_bytes().unwrap(), None);
        }
        for precision in [Precision::F16, Precision::Bf16] {
            let error = Compute::choose(DeviceChoice::Cpu, Some(precision)).unwrap_err();
            let (code, remedy) = error.advice();
            assert_eq!(code, "precision");
            assert!(error.to_string().contains(precision.name()), "{error}");
            assert!(remedy.contains("f32") && remedy.contains("--device"), "{remedy}");
        }
    }

    /// With or without GPUs built in: number 4000 is nowhere.
    #[test]
    fn a_gpu_that_is_not_there_is_refused_with_a_remedy() {
        let error = Compute::choose(DeviceChoice::Cuda(4000), None).unwrap_err();
        let (code, remedy) = error.advice();
        assert_eq!(code, "no_device");
        assert!(error.to_string().contains("cuda:4000"), "{error}");
        assert!(remedy.contains("--device") || remedy.contains("--features cuda"), "{remedy}");
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn without_gpus_built_in_auto_is_the_cpu_and_a_gpu_says_what_is_missing() {
        assert_eq!(Compute::choose(DeviceChoice::Auto, None).unwrap().kind(), crate::kind());
        let error = Compute::choose(DeviceChoice::Cuda(0), None).unwrap_err();
        assert!(error.to_string().contains("built without GPUs"), "{error}");
        assert!(error.advice().1.contains("--features cuda"));
        let error = Compute::choose(DeviceChoice::Auto, Some(Precision::F16)).unwrap_err();
        assert_eq!(error.advice().0, "precision");
    }
}
