//! Noise as torch draws it, so that a seed means what it means in diffusers.
//!
//! [`Generator`] is one image's: the initial noise comes first, then that of each step, as long as
//! the scheduler wants any.
//!
//! Sources: torch's `mt19937` and its CPU `normal_` fill (uniforms first, then Box-Muller over
//! blocks of 16, pairing value j with value j + 8); Philox4x32-10 (Salmon et al. 2011) as torch's
//! CUDA kernel calls it. Torch's vectorised logarithm, sine and cosine differ from ours in the last
//! bit of some values (5e-7 at most).

mod philox;

use std::f32::consts::PI;

use candle_core::{Device, Tensor};
use excite_jobs::Noise;

use crate::error::Result;
use philox::Philox;

const WORDS: usize = 624;
const SHIFT: usize = 397;
const BLOCK: usize = 16;

/// Draws the noise of one image.
#[derive(Debug, Clone)]
pub struct Generator(Source);

#[derive(Debug, Clone)]
enum Source {
    TorchCpu(Box<Mt19937>),
    Philox(Philox),
}

impl Generator {
    /// A generator at its beginning.
    pub fn new(noise: Noise, seed: u32) -> Self {
        Self(match noise {
            Noise::TorchCpu => Source::TorchCpu(Box::new(Mt19937::new(seed))),
            Noise::Philox => Source::Philox(Philox::new(seed)),
        })
    }

    /// The next standard normal values, as `torch.randn` of `shape` gives them. A shape of fewer
    /// than 16 values takes another path in torch's CPU generator and is not offered: latents have
    /// more.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn normal(&mut self, shape: &[usize]) -> Result<Tensor> {
        let count = shape.iter().product();
        let values = match &mut self.0 {
            Source::TorchCpu(generator) => generator.normal(count),
            Source::Philox(generator) => generator.normal(count),
        };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

/// The Mersenne Twister with 32-bit words.
#[derive(Debug, Clone)]
struct Mt19937 {
    state: [u32; WORDS],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; WORDS];
        for j in 1..WORDS {
            let before = state[j - 1];
            state[j] =
                1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(j as u32);
        }
        Self { state, next: WORDS }
    }

    fn twist(&mut self) {
        for j in 0..WORDS {
            let upper = self.state[j] & 0x8000_0000;
            let lower = self.state[(j + 1) % WORDS] & 0x7fff_ffff;
            let mixed = upper | lower;
            let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[j] = self.state[(j + SHIFT) % WORDS] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// In 0..1, 24 bits.
    fn uniform(&mut self) -> f32 {
        (self.word() & 0x00ff_ffff) as f32 / (1 << 24) as f32
    }

    /// `count` standard normal values of `torch.randn`.
    fn normal(&mut self, count: usize) -> Vec<f32> {
        debug_assert!(count >= BLOCK, "torch fills fewer than {BLOCK} values differently");
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !count.is_multiple_of(BLOCK) && count > BLOCK {
            // The last 16 are drawn anew, over what the last full block left there.
            let last = &mut values[count - BLOCK..];
            last.fill_with(|| self.uniform());
            box_muller(last);
        }
        values
    }
}

fn box_muller(block: &mut [f32]) {
    for j in 0..BLOCK / 2 {
        let (u1, u2) = (1. - block[j], block[j + BLOCK / 2]);
        let radius = (-2. * u1.ln()).sqrt();
        let (sine, cosine) = (2. * PI * u2).sin_cos();
        block[j] = radius * cosine;
        block[j + BLOCK / 2] = radius * sine;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: f32 = 2e-6;

    #[test]
    fn words_are_those_of_the_mersenne_twister() {
        for (seed, want) in [
            (0, [2_357_136_044, 2_546_248_239, 3_071_714_933, 3_626_093_760]),
            (6141, [4_208_321_765, 2_176_399_671, 1_718_742_544, 1_882_267_310]),
        ] {
            let mut generator = Mt19937::new(seed);
            assert_eq!(want.map(|_| generator.word()), want, "seed {seed}");
        }
    }

    #[test]
    fn values_are_those_of_torch() {
        #[rustfmt::skip]
        let table = [
            // seed, first 4 and last 2 of shape (1, 4, 64, 64), sum, sum of absolute values
            (0u32, [-1.125_839_8, -1.152_360_2, -0.250_578_58, -0.433_878_8], [-1.366_469_7, -1.078_208], -124.1127, 13_111.534),
            (42, [1.926_915_2, 1.487_284, 0.900_717_2, -2.105_521], [0.972_809_7, -0.293_406_1], 149.7648, 13_158.069),
            (6141, [-1.895_470_7, 0.561_467_4, -0.037_249_38, -0.608_739_3], [0.730_567_1, 2.126_376_4], -223.2879, 13_060.521),
        ];
        for (seed, first, last, sum, absolute) in table {
            let values = Mt19937::new(seed).normal(4 * 64 * 64);
            for (got, want) in
                values.iter().zip(&first).chain(values.iter().rev().zip(last.iter().rev()))
            {
                assert!((got - want).abs() < TOLERANCE, "seed {seed}: {got}, not {want}");
            }
            let total: f64 = values.iter().map(|&v| f64::from(v)).sum();
            let magnitude: f64 = values.iter().map(|&v| f64::from(v.abs())).sum();
            assert!((total - sum).abs() < 1e-3, "seed {seed}: {total}");
            assert!((magnitude - absolute).abs() < 1e-2, "seed {seed}: {magnitude}");
        }
    }

    #[test]
    fn a_count_that_is_no_multiple_of_sixteen_redraws_the_last_block() {
        #[rustfmt::skip]
        let want = [
            -1.125_839_8, -1.695_931_2, 0.566_650_6, 0.793_508_35, 0.598_839_46, -1.555_095, -0.341_360_4, 1.853_006_1, 0.468_096_4,
            -0.585_497_56, -0.173_396_75, 0.183_477_94, 1.389_366_2, 1.586_334_2, 0.946_298_36, -0.843_676_75, 0.931_826_6,
        ];
        let got = Mt19937::new(0).normal(17);
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() < TOLERANCE, "value {i}: {got}, not {want}");
        }
    }
}
