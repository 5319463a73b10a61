//! What to compute on: options of every command that makes images.

use clap::Args;
use excite_diffusion::{Compute, DeviceChoice, Precision};

use crate::fault::Fault;

#[derive(Debug, Clone, Args)]
pub(crate) struct ComputeArgs {
    /// What to compute on: auto (a GPU if there is one), cpu, cuda (the first GPU) or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// Number format of the weights: f32, f16 or bf16 [default: f16 on a GPU, f32 on the CPU]
    #[arg(long, value_name = "FORMAT")]
    precision: Option<Precision>,
}

impl ComputeArgs {
    /// # Errors
    /// If there is no such device, or it does not compute in that precision.
    pub(crate) fn choose(&self) -> Result<Compute, Fault> {
        Ok(Compute::choose(self.device, self.precision)?)
    }
}
