//! What the tests of the kernels share.

use crate::instructions::Instructions;

/// All instructions that this machine has.
pub(crate) fn sets() -> Vec<Instructions> {
    Instructions::available().collect()
}

/// Values in -1..1 that repeat only after a while.
pub(crate) fn values(count: usize, seed: u64) -> Vec<f32> {
    let value = |i: usize| {
        let hash =
            (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(seed as u32 * 7 + 3);
        (hash.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 40) as f32 / (1u32 << 23) as f32 - 1.
    };
    (0..count).map(value).collect()
}

/// Within `tolerance` of the largest value.
pub(crate) fn assert_near(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-3f32, |max, value| max.max(value.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (got - want).abs();
        assert!(off <= tolerance * scale, "{what}, value {i}: {got} for {want}");
    }
}

/// The gradient of `sum(f(x) * g)` by each value of `x` is near `gradient`, by central differences
/// at some places.
pub(crate) fn assert_gradient(
    f: impl Fn(&[f32]) -> Vec<f32>,
    x: &[f32],
    g: &[f32],
    gradient: &[f32],
    what: &str,
) {
    const STEP: f32 = 1. / 64.;
    assert_eq!(x.len(), gradient.len(), "{what}");
    let total =
        |x: &[f32]| -> f64 { f(x).iter().zip(g).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum() };
    let scale = gradient.iter().fold(1e-3f32, |max, value| max.max(value.abs()));
    for i in (0..x.len()).step_by((x.len() / 23).max(1)) {
        let mut moved = x.to_vec();
        moved[i] = x[i] + STEP;
        let above = total(&moved);
        moved[i] = x[i] - STEP;
        let slope = (above - total(&moved)) / f64::from(2. * STEP);
        let off = (slope as f32 - gradient[i]).abs();
        assert!(off < 4e-3 * scale, "{what}, value {i}: {} for {slope}", gradient[i]);
    }
}
