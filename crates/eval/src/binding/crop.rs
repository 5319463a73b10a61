//! A region as the judge sees it best: alone, in the middle, as large as in the pictures it knows.

use excite_diffusion::picture::Picture;

use super::mask::Mask;
use super::regions::Scene;
use crate::preprocess::resample::{Bytes, Filter};

/// Width and height of what the judge sees.
pub(super) const SIZE: usize = 128;
/// Longer side of the region in it. Of 48, 60, 72 and 84 pixels, 60 to 84 named most things.
const SIDE: f64 = 70.;
/// Small things are not enlarged more.
const ENLARGED_MAX: f64 = 1.8;
/// Pixels around the region that come along, so that its outline stays soft.
const RIM: usize = 2;
/// Where the region is put beside the middle. The judge sees patches of 16 by 16 pixels, and its
/// answer depends on how they fall; the mean of four is steadier than one.
pub(super) const SHIFTS: [(i32, i32); 4] = [(0, 0), (5, 4), (-4, 6), (6, -5)];

/// The region at each of the `shifts`, on the picture's own ground.
pub(super) fn crops(
    picture: &Picture,
    scene: &Scene,
    region: &Mask,
    shifts: &[(i32, i32)],
) -> Vec<Picture> {
    let ground = scene.ground.map(|v| v as u8);
    let (bounds, near) = (region.bounds(), region.grown(RIM));
    let (width, height) = (bounds.right - bounds.left, bounds.bottom - bounds.top);
    let mut rgb = Vec::with_capacity(3 * width * height);
    for y in bounds.top..bounds.bottom {
        for x in bounds.left..bounds.right {
            let inside = near.bits[y * near.width + x];
            rgb.extend(if inside { picture.get(x as u32, y as u32) } else { ground });
        }
    }
    let scale = ENLARGED_MAX.min(SIDE / width.max(height).max(1) as f64);
    let scaled = |side: usize| ((side as f64 * scale).round_ties_even() as usize).max(1);
    let (across, down) = (scaled(width), scaled(height));
    let small = Bytes { width, height, rgb }.resized(across, down, Filter::Bilinear);
    let at = |(right, lower): &(i32, i32)| {
        let mut crop = Picture::filled(SIZE as u32, SIZE as u32, ground);
        let left = ((SIZE - across) / 2) as i32 + right;
        let top = ((SIZE - down) / 2) as i32 + lower;
        for (place, pixel) in small.rgb.chunks_exact(3).enumerate() {
            let (x, y) = (left + (place % across) as i32, top + (place / across) as i32);
            crop.set(x as u32, y as u32, [pixel[0], pixel[1], pixel[2]]);
        }
        crop
    };
    shifts.iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crop_shows_its_region_alone_and_enlarged() {
        let (ground, red, blue) = ([250, 250, 250], [200, 20, 20], [20, 20, 200]);
        let mut picture = Picture::filled(128, 128, ground);
        for at in 0..40 * 40 {
            picture.set(4 + at % 40, 4 + at / 40, red);
            picture.set(80 + at % 40, 4 + at / 40, blue);
        }
        let scene = Scene::of(&picture);
        assert_eq!(scene.regions.len(), 2);
        for (region, colour) in scene.regions.iter().zip([red, blue]) {
            let crop = &crops(&picture, &scene, region, &SHIFTS[..1])[0];
            assert_eq!(crop.get(64, 64), colour);
            let shown = crop.pixels().chunks_exact(3).filter(|p| *p == colour).count();
            // 40 pixels of the 42 that the region has are coloured, on 70.
            assert!((60 * 60..=70 * 70).contains(&shown), "{shown}");
            let other = if colour == red { blue } else { red };
            assert!(crop.pixels().chunks_exact(3).all(|p| p != other));
        }
    }
}
