//! Functions of single numbers, written so that loops over them become vector instructions.
//!
//! Additions and products only, in a fixed order and never fused: the same bits with all
//! instructions.

/// e to the power of `x`, within 2 units in the last place; `x` is taken into -87..88 first.
///
/// The method is that of Cephes: 2^n times a polynomial on -ln(2)/2..ln(2)/2.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it to a number of moderate size leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87., 88.);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let p = 1.987_569_1e-4 * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let y = p * (r * r) + r + 1.;
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1. / (1. + exp(-x))
}

/// The normal distribution up to `x`, and its density there. Abramowitz and Stegun 7.1.26 (absolute
/// error below 1.5e-7).
#[inline(always)]
pub(crate) fn normal(x: f32) -> (f32, f32) {
    const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;
    let bell = exp(-0.5 * x * x);
    let t = 1. / (1. + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let p = 1.061_405_4 * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let tail = 0.5 * p * t * bell;
    let below = if x < 0. { tail } else { 1. - tail };
    (below, FRAC_1_SQRT_TAU * bell)
}

/// Lanes of a sum over a row.
const LANES: usize = 32;

/// The sum of `term` over two rows of one length: 32 sums side by side, joined in pairs.
#[inline(always)]
pub(crate) fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] += term(*a, *b);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_the_last_places() {
        for i in -8700..8800 {
            let x = i as f32 / 100.;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got / want - 1.).abs() < 2.5e-7, "{x}: {got} for {want}");
        }
        assert!(exp(-1000.) < 2e-38 && exp(1000.) > 1e38);
        assert_eq!(exp(0.), 1.);
    }

    #[test]
    fn the_normal_distribution_is_right() {
        // From tables, to 7 digits.
        for (x, below) in [(0., 0.5), (1., 0.841_344_7), (-1.96, 0.024_997_9), (3., 0.998_650_1)] {
            assert!((normal(x).0 - below).abs() < 2e-7, "{x}");
        }
        assert!((normal(1.).1 - 0.241_970_7).abs() < 1e-7);
    }

    #[test]
    fn sums_take_every_value() {
        for len in [0, 1, 31, 32, 33, 100] {
            let row: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let want = (0..len).map(|i| i * i).sum::<usize>() as f32;
            assert_eq!(sum(&row, &row, |a, b| a * b), want);
        }
    }
}
