//! Philox4x32-10, called as torch's CUDA `normal_` kernel calls it.
//!
//! There every value has a thread of its own, the thread's number is in the counter, and a call of
//! the kernel moves the counter's offset on. That holds on a GPU with at least as many resident
//! threads as there are values (65,536 for the latents of a 1024x1024 image; an A100 has 221,184);
//! on smaller ones torch's own values depend on the GPU.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// 2^-32, and half of it so that no uniform value is 0.
const UNIT: f32 = 2.328_306_4e-10;
const HALF_UNIT: f32 = 1.164_153_2e-10;

/// The generator: its key and how often it was called.
#[derive(Debug, Clone)]
pub(super) struct Philox {
    seed: u32,
    calls: u64,
}

impl Philox {
    pub(super) fn new(seed: u32) -> Self {
        Self { seed, calls: 0 }
    }

    /// `count` standard normal values.
    pub(super) fn normal(&mut self, count: usize) -> Vec<f32> {
        // One call draws four words a thread, so the counter moves on by one (the offset by four).
        let call = self.calls;
        self.calls += 1;
        (0..count).map(|thread| self.value(call, thread as u64)).collect()
    }

    /// Box-Muller in single precision, as curand does it; only the first of four values is used.
    fn value(&self, call: u64, thread: u64) -> f32 {
        let counter = [call as u32, (call >> 32) as u32, thread as u32, (thread >> 32) as u32];
        let [x, y, ..] = words(counter, [self.seed, 0]);
        let tau = std::f32::consts::TAU;
        let u = (x as f32).mul_add(UNIT, HALF_UNIT);
        let angle = (y as f32).mul_add(UNIT * tau, HALF_UNIT * tau);
        (-2. * u.ln()).sqrt() * angle.sin()
    }
}

fn words(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let product = |i: usize| u64::from(MULTIPLIERS[i]) * u64::from(counter[2 * i]);
        let (p0, p1) = (product(0), product(1));
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Random123, the reference implementation.
    #[test]
    fn words_are_those_of_random123() {
        let zero = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
        let ones = [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd];
        assert_eq!(words([0; 4], [0; 2]), zero);
        assert_eq!(words([u32::MAX; 4], [u32::MAX; 2]), ones);
    }

    /// Values of `torch.randn((1, 4, 64, 64), device="cuda")`.
    #[test]
    fn values_are_those_of_a_gpu() {
        #[rustfmt::skip]
        let table: &[(u32, &[f32])] = &[
            (0, &[-0.924_662_4, -0.425_343_9, -2.643_845_8, 0.145_183_9, -0.120_866_6, -0.579_725_7, -0.622_851_6, -0.328_387_1]),
            (42, &[0.194_018_9, 2.161_374, -0.172_050_6, 0.849_060_1]),
            (6141, &[0.166_676_2, -0.882_340_1, 0.004_096_1, 0.768_710_7]),
        ];
        for (seed, want) in table {
            let got = Philox::new(*seed).normal(16_384);
            for (i, (got, want)) in got.iter().zip(*want).enumerate() {
                assert!((got - want).abs() < 1e-6, "seed {seed}, value {i}: {got}, not {want}");
            }
        }
    }

    /// Nothing is drawn twice: the second call has other values, of the same distribution.
    #[test]
    fn a_second_call_goes_on() {
        let mut generator = Philox::new(7);
        let (first, second) = (generator.normal(16_384), generator.normal(16_384));
        assert!(first.iter().zip(&second).filter(|(a, b)| a == b).count() < 4);
        for values in [first, second] {
            let mean = values.iter().sum::<f32>() / 16_384.;
            let variance = values.iter().map(|v| v * v).sum::<f32>() / 16_384.;
            assert!(mean.abs() < 0.03 && (variance - 1.).abs() < 0.05, "{mean} {variance}");
        }
    }
}
