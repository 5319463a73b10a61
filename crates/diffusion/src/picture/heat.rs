//! Heat maps: where the model looked for each subject, over the picture and step by step.
//!
//! A map is the attention of one subject on a grid of `h * w` places, row-major. One of another
//! length, or with nothing finite and positive in it, is drawn black. Not here: how the maps come
//! from the model's attention.

use embedded_graphics::text::Alignment;

use super::Picture;
use super::draw::{
    BODY, DARK, MUTED, WHITE, fitted, heat_colour, mixed, paste, positive, rectangle, resampled,
    scaled, text, text_width,
};
use super::sheet::{Cell, MARGIN, SIDE, grid};
use crate::run::Rendered;
use crate::sidecar::attention as attention_of;

/// Width of a cell of a strip, pixels.
const CELL_WIDTH: (u32, u32) = (96, 160);
/// Of the colour key, pixels.
const KEY: (i32, i32) = (160, 10);

/// A subject in a [`strip`].
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// The subject.
    pub label: String,
    /// Its map at each column's step, `[h * w]` each.
    pub maps: Vec<&'a [f32]>,
}

/// A subject's map, of `size` (h, w), over the picture in grey, as large as the picture. Its
/// highest value is the brightest, whatever it is.
pub fn overlay(picture: &Picture, map: &[f32], size: (usize, usize)) -> Picture {
    let values = resampled(map, size, (picture.height(), picture.width()));
    let high = highest(map);
    let mut over = picture.clone();
    for (pixel, value) in over.pixels.chunks_exact_mut(3).zip(values) {
        let light =
            f32::from(pixel[0]) * 0.299 + f32::from(pixel[1]) * 0.587 + f32::from(pixel[2]) * 0.114;
        let level = share(value, high);
        // Where it did not look the picture is dim but can still be seen.
        let colour = mixed([(light * 0.6) as u8; 3], heat_colour(level), 0.25 + 0.55 * level);
        pixel.copy_from_slice(&colour);
    }
    over
}

/// The finished image and a heat map a subject, at the step that its scores are measured at;
/// `None` where there are no subjects or their maps were not kept.
pub fn overview(rendered: &Rendered) -> Option<Picture> {
    let subjects = &rendered.spec.subjects;
    let step = attention_of(&rendered.spec, &rendered.record).measured_at_step;
    let seen = rendered.record.observed().get(step).filter(|_| !subjects.is_empty())?;
    let label = |s: usize| match (subjects.get(s), seen.scores.get(s)) {
        (Some(subject), Some(score)) => format!("{} {score:.2}", subject.word),
        (subject, _) => subject.map(|subject| subject.word.clone()).unwrap_or_default(),
    };
    let maps: Vec<(String, &[f32])> =
        seen.maps.iter().enumerate().map(|(s, map)| (label(s), map.as_slice())).collect();
    Some(attention(&rendered.picture, &maps, seen.size))
}

/// A grid with a row for each subject, a column for each step, and at the end the last step's map
/// over the picture. Colours compare within a row: its highest value over all steps is the
/// brightest, so that one sees attention grow. Cells are 96 to 160 pixels wide; a step without a
/// map is crossed out. `size` is (h, w) of the maps.
pub fn strip(
    picture: &Picture,
    columns: &[String],
    rows: &[Row<'_>],
    size: (usize, usize),
) -> Picture {
    let small = cell_sized(picture);
    let cell = |picture| Some(Cell { picture, caption: String::new() });
    let mut headings = columns.to_vec();
    headings.push("over the image".to_owned());
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let maps = &row.maps[..row.maps.len().min(columns.len())];
            let fits = |map: &&&[f32]| size.0.checked_mul(size.1) == Some(map.len());
            let high = maps.iter().filter(fits).map(|map| highest(map)).fold(0., f32::max);
            let mut cells: Vec<_> =
                maps.iter().map(|map| cell(coloured(map, size, &small, high))).collect();
            cells.resize_with(columns.len(), || None);
            cells.push(maps.last().and_then(|map| cell(overlay(&small, map, size))));
            (row.label.clone(), cells)
        })
        .collect();
    with_key(&grid("", &headings, &rows), "highest of the row")
}

/// The picture and, beside it, each subject's map over it; `size` is (h, w) of the maps. Each
/// map's own highest value is the brightest.
pub fn attention(
    picture: &Picture,
    subjects: &[(String, &[f32])],
    size: (usize, usize),
) -> Picture {
    let shown = fitted(picture, SIDE.0, SIDE.1);
    let maps = subjects.iter().map(|(_, map)| overlay(&shown, map, size));
    let cells = std::iter::once(shown.clone())
        .chain(maps)
        .map(|picture| Some(Cell { picture, caption: String::new() }))
        .collect();
    let mut headings = vec!["image".to_owned()];
    headings.extend(subjects.iter().map(|(label, _)| label.clone()));
    with_key(&grid("", &headings, &[(String::new(), cells)]), "highest of the map")
}

/// The map alone, as large as `like`.
fn coloured(map: &[f32], size: (usize, usize), like: &Picture, high: f32) -> Picture {
    let values = resampled(map, size, (like.height(), like.width()));
    let pixels = values.iter().flat_map(|value| heat_colour(share(*value, high))).collect();
    Picture { width: like.width(), height: like.height(), pixels }
}

/// The picture as wide as a cell: as it is or by a whole factor where that fits.
fn cell_sized(picture: &Picture) -> Picture {
    let (least, most) = CELL_WIDTH;
    let width = match picture.width() {
        0 => return picture.clone(),
        width if width < least => width * least.div_ceil(width),
        width if width > most => width / width.div_ceil(most),
        width => width,
    };
    let width = width.clamp(least, most);
    let height = u64::from(picture.height()) * u64::from(width) / u64::from(picture.width());
    // A picture that is all height would leave no room for anything else.
    scaled(picture, width, height.clamp(1, 4 * u64::from(most)) as u32)
}

fn highest(map: &[f32]) -> f32 {
    map.iter().copied().map(positive).fold(0., f32::max)
}

fn share(value: f32, high: f32) -> f32 {
    if high > 0. { value / high } else { 0. }
}

/// The drawing with the key of the colours below it.
fn with_key(drawing: &Picture, most: &str) -> Picture {
    let height = KEY.1 + MARGIN;
    let mut whole = Picture::filled(drawing.width(), drawing.height() + height as u32, WHITE);
    paste(&mut whole, drawing, (0, 0));
    let (least, y) = ("no attention", drawing.height() as i32);
    let left = MARGIN + text_width(BODY, least) + 8;
    text(&mut whole, BODY, (MARGIN, y - 2), least, MUTED, Alignment::Left);
    for x in 0..KEY.0 {
        let colour = heat_colour(x as f32 / (KEY.0 - 1) as f32);
        rectangle(&mut whole, (left + x, y), (1, KEY.1), colour);
    }
    text(&mut whole, BODY, (left + KEY.0 + 8, y - 2), most, DARK, Alignment::Left);
    whole
}

#[cfg(test)]
mod tests {
    use super::super::draw::PALE;
    use super::*;

    /// A map of 16 by 16 with one peak.
    fn peak(row: usize, column: usize, value: f32) -> Vec<f32> {
        let mut map = vec![0.; 256];
        map[16 * row + column] = value;
        map
    }

    fn light(colour: [u8; 3]) -> u32 {
        colour.iter().map(|v| u32::from(*v)).sum()
    }

    /// Where the picture is brightest.
    fn brightest(picture: &Picture) -> (u32, u32) {
        let places = (0..picture.height()).flat_map(|y| (0..picture.width()).map(move |x| (x, y)));
        places.max_by_key(|(x, y)| light(picture.get(*x, *y))).unwrap()
    }

    #[test]
    fn an_overlay_is_brightest_where_the_map_is_highest() {
        let mut picture = Picture::filled(128, 64, [200, 120, 40]);
        picture.set(100, 50, [255; 3]);
        for (row, column) in [(3, 12), (0, 0), (15, 2)] {
            let over = overlay(&picture, &peak(row, column, 0.02), (16, 16));
            assert_eq!((over.width(), over.height()), (128, 64));
            let (x, y) = brightest(&over);
            assert_eq!((y as usize / 4, x as usize / 8), (row, column), "peak");
            let [r, g, b] = over.get(64, 32);
            assert!(r.abs_diff(g) < 2 && g.abs_diff(b) < 4, "grey where it did not look");
            assert!(light(over.get(100, 50)) > light(over.get(64, 32)), "the picture shows");
        }
    }

    #[test]
    fn what_is_no_map_darkens_evenly() {
        let picture = Picture::filled(8, 8, [200; 3]);
        for (case, map, size) in [
            ("wrong length", &[1., 2., 3.][..], (2, 2)),
            ("nothing positive", &[0., -1., f32::NAN, f32::INFINITY], (2, 2)),
            ("empty", &[], (0, 0)),
        ] {
            let over = overlay(&picture, map, size);
            assert_eq!(over, Picture::filled(8, 8, over.get(0, 0)), "{case}");
            assert!(light(over.get(0, 0)) < 600, "{case}");
        }
        let partly = overlay(&picture, &[f32::NAN, 0., 0., 1.], (2, 2));
        assert_eq!(brightest(&partly), (7, 7));
    }

    #[test]
    fn a_row_of_a_strip_has_one_scale() {
        let (weak, strong) = ([0.25; 256], [0.5; 256]);
        let wrong = [9.; 3];
        let row = Row { label: "frog".into(), maps: vec![&weak, &strong, &wrong] };
        let columns = ["step 0", "step 1", "step 2", "step 3"].map(str::to_owned);
        let drawn = strip(&Picture::filled(128, 128, [90; 3]), &columns, &[row], (16, 16));
        let (left, top) = (16 + 4 * 7 + 10, 16 + 15 + 5);
        let middle = |column: u32| drawn.get(left + column * 138 + 40, top + 64);
        assert_eq!(middle(0), heat_colour(0.5));
        assert_eq!(middle(1), heat_colour(1.));
        assert_eq!(middle(2), heat_colour(0.), "a map of the wrong length");
        assert_eq!(middle(3), PALE, "no map");
        assert_eq!(drawn.width(), left + 5 * 138 - 10 + 16);
    }

    #[test]
    fn cells_of_a_strip_are_of_legible_size() {
        for (from, to) in [
            ((512, 512), (128, 128)),
            ((64, 32), (128, 64)),
            ((100, 400), (100, 400)),
            ((300, 3), (150, 1)),
            ((1, 5000), (96, 640)),
            ((0, 9), (0, 9)),
        ] {
            let sized = cell_sized(&Picture::filled(from.0, from.1, [1; 3]));
            assert_eq!((sized.width(), sized.height()), to, "{from:?}");
        }
    }

    #[test]
    fn attention_shows_the_picture_and_every_subject() {
        let picture = Picture::filled(128, 128, [0, 200, 0]);
        let (cat, frog) = (peak(8, 8, 1.), peak(2, 2, 1.));
        let subjects = [("cat".to_owned(), &cat[..]), ("frog".to_owned(), &frog[..])];
        let drawn = attention(&picture, &subjects, (16, 16));
        assert_eq!(drawn.get(16 + 128, 36 + 128), [0, 200, 0], "enlarged twice");
        for (i, (row, column)) in [(8, 8), (2, 2)].into_iter().enumerate() {
            let left = 16 + (i as u32 + 1) * 266;
            let at = |row: u32, column: u32| drawn.get(left + 16 * column + 8, 36 + 16 * row + 8);
            assert!(light(at(row, column)) > 3 * light(at(12, 12)), "subject {i}");
        }
        assert_eq!(drawn.width(), 16 + 3 * 266 - 10 + 16);
        let empty = Picture::filled(0, 0, [0; 3]);
        for picture in [&picture, &empty] {
            assert!(attention(picture, &[], (0, 0)).height() > 192);
            assert!(strip(picture, &[], &[], (16, 16)).height() > 32);
        }
    }
}
