//! Kernels of frozen layers on the CPU: results, and the gradients of their inputs alone.
//!
//! Weights never change, so they are laid out once (`blocks`) and the same copy serves the forward
//! pass and the gradient. Activations are channels first everywhere, `[image, channel, pixel]`: rows
//! of pixels are what vector instructions work along, and nothing is transposed between layers.
//!
//! Determinism: an element of a product is one sum whose order depends on the depth alone
//! (`product`), other sums have fixed lanes. So neither batch, threads nor interruptions change a
//! bit; which instructions are used may ([`Instructions`]).
//!
//! Not here: graphs and gradients of whole networks, which are candle's.

mod activation;
mod attention;
mod blocks;
mod columns;
mod conv;
mod cross;
mod instructions;
mod math;
mod norm;
mod product;
mod rectangles;
mod scratch;
mod tile;
mod winograd;

#[cfg(test)]
mod testing;

pub use activation::{geglu, geglu_gradient};
pub use attention::{Attended, Attention};
pub use conv::Conv;
pub use cross::Probabilities;
pub use instructions::{Instructions, InstructionsError, instructions};
pub use norm::{ChannelNorm, GroupNorm};
