//! The layers composed of candle's own operations, for every device that candle knows.
//!
//! Nothing here has a place in a graph: results and gradients are computed on detached tensors.

mod attention;
mod conv;
mod gate;
mod norm;

pub(super) use attention::{
    apply_gradient, apply_probabilities, attend, attend_gradients, mean_of_heads,
    mean_of_heads_gradient, probabilities, probabilities_gradient, softmax_gradient,
};
pub(super) use conv::Conv2d;
pub(super) use gate::{geglu, geglu_gradient};
pub(super) use norm::{ChannelNorm, GroupNorm, Rows};
