//! The gate of the feed-forward layers: GEGLU with the exact GELU.

use crate::instructions::Instructions;
use crate::math::normal;
use crate::product::each;

/// Values of a task.
const PART: usize = 1 << 14;

/// `[b, 2c, n]`, values in front of gates, to `[b, c, n]`: value times GELU of gate. `image` is the
/// number of values of a result, `c * n`.
///
/// # Panics
/// If `x` does not consist of whole images.
pub fn geglu(instructions: Instructions, x: &[f32], image: usize) -> Vec<f32> {
    assert!(x.len().is_multiple_of(2 * image), "values and gates");
    let mut y = vec![0f32; x.len() / 2];
    let mut tasks = Vec::new();
    for (x, y) in x.chunks_exact(2 * image).zip(y.chunks_exact_mut(image)) {
        let (values, gates) = x.split_at(image);
        tasks.extend(y.chunks_mut(PART).zip(values.chunks(PART).zip(gates.chunks(PART))));
    }
    each(tasks, |(y, (values, gates))| {
        instructions.run(|| {
            for ((y, value), gate) in y.iter_mut().zip(values).zip(gates) {
                *y = value * (gate * normal(*gate).0);
            }
        });
    });
    y
}

/// The gradient of the input of [`geglu`] from that of its result.
///
/// # Panics
/// If the two do not belong together.
pub fn geglu_gradient(
    instructions: Instructions,
    x: &[f32],
    gradient: &[f32],
    image: usize,
) -> Vec<f32> {
    assert_eq!(x.len(), 2 * gradient.len(), "values and gates");
    let mut into = vec![0f32; x.len()];
    let images = x.chunks_exact(2 * image).zip(gradient.chunks_exact(image));
    let mut tasks = Vec::new();
    for ((x, g), into) in images.zip(into.chunks_exact_mut(2 * image)) {
        let (values, gates) = x.split_at(image);
        let (to_values, to_gates) = into.split_at_mut(image);
        let sources = values.chunks(PART).zip(gates.chunks(PART)).zip(g.chunks(PART));
        tasks.extend(to_values.chunks_mut(PART).zip(to_gates.chunks_mut(PART)).zip(sources));
    }
    each(tasks, |((to_values, to_gates), ((values, gates), g))| {
        instructions.run(|| {
            for i in 0..g.len() {
                let (below, density) = normal(gates[i]);
                to_values[i] = g[i] * (gates[i] * below);
                to_gates[i] = g[i] * values[i] * (below + gates[i] * density);
            }
        });
    });
    into
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_gradient, assert_near, sets, values};

    #[test]
    fn gates_are_exact() {
        // GELU(1) = 0.8413447, GELU(-1) = -0.1586553, GELU(0) = 0.
        for set in sets() {
            let y = geglu(set, &[2., 3., 4., 1., -1., 0.], 3);
            assert_near(&y, &[1.682_689_5, -0.475_965_8, 0.], 1e-6, set.name());
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_gate() {
        let (x, g) = (values(2 * 2 * 50, 1), values(2 * 50, 2));
        let x: Vec<f32> = x.iter().map(|x| x * 3.).collect();
        for set in sets() {
            let gradient = geglu_gradient(set, &x, &g, 50);
            assert_gradient(|x| geglu(set, x, 50), &x, &g, &gradient, set.name());
        }
    }
}
