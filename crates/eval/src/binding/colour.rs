//! Which of the eleven colours a region has, from its pixels alone: a subject's name says nothing
//! about it, so no judge is asked.
//!
//! A tinted sprite is dark and light in places, so the reading takes the 20th, 50th and 80th
//! percentile of each channel in CIELAB. A thing may also be one colour here and another there
//! (a car half green, half blue): both ends of it are read in four directions, and it has one
//! colour only where the ends agree.

use serde::Serialize;

use super::heads::{HEADS, likeliest};
use super::mask::{DIRECTIONS, Mask};

/// A colour counts above this probability.
const CERTAIN: f32 = 0.6;
/// Above this probability that both ends have the same colour, the thing has one.
const ONE_COLOUR: f32 = 0.4;
/// Below, it has several. Of things with one colour, 0.7 % fall here.
const SEVERAL_COLOURS: f32 = 0.05;
/// Share of the pixels at an end.
const END: f64 = 0.35;
const PERCENTILES: [f64; 3] = [0.2, 0.5, 0.8];
/// Brings CIELAB to about -3..3, as the weights expect.
const UNIT: f64 = 30.;

/// What colour a thing has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// One of the eleven.
    One(String),
    /// Different ones in different places.
    Mixed,
    /// Between two of the eleven, or not clear whether mixed.
    Unclear,
}

/// The colour of a region of a picture in CIELAB.
pub(super) fn colour(lab: &[[f32; 3]], region: &Mask) -> Colour {
    let pixels: Vec<[f32; 3]> = region.places().map(|at| lab[at]).collect();
    if pixels.is_empty() {
        return Colour::Unclear;
    }
    let same = DIRECTIONS.iter().map(|direction| {
        let [one, other] = ends(&pixels, &region.along(*direction));
        one.iter().zip(&other).map(|(a, b)| a * b).sum::<f32>()
    });
    let same = same.fold(1f32, f32::min);
    let (class, certainty) = likeliest(&HEADS.colour.read(&percentiles(&pixels)));
    if same < SEVERAL_COLOURS {
        Colour::Mixed
    } else if same >= ONE_COLOUR && certainty >= CERTAIN {
        Colour::One(HEADS.colour.names[class].clone())
    } else {
        Colour::Unclear
    }
}

/// The probabilities of the colours at both ends of a direction.
fn ends(pixels: &[[f32; 3]], along: &[f64]) -> [Vec<f32>; 2] {
    let mut sorted = along.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (quantile(&sorted, END), quantile(&sorted, 1. - END));
    let read = |inside: &dyn Fn(f64) -> bool| {
        let some = pixels.iter().zip(along).filter(|(_, place)| inside(**place));
        HEADS.colour.read(&percentiles(&some.map(|(pixel, _)| *pixel).collect::<Vec<_>>()))
    };
    [read(&|place| place <= low), read(&|place| place >= high)]
}

/// Percentile by percentile, L, a and b.
fn percentiles(pixels: &[[f32; 3]]) -> Vec<f32> {
    let channels: [Vec<f64>; 3] = std::array::from_fn(|channel| {
        let mut values: Vec<f64> = pixels.iter().map(|p| f64::from(p[channel])).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    });
    let of = |share: f64| channels.each_ref().map(|c| (quantile(c, share) / UNIT) as f32);
    PERCENTILES.into_iter().flat_map(of).collect()
}

/// Linear between two values, as numpy's; of sorted values, at least one.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let above = sorted[(below + 1).min(sorted.len() - 1)];
    sorted[below] + part * (above - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::super::regions::to_lab;
    use super::*;

    /// A square of 20 by 20 pixels, its left half and its right half.
    fn square(left: [f64; 3], right: [f64; 3]) -> Colour {
        let lab: Vec<_> =
            (0..400).map(|at| to_lab(if at % 20 < 10 { left } else { right })).collect();
        colour(&lab, &Mask { width: 20, bits: vec![true; 400] })
    }

    #[test]
    fn the_tints_of_the_bundled_model_have_their_names() {
        #[rustfmt::skip]
        let table = [ // medians over what it makes of "a red apple", "a red car" and so on
            ("red", [151., 22., 23.]), ("orange", [210., 112., 15.]), ("yellow", [241., 214., 33.]),
            ("green", [25., 151., 62.]), ("blue", [11., 89., 196.]), ("purple", [97., 52., 168.]),
            ("pink", [219., 116., 167.]), ("brown", [127., 76., 38.]), ("gray", [123., 117., 127.]),
            ("black", [0., 0., 1.]), ("white", [238., 239., 238.]),
        ];
        for (name, rgb) in table {
            assert_eq!(square(rgb, rgb), Colour::One(name.into()), "{rgb:?}");
        }
    }

    #[test]
    fn a_thing_of_two_colours_has_none_of_them() {
        assert_eq!(square([25., 151., 62.], [11., 89., 196.]), Colour::Mixed);
        assert_eq!(square([200., 24., 30.], [8., 8., 10.]), Colour::Mixed);
    }

    #[test]
    fn quantiles_are_linear_between_values() {
        assert_eq!(quantile(&[1., 2., 4.], 0.75), 3.);
        assert_eq!(quantile(&[5.], 0.2), 5.);
    }
}
