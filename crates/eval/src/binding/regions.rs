//! The things of a picture on a pale, even ground: where they are and in which colours (CIELAB).
//!
//! A pixel belongs to a thing if it is far from the ground's colour; pixels that touch are one
//! thing; small parts (a balloon's string, a bow's ends) join the nearest. Things that touch come
//! out as one region: `binding` cuts it. Lengths are in pixels of a picture 128 by 128.

use excite_diffusion::picture::Picture;

use super::mask::Mask;

/// Distance from the ground in CIELAB, averaged over 3 by 3 pixels, above which a pixel is no ground.
/// Low, because white things stand on a pale ground; what is mottled ground stays below, by eye.
const GROUND_DISTANCE: f32 = 6.;
/// Smaller parts are dirt.
const PART_AREA_MIN: usize = 40;
/// Smaller parts join a thing that is near.
const THING_AREA: usize = 220;
/// How near.
const JOIN_REACH: usize = 7;
/// Loose parts that are together smaller than this are dirt.
const LOOSE_AREA_MIN: usize = 80;
/// Columns and rows at the edge that show the ground's colour.
const EDGE: usize = 2;

/// A picture in CIELAB, with its ground.
pub(super) struct Scene {
    /// `[L, a, b]` for each pixel, rows from the top; D65.
    pub(super) lab: Vec<[f32; 3]>,
    /// The ground's colour, 8 bits a channel.
    pub(super) ground: [f64; 3],
    /// What is no ground, thing by thing.
    pub(super) regions: Vec<Mask>,
}

impl Scene {
    pub(super) fn of(picture: &Picture) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let pixels: Vec<[f64; 3]> = picture
            .pixels()
            .chunks_exact(3)
            .map(|p| [f64::from(p[0]), f64::from(p[1]), f64::from(p[2])])
            .collect();
        let ground = ground(&pixels, width, height);
        let lab: Vec<[f32; 3]> = pixels.iter().map(|p| to_lab(*p)).collect();
        let regions = regions(&far_from(&lab, to_lab(ground), width, height));
        Self { lab, ground, regions }
    }
}

/// The median of the pixels at the edge, channel by channel.
fn ground(pixels: &[[f64; 3]], width: usize, height: usize) -> [f64; 3] {
    let at_edge = |at: usize, size: usize| at < EDGE || at + EDGE >= size;
    let edge: Vec<_> = (0..pixels.len())
        .filter(|at| at_edge(at % width, width) || at_edge(at / width, height))
        .map(|at| pixels[at])
        .collect();
    std::array::from_fn(|channel| {
        let mut values: Vec<f64> = edge.iter().map(|p| p[channel]).collect();
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

/// CIELAB (D65) from sRGB in 0..255.
pub(super) fn to_lab(rgb: [f64; 3]) -> [f32; 3] {
    let linear = rgb.map(|v| {
        let v = v / 255.;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    });
    let row = |[r, g, b]: [f64; 3], white: f64| {
        let t = (r * linear[0] + g * linear[1] + b * linear[2]) / white;
        if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16. / 116. }
    };
    let x = row([0.4124564, 0.3575761, 0.1804375], 0.95047);
    let y = row([0.2126729, 0.7151522, 0.0721750], 1.);
    let z = row([0.0193339, 0.1191920, 0.9503041], 1.08883);
    [(116. * y - 16.) as f32, (500. * (x - y)) as f32, (200. * (y - z)) as f32]
}

fn far_from(lab: &[[f32; 3]], ground: [f32; 3], width: usize, height: usize) -> Mask {
    let distance = |at: usize| (0..3).map(|c| (lab[at][c] - ground[c]).powi(2)).sum::<f32>().sqrt();
    let distances: Vec<f32> = (0..lab.len()).map(distance).collect();
    let mean = |at: usize| {
        let (x, y) = (at % width, at / width);
        let rows = [y.saturating_sub(1), y, (y + 1).min(height - 1)];
        let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
        let around = rows.iter().flat_map(|row| columns.map(|column| row * width + column));
        around.map(|at| distances[at]).sum::<f32>() / 9.
    };
    Mask { width, bits: (0..lab.len()).map(|at| mean(at) > GROUND_DISTANCE).collect() }
}

fn regions(mask: &Mask) -> Vec<Mask> {
    let mut parts = mask.components();
    parts.retain(|part| part.area() >= PART_AREA_MIN);
    parts.sort_by_key(|part| std::cmp::Reverse(part.area()));
    let first_small = parts.partition_point(|part| part.area() >= THING_AREA);
    let small = parts.split_off(first_small);
    let mut things = parts;
    let mut loose = vec![];
    for part in small {
        let near = part.grown(JOIN_REACH);
        let nearest = things.iter_mut().max_by_key(|thing| near.shared(thing));
        match nearest.filter(|thing| near.shared(thing) > 0) {
            Some(thing) => thing.add(&part),
            None => loose.push(part),
        }
    }
    things.extend(together(loose).into_iter().filter(|thing| thing.area() >= LOOSE_AREA_MIN));
    things
}

/// Loose parts that stand together made one: the pale chair of which only the joints are seen.
fn together(mut loose: Vec<Mask>) -> Vec<Mask> {
    let mut things = vec![];
    while !loose.is_empty() {
        let mut thing = loose.remove(0);
        while let Some(near) = loose.iter().position(|p| thing.grown(JOIN_REACH).shared(p) > 0) {
            thing.add(&loose.remove(near));
        }
        things.push(thing);
    }
    things
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(squares: &[(u32, u32, u32, [u8; 3])]) -> Picture {
        let mut picture = Picture::filled(128, 128, [250, 246, 240]);
        for (left, top, side, colour) in squares {
            for y in *top..top + side {
                for x in *left..left + side {
                    picture.set(x, y, *colour);
                }
            }
        }
        picture
    }

    #[test]
    fn lab_is_what_the_standard_says() {
        for (rgb, want) in [
            ([255., 255., 255.], [100., 0., 0.]),
            ([255., 0., 0.], [53.24, 80.09, 67.20]),
            ([0., 0., 255.], [32.30, 79.19, -107.86]),
        ] {
            let got = to_lab(rgb);
            assert!((0..3).all(|c| (got[c] - want[c]).abs() < 0.05), "{rgb:?}: {got:?}");
        }
    }

    #[test]
    fn things_apart_are_regions_and_small_parts_join_the_nearest() {
        let blue = [20, 90, 200];
        let scene = Scene::of(&painted(&[
            (10, 10, 30, blue),
            (80, 60, 30, [240, 240, 255]), // pale, but no ground
            (20, 44, 7, blue),             // 4 below the first
            (120, 5, 3, blue),             // dirt
        ]));
        assert_eq!(scene.ground, [250., 246., 240.]);
        let boxes: Vec<_> = scene.regions.iter().map(Mask::bounds).collect();
        assert_eq!(boxes.len(), 2, "{boxes:?}");
        let first = boxes.iter().find(|b| b.left < 20).unwrap();
        assert!(first.top <= 10 && first.bottom >= 51, "{first:?}");
    }

    #[test]
    fn an_empty_picture_has_no_regions() {
        assert!(Scene::of(&painted(&[])).regions.is_empty());
    }
}
