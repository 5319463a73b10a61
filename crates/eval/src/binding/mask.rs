//! Sets of pixels: which belong together, where they lie, how they may be cut in two.
//!
//! Not here: what is a pixel of a thing and what of the ground (`regions`).

use serde::Serialize;

/// A box in pixels; `right` and `bottom` are outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Column behind the last.
    pub right: usize,
    /// Row behind the last.
    pub bottom: usize,
}

/// The four directions in which things are cut and compared: across, down and both diagonals.
pub(super) const DIRECTIONS: [(f64, f64); 4] = [
    (1., 0.),
    (0., 1.),
    (std::f64::consts::FRAC_1_SQRT_2, std::f64::consts::FRAC_1_SQRT_2),
    (std::f64::consts::FRAC_1_SQRT_2, -std::f64::consts::FRAC_1_SQRT_2),
];

/// Share of the pixels on one side of a cut, at least.
const SIDE_SHARE_MIN: f64 = 0.18;
/// Cuts tried in a direction, the narrowest places first.
const CUTS: usize = 6;
/// Pixels between two cuts of one direction.
const CUTS_APART: usize = 5;

/// Some pixels of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mask {
    pub(super) width: usize,
    /// Row by row from the top.
    pub(super) bits: Vec<bool>,
}

impl Mask {
    pub(super) fn empty(width: usize, height: usize) -> Self {
        Self { width, bits: vec![false; width * height] }
    }

    fn height(&self) -> usize {
        self.bits.len() / self.width
    }

    /// How many pixels.
    pub(super) fn area(&self) -> usize {
        self.bits.iter().filter(|bit| **bit).count()
    }

    /// Indices of the pixels, in their order.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.bits.iter().enumerate().filter_map(|(at, bit)| bit.then_some(at))
    }

    /// How many pixels both have.
    pub(super) fn shared(&self, other: &Self) -> usize {
        self.bits.iter().zip(&other.bits).filter(|(a, b)| **a && **b).count()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (bit, other) in self.bits.iter_mut().zip(&other.bits) {
            *bit |= other;
        }
    }

    /// The smallest box around the pixels; all 0 if there are none.
    pub(super) fn bounds(&self) -> Bounds {
        let mut places = self.places().map(|at| (at % self.width, at / self.width));
        let Some((x, y)) = places.next() else {
            return Bounds { left: 0, top: 0, right: 0, bottom: 0 };
        };
        let start = Bounds { left: x, top: y, right: x + 1, bottom: y + 1 };
        places.fold(start, |b, (x, y)| Bounds {
            left: b.left.min(x),
            top: b.top.min(y),
            right: b.right.max(x + 1),
            bottom: b.bottom.max(y + 1),
        })
    }

    /// With all pixels at most `reach` columns and rows away.
    pub(super) fn grown(&self, reach: usize) -> Self {
        let (width, height) = (self.width, self.height());
        let mut grown = Self::empty(width, height);
        for at in self.places() {
            let (x, y) = (at % width, at / width);
            for row in y.saturating_sub(reach)..(y + reach + 1).min(height) {
                let first = row * width + x.saturating_sub(reach);
                let last = row * width + (x + reach).min(width - 1);
                grown.bits[first..=last].fill(true);
            }
        }
        grown
    }

    /// The parts whose pixels touch, also at corners, from the top.
    pub(super) fn components(&self) -> Vec<Self> {
        let (width, height) = (self.width, self.height());
        let mut left = self.bits.clone();
        let mut parts = vec![];
        for start in self.places() {
            if !left[start] {
                continue;
            }
            let mut part = Self::empty(width, height);
            left[start] = false;
            let mut open = vec![start];
            while let Some(at) = open.pop() {
                part.bits[at] = true;
                let (x, y) = (at % width, at / width);
                for row in y.saturating_sub(1)..(y + 2).min(height) {
                    for column in x.saturating_sub(1)..(x + 2).min(width) {
                        let next = row * width + column;
                        if left[next] {
                            left[next] = false;
                            open.push(next);
                        }
                    }
                }
            }
            parts.push(part);
        }
        parts
    }

    /// How far each pixel lies along a direction, in the order of [`Mask::places`].
    pub(super) fn along(&self, (x, y): (f64, f64)) -> Vec<f64> {
        self.places()
            .map(|at| (at % self.width) as f64 * x + (at / self.width) as f64 * y)
            .collect()
    }

    /// Ways to cut it in two by a straight line, at its waists: where the line meets few pixels.
    pub(super) fn cuts(&self) -> Vec<[Self; 2]> {
        DIRECTIONS.iter().flat_map(|direction| self.cuts_across(*direction)).collect()
    }

    fn cuts_across(&self, direction: (f64, f64)) -> Vec<[Self; 2]> {
        let along: Vec<i64> =
            self.along(direction).iter().map(|p| p.round_ties_even() as i64).collect();
        let (Some(low), Some(high)) = (along.iter().min(), along.iter().max()) else {
            return vec![];
        };
        let mut lines = vec![0usize; (high - low) as usize + 1];
        for place in &along {
            lines[(place - low) as usize] += 1;
        }
        let mut before = 0;
        let mut waists = vec![];
        for (line, count) in lines.iter().enumerate() {
            let share = before as f64 / along.len() as f64;
            if (SIDE_SHARE_MIN..=1. - SIDE_SHARE_MIN).contains(&share) {
                waists.push((*count, line));
            }
            before += count;
        }
        waists.sort_unstable();
        let mut chosen: Vec<usize> = vec![];
        for (_, line) in waists {
            if chosen.len() < CUTS && chosen.iter().all(|c| c.abs_diff(line) >= CUTS_APART) {
                chosen.push(line);
            }
        }
        let halves = |line: usize| {
            let height = self.height();
            let mut halves = [Self::empty(self.width, height), Self::empty(self.width, height)];
            for (at, place) in self.places().zip(&along) {
                halves[usize::from((place - low) as usize >= line)].bits[at] = true;
            }
            halves
        };
        chosen.into_iter().map(halves).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rows: &[&str]) -> Mask {
        let bits = rows.iter().flat_map(|row| row.chars().map(|c| c == '#')).collect();
        Mask { width: rows[0].len(), bits }
    }

    #[test]
    fn pixels_that_touch_at_a_corner_belong_together() {
        let mask = drawn(&["#...", ".#..", "...#"]);
        let parts = mask.components();
        let areas: Vec<_> = parts.iter().map(Mask::area).collect();
        assert_eq!(areas, [2, 1]);
        assert_eq!(parts[0].bounds(), Bounds { left: 0, top: 0, right: 2, bottom: 2 });
        assert_eq!(parts[1].bounds(), Bounds { left: 3, top: 2, right: 4, bottom: 3 });
    }

    #[test]
    fn growing_stops_at_the_edges() {
        assert_eq!(drawn(&["#...", "....", "...."]).grown(1), drawn(&["##..", "##..", "...."]));
        assert_eq!(drawn(&["....", "...#"]).grown(1), drawn(&["..##", "..##"]));
    }

    #[test]
    fn two_blocks_are_cut_at_the_bridge_between_them() {
        let rows: Vec<String> = (0..12)
            .map(|y| if y == 6 { "#".repeat(30) } else { format!("{0}......{0}", "#".repeat(12)) })
            .collect();
        let mask = drawn(&rows.iter().map(String::as_str).collect::<Vec<_>>());
        let [left, right] = &mask.cuts()[0];
        assert_eq!((left.area(), right.area()), (144, 150));
        let mut both = left.clone();
        both.add(right);
        assert_eq!((both, left.shared(right)), (mask, 0));
    }
}
