//! What the drawings share, here and in other crates: text, lines, scaling, pasting and the colour
//! map.
//!
//! Places are pixels from the top left and may lie outside, where nothing is drawn, so drawing
//! cannot fail. What a drawing shows is not decided here: see `heat`, `sheet` and `chart`.

use std::convert::Infallible;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::{Drawable, Pixel};

use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_15::{FONT_7X13, FONT_7X13_BOLD, FONT_9X18_BOLD};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::{
    Line, Primitive, PrimitiveStyle, Rectangle, Styled, StyledDrawable,
};
pub use embedded_graphics::text::Alignment;
use embedded_graphics::text::{Baseline, Text, TextStyleBuilder};

use super::Picture;

/// The ground.
pub const WHITE: [u8; 3] = [255; 3];
/// Where a picture should be and is not.
pub(super) const PALE: [u8; 3] = [242; 3];
/// Lines that guide the eye.
pub const RULE: [u8; 3] = [222; 3];
/// Axes, their labels and captions.
pub const MUTED: [u8; 3] = [80; 3];
/// Titles and names.
pub const DARK: [u8; 3] = [33; 3];

/// Captions and labels.
pub const BODY: &MonoFont<'static> = &FONT_7X13;
pub(super) const STRONG: &MonoFont<'static> = &FONT_7X13_BOLD;
/// Titles.
pub const TITLE: &MonoFont<'static> = &FONT_9X18_BOLD;

/// Inferno at 0, 1/15, ... 1: perceptually uniform, and brighter always means more, also in grey.
/// By Nathaniel Smith and Stéfan van der Walt for matplotlib, who gave it away under CC0.
const INFERNO: [[u8; 3]; 16] = [
    [0, 0, 4],
    [12, 8, 38],
    [36, 12, 79],
    [66, 10, 104],
    [93, 18, 110],
    [120, 28, 109],
    [147, 38, 103],
    [174, 48, 92],
    [199, 62, 76],
    [221, 81, 58],
    [237, 105, 37],
    [248, 133, 15],
    [252, 165, 10],
    [250, 198, 45],
    [242, 230, 97],
    [252, 255, 164],
];

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Picture {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(at, colour) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(at.x), u32::try_from(at.y)) {
                self.set(x, y, [colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

fn rgb([r, g, b]: [u8; 3]) -> Rgb888 {
    Rgb888::new(r, g, b)
}

/// Fills a shape.
pub(super) fn fill<S>(picture: &mut Picture, shape: S, colour: [u8; 3])
where
    S: Primitive + StyledDrawable<PrimitiveStyle<Rgb888>, Color = Rgb888, Output = ()>,
{
    let Ok(()) = Styled::new(shape, PrimitiveStyle::with_fill(rgb(colour))).draw(picture);
}

/// Fills a rectangle; a negative size is none.
pub fn rectangle(
    picture: &mut Picture,
    (x, y): (i32, i32),
    (width, height): (i32, i32),
    colour: [u8; 3],
) {
    let size = Size::new(width.max(0) as u32, height.max(0) as u32);
    fill(picture, Rectangle::new(Point::new(x, y), size), colour);
}

/// A straight line, ends included.
pub(super) fn line(
    picture: &mut Picture,
    from: (i32, i32),
    to: (i32, i32),
    width: u32,
    colour: [u8; 3],
) {
    let squared = |a: i32, b: i32| (i64::from(a) - i64::from(b)).pow(2);
    let length = squared(from.0, to.0) + squared(from.1, to.1);
    if length * (2 * i64::from(width)).pow(2) > i64::from(i32::MAX / 2) {
        // embedded-graphics counts in i32, which long thick lines overflow.
        let middle = (from.0.midpoint(to.0), from.1.midpoint(to.1));
        line(picture, from, middle, width, colour);
        return line(picture, middle, to, width, colour);
    }
    let shape = Line::new(from.into(), to.into());
    let Ok(()) = shape.into_styled(PrimitiveStyle::with_stroke(rgb(colour), width)).draw(picture);
}

/// One line of text, `y` its top, aligned at `x`. Characters the font lacks are shown as `?`.
pub fn text(
    picture: &mut Picture,
    font: &MonoFont<'_>,
    (x, y): (i32, i32),
    string: &str,
    colour: [u8; 3],
    anchor: Alignment,
) {
    // Line feeds, carriage returns and tabs would move the pen.
    let plain: String = string.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let style = TextStyleBuilder::new().alignment(anchor).baseline(Baseline::Top).build();
    let face = MonoTextStyle::new(font, rgb(colour));
    let Ok(_) = Text::with_text_style(&plain, Point::new(x, y), face, style).draw(picture);
}

/// Pixels that a line of text takes.
pub fn text_width(font: &MonoFont<'_>, string: &str) -> i32 {
    string.chars().count() as i32 * font.character_size.width as i32
}

/// From the top of one line of text to the next.
pub fn line_height(font: &MonoFont<'_>) -> i32 {
    font.character_size.height as i32 + 2
}

/// The string, or as much of its start as fits into `width` pixels with "..." after it.
pub fn cut(font: &MonoFont<'_>, string: &str, width: i32) -> String {
    if text_width(font, string) <= width {
        return string.to_owned();
    }
    let fits = width.max(0) as usize / font.character_size.width.max(1) as usize;
    let head: String = string.chars().take(fits.saturating_sub(3)).collect();
    format!("{}{}", head.trim_end(), &"..."[..fits.min(3)])
}

/// Breaks at spaces into at most `most` lines of `width` pixels; what does not fit is cut.
pub fn wrap(font: &MonoFont<'_>, string: &str, width: i32, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in string.lines() {
        let mut current = String::new();
        for word in paragraph.split_whitespace() {
            let wider = text_width(font, &current) + text_width(font, " ") + text_width(font, word);
            if !current.is_empty() && wider > width {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        if !current.is_empty() {
            lines.push(current);
        }
    }
    if lines.len() > most {
        let rest = lines.split_off(most.saturating_sub(1)).join(" ");
        lines.push(rest);
        lines.truncate(most);
    }
    lines.iter().map(|line| cut(font, line, width)).collect()
}

/// Copies `part` into the picture with its top left corner at a place; what is outside is left out.
pub(super) fn paste(picture: &mut Picture, part: &Picture, (left, top): (i32, i32)) {
    for y in 0..part.height {
        for x in 0..part.width {
            let place =
                (u32::try_from(i64::from(left) + i64::from(x)), top.checked_add_unsigned(y));
            if let (Ok(to_x), Some(Ok(to_y))) = (place.0, place.1.map(u32::try_from)) {
                picture.set(to_x, to_y, part.get(x, y));
            }
        }
    }
}

/// The picture at another size: each pixel is the mean of what it covers (a box filter), so a
/// whole factor up repeats pixels. Whole numbers throughout, so the bytes are the same everywhere.
pub(super) fn scaled(picture: &Picture, width: u32, height: u32) -> Picture {
    let mut other = Picture::filled(width, height, WHITE);
    if picture.width == 0 || picture.height == 0 {
        return other;
    }
    let area = u64::from(picture.width) * u64::from(picture.height);
    let columns: Vec<_> = (0..width).map(|x| covered(x, picture.width, width)).collect();
    for y in 0..height {
        let rows = covered(y, picture.height, height);
        for (x, columns) in columns.iter().enumerate() {
            let mut sum = [area / 2; 3];
            for (from_y, high) in &rows {
                for (from_x, wide) in columns {
                    let colour = picture.get(*from_x, *from_y);
                    for (sum, channel) in sum.iter_mut().zip(colour) {
                        *sum += high * wide * u64::from(channel);
                    }
                }
            }
            other.set(x as u32, y, sum.map(|sum| (sum / area) as u8));
        }
    }
    other
}

/// The pixels of `from` that pixel `at` of `to` covers, and how much of each, in 1/`to` of a pixel.
fn covered(at: u32, from: u32, to: u32) -> Vec<(u32, u64)> {
    let (from, to) = (u64::from(from), u64::from(to));
    let (start, end) = (u64::from(at) * from, (u64::from(at) + 1) * from);
    (start / to..end.div_ceil(to))
        .map(|pixel| (pixel as u32, end.min((pixel + 1) * to) - start.max(pixel * to)))
        .collect()
}

/// The picture with its longer side within `least..=most` pixels: enlarged by a whole factor so
/// that pixels stay square, or reduced.
pub(super) fn fitted(picture: &Picture, least: u32, most: u32) -> Picture {
    let side = picture.width.max(picture.height);
    if side == 0 {
        picture.clone()
    } else if side < least {
        picture.enlarged(least.div_ceil(side))
    } else if side > most {
        let to = |length: u32| (u64::from(length) * u64::from(most) / u64::from(side)).max(1);
        scaled(picture, to(picture.width) as u32, to(picture.height) as u32)
    } else {
        picture.clone()
    }
}

/// A map `[h * w]` at another size, bilinear with pixel centres aligned and edges held. A map of
/// another length than `h * w` is all zero, and so is what in it is not finite or is negative.
pub(super) fn resampled(
    map: &[f32],
    (h, w): (usize, usize),
    (height, width): (u32, u32),
) -> Vec<f32> {
    let count = height as usize * width as usize;
    if map.is_empty() || h.checked_mul(w) != Some(map.len()) {
        return vec![0.; count];
    }
    let value = |y: usize, x: usize| positive(map[y * w + x]);
    let columns: Vec<_> = (0..width).map(|x| between(x, w, width)).collect();
    let mut values = Vec::with_capacity(count);
    for y in 0..height {
        let (y0, y1, down) = between(y, h, height);
        values.extend(columns.iter().map(|&(x0, x1, right)| {
            let upper = value(y0, x0) * (1. - right) + value(y0, x1) * right;
            let lower = value(y1, x0) * (1. - right) + value(y1, x1) * right;
            upper * (1. - down) + lower * down
        }));
    }
    values
}

/// The value, or zero for what a heat map cannot show.
pub(super) fn positive(value: f32) -> f32 {
    if value.is_finite() { value.max(0.) } else { 0. }
}

/// Which two of `from` values pixel `at` of `to` lies between, and how near the second it is.
fn between(at: u32, from: usize, to: u32) -> (usize, usize, f32) {
    let last = from - 1;
    let place = (f64::from(at) + 0.5) * from as f64 / f64::from(to) - 0.5;
    let place = place.clamp(0., last as f64);
    (place as usize, (place as usize + 1).min(last), place.fract() as f32)
}

/// Inferno: black at 0, pale yellow at 1; what is outside is held, and NaN is 0.
pub(super) fn heat_colour(value: f32) -> [u8; 3] {
    let value = if value.is_nan() { 0. } else { value.clamp(0., 1.) };
    let place = value * (INFERNO.len() - 1) as f32;
    let first = place as usize;
    let second = (first + 1).min(INFERNO.len() - 1);
    mixed(INFERNO[first], INFERNO[second], place.fract())
}

/// `share` of `second` over `first`.
pub(super) fn mixed(first: [u8; 3], second: [u8; 3], share: f32) -> [u8; 3] {
    let mix = |a: u8, b: u8| (f32::from(a) * (1. - share) + f32::from(b) * share).round() as u8;
    [mix(first[0], second[0]), mix(first[1], second[1]), mix(first[2], second[2])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_two_by_two_is_bilinear_with_centres_aligned() {
        let large = resampled(&[0., 1., 2., 3.], (2, 2), (4, 4));
        let row = |from: f32| [0., 0.25, 0.75, 1.].map(|v| v + from);
        let expected = [row(0.), row(0.5), row(1.5), row(2.)].concat();
        assert_eq!(large, expected);
        assert_eq!(resampled(&large, (4, 4), (2, 2)), [0.375, 1.125, 1.875, 2.625]);
        assert_eq!(resampled(&[5.], (1, 1), (1, 3)), [5.; 3]);
    }

    #[test]
    fn what_is_no_map_is_zero() {
        for (case, map, size) in [
            ("too short", &[1., 1., 1.][..], (2, 2)),
            ("empty", &[], (0, 0)),
            ("too large to count", &[1.], (usize::MAX, 2)),
            ("not positive", &[f32::NAN, f32::INFINITY, -1., f32::NEG_INFINITY], (2, 2)),
        ] {
            assert_eq!(resampled(map, size, (1, 3)), [0.; 3], "{case}");
        }
        assert_eq!(resampled(&[1.], (1, 1), (0, 5)), [0.; 0]);
    }

    #[test]
    fn the_colour_map_goes_from_black_to_pale_yellow_ever_brighter() {
        for (value, colour) in [
            (0., [0, 0, 4]),
            (1. / 15., [12, 8, 38]),
            (1., [252, 255, 164]),
            (-1., [0, 0, 4]),
            (7., [252, 255, 164]),
            (f32::NAN, [0, 0, 4]),
        ] {
            assert_eq!(heat_colour(value), colour, "{value}");
        }
        let light = |i: u16| {
            let [r, g, b] = heat_colour(f32::from(i) / 100.).map(f32::from);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        assert!((0..100).all(|i| light(i) < light(i + 1)));
    }

    #[test]
    fn long_text_is_cut_and_wrapped_to_its_width() {
        for (string, width, expected) in [
            ("a frog", 42, "a frog"),
            ("a frog", 41, "a..."), // two characters are left, one of them a space
            ("a frog", 14, ".."),
            ("a frog", -1, ""),
            ("été", 21, "été"),
        ] {
            assert_eq!(cut(BODY, string, width), expected, "{string:?} in {width}");
        }
        for (string, most, expected) in [
            ("a frog and a cat", 3, &["a frog", "and a", "cat"][..]),
            ("a frog and a cat", 2, &["a frog", "and..."]),
            ("a frog and a cat", 0, &[]),
            ("extraordinary cat", 2, &["ext...", "cat"]),
            (
                "a

 b",
                2,
                &["a", "b"],
            ),
            (" ", 2, &[]),
        ] {
            assert_eq!(wrap(BODY, string, 42, most), expected, "{string:?} in {most} lines");
        }
    }

    #[test]
    fn text_is_drawn_where_its_anchor_says() {
        let drawn = |string: &str, anchor| {
            let mut picture = Picture::filled(60, 13, WHITE);
            text(&mut picture, BODY, (30, 0), string, DARK, anchor);
            let dark = |x: &u32| (0..13).any(|y| picture.get(*x, y) == DARK);
            let columns: Vec<u32> = (0..60).filter(dark).collect();
            (columns.first().copied(), columns.last().copied(), picture)
        };
        for (anchor, within) in
            [(Alignment::Left, 30..51), (Alignment::Right, 10..31), (Alignment::Center, 20..41)]
        {
            let (first, last, _) = drawn("HHH", anchor);
            assert!(first.is_some_and(|x| within.contains(&x)), "{anchor:?} from {first:?}");
            assert!(last.is_some_and(|x| within.contains(&x)), "{anchor:?} to {last:?}");
        }
        assert_eq!(drawn("猫", Alignment::Left).2, drawn("?", Alignment::Left).2);
        assert_eq!(
            drawn(
                "a
b",
                Alignment::Left
            )
            .2,
            drawn("a b", Alignment::Left).2
        );
        assert_ne!(drawn("é", Alignment::Left).2, drawn("?", Alignment::Left).2);
    }

    #[test]
    fn scaling_averages_what_a_pixel_covers() {
        let mut picture = Picture::filled(3, 2, [0; 3]);
        picture.set(0, 0, [90, 0, 0]);
        picture.set(1, 1, [0, 90, 0]);
        assert_eq!(scaled(&picture, 3, 2), picture);
        assert_eq!(scaled(&picture, 9, 6), picture.enlarged(3));
        assert_eq!(scaled(&picture, 1, 1).pixels(), [15, 15, 0]);
        // Two pixels of one and a half: the middle one is shared.
        assert_eq!(scaled(&picture, 2, 1).pixels(), [30, 15, 0, 0, 15, 0]);
        for (size, expected) in [
            ((64, 32), (192, 96)),
            ((768, 512), (384, 256)),
            ((256, 9), (256, 9)),
            ((0, 4), (0, 192)),
        ] {
            let fitted = fitted(&Picture::filled(size.0, size.1, [9; 3]), 192, 384);
            assert_eq!((fitted.width(), fitted.height()), expected, "{size:?}");
        }
    }

    #[test]
    fn a_pasted_picture_is_cut_at_the_edges() {
        for (place, count) in
            [((1, 1), 4), ((-1, 1), 2), ((2, 2), 1), ((3, 0), 0), ((i32::MAX, -2), 0)]
        {
            let mut picture = Picture::filled(3, 3, [0; 3]);
            paste(&mut picture, &Picture::filled(2, 2, [7; 3]), place);
            let pasted = picture.pixels().iter().filter(|v| **v == 7).count();
            assert_eq!(pasted, 3 * count, "{place:?}");
        }
    }
}
