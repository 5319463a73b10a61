//! What SDXL adds to the time embedding: the pooled text, and the sizes it was trained to know.

use candle_core::{Result, Tensor};

use super::config::Added;
use super::sinusoids;
use crate::device::Compute;
use crate::layers::Linear;
use crate::weights::Scope;

/// `add_embedding` of diffusers, with the sinusoids in front of it.
pub(super) struct AddedEmbedding {
    added: Added,
    linear1: Linear,
    linear2: Linear,
}

impl AddedEmbedding {
    pub(super) fn load(scope: &Scope<'_>, added: Added, time: usize) -> crate::Result<Self> {
        let scope = scope.at("add_embedding");
        let input = added.pooled + SIZES * added.channels;
        Ok(Self {
            added,
            linear1: Linear::load(&scope.at("linear_1"), (input, time))?,
            linear2: Linear::load(&scope.at("linear_2"), (time, time))?,
        })
    }

    /// Pooled text `[1, p]`, f32 on the CPU, and `(height, width)` in pixels to `[1, 1, t]`. The image counts as
    /// one that had this size from the start and was not cropped (Podell et al. 2023, 2.2).
    pub(super) fn forward(
        &self,
        pooled: &Tensor,
        (height, width): (usize, usize),
        compute: &Compute,
    ) -> Result<Tensor> {
        let (height, width) = (height as f32, width as f32);
        let sizes: [f32; SIZES] = [height, width, 0., 0., height, width];
        let Added { channels, cosines_first, shift, .. } = self.added;
        let sizes = sinusoids(&sizes, channels, cosines_first, shift)?;
        let joined = compute.enter(&Tensor::cat(&[&pooled.unsqueeze(0)?, &sizes], 2)?)?;
        self.linear2.forward(&self.linear1.forward(&joined)?.silu()?)
    }
}

/// Numbers that SDXL is told: original height and width, crop from above and left, target height
/// and width.
pub(super) const SIZES: usize = 6;
