//! Contact sheets: pictures in a labelled grid, to compare methods and seeds at a glance.
//!
//! The grid is also what the heat maps are laid out with. Not here: which pictures belong on a
//! sheet and what their captions say.

use embedded_graphics::text::Alignment;

use super::Picture;
use super::draw::{
    BODY, DARK, MUTED, PALE, STRONG, TITLE, WHITE, fitted, line, line_height, paste, rectangle,
    text, text_width, wrap,
};

/// A picture on a sheet.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Of any size; an empty one is drawn as a missing one.
    pub picture: Picture,
    /// One or two short lines under the picture; longer ones are wrapped and cut.
    pub caption: String,
}

/// Longer side of a picture on a sheet, pixels.
pub(super) const SIDE: (u32, u32) = (192, 384);
/// Around the sheet.
pub(super) const MARGIN: i32 = 16;
/// Over a missing cell.
const CROSS: [u8; 3] = [196; 3];
/// Between cells, and between a cell and its texts.
const GAP: i32 = 10;
const TEXT_GAP: i32 = 5;
/// Row labels are wrapped at this width.
const LABEL_WIDTH: i32 = 140;
/// So that headings and captions of narrow pictures stay legible.
const COLUMN_WIDTH_MIN: i32 = 70;
/// So that titles of small sheets stay legible.
const SHEET_WIDTH_MIN: i32 = 420;

/// A sheet with a title (wrapped), a heading for each column, a label for each row and a caption
/// under each picture. Pictures are enlarged by a whole factor or reduced so that their longer
/// side is 192 to 384 pixels. A missing cell is a crossed rectangle, and so are those by which a
/// row is short.
pub fn contact_sheet(
    title: &str,
    columns: &[String],
    rows: &[(String, Vec<Option<Cell>>)],
) -> Picture {
    let fit = |cell: &Cell| Cell {
        picture: fitted(&cell.picture, SIDE.0, SIDE.1),
        caption: cell.caption.clone(),
    };
    let rows: Vec<_> = rows
        .iter()
        .map(|(label, cells)| {
            (label.clone(), cells.iter().map(|cell| cell.as_ref().map(fit)).collect())
        })
        .collect();
    grid(title, columns, &rows)
}

/// As [`contact_sheet`], with the pictures as large as they are.
pub(super) fn grid(
    title: &str,
    columns: &[String],
    rows: &[(String, Vec<Option<Cell>>)],
) -> Picture {
    let layout = Layout::new(title, columns, rows);
    let mut sheet = Picture::filled(layout.width as u32, layout.height as u32, WHITE);
    lines(&mut sheet, TITLE, &layout.title, (MARGIN, MARGIN), DARK, Alignment::Left);
    let mut x = layout.left;
    for (heading, width) in layout.headings.iter().zip(&layout.widths) {
        // Headings of one line stand at the pictures, beside those of two.
        let y = layout.top - TEXT_GAP - heading.len() as i32 * line_height(STRONG);
        lines(&mut sheet, STRONG, heading, (x + width / 2, y), DARK, Alignment::Center);
        x += width + GAP;
    }
    let mut y = layout.top;
    for (row, (_, cells)) in layout.rows.iter().zip(rows) {
        let label_y = y + (row.picture - row.label.len() as i32 * line_height(STRONG)) / 2;
        lines(&mut sheet, STRONG, &row.label, (MARGIN, label_y), DARK, Alignment::Left);
        let mut x = layout.left;
        for (column, &width) in layout.widths.iter().enumerate() {
            match cells.get(column).and_then(shown) {
                Some(cell) => place(&mut sheet, cell, &row.captions[column], (x, y), width),
                None => missing(&mut sheet, (x, y), (width, row.picture)),
            }
            x += width + GAP;
        }
        y += row.height() + GAP;
    }
    sheet
}

/// The cell, if there is something to see in it.
fn shown(cell: &Option<Cell>) -> Option<&Cell> {
    cell.as_ref().filter(|cell| cell.picture.width() > 0 && cell.picture.height() > 0)
}

fn place(sheet: &mut Picture, cell: &Cell, caption: &[String], (x, y): (i32, i32), width: i32) {
    paste(sheet, &cell.picture, (x + (width - cell.picture.width() as i32) / 2, y));
    let below = y + cell.picture.height() as i32 + TEXT_GAP;
    lines(sheet, BODY, caption, (x + width / 2, below), MUTED, Alignment::Center);
}

fn missing(sheet: &mut Picture, (x, y): (i32, i32), (width, height): (i32, i32)) {
    rectangle(sheet, (x, y), (width, height), PALE);
    let (right, bottom) = (x + width - 1, y + height - 1);
    line(sheet, (x, y), (right, bottom), 1, CROSS);
    line(sheet, (x, bottom), (right, y), 1, CROSS);
}

fn lines(
    sheet: &mut Picture,
    font: &embedded_graphics::mono_font::MonoFont<'_>,
    lines: &[String],
    (x, y): (i32, i32),
    colour: [u8; 3],
    anchor: Alignment,
) {
    for (i, line) in lines.iter().enumerate() {
        text(sheet, font, (x, y + i as i32 * line_height(font)), line, colour, anchor);
    }
}

/// Where everything goes, pixels.
struct Layout {
    width: i32,
    height: i32,
    title: Vec<String>,
    headings: Vec<Vec<String>>,
    /// Of the first column of pictures.
    left: i32,
    /// Of the first row of pictures.
    top: i32,
    widths: Vec<i32>,
    rows: Vec<RowLayout>,
}

struct RowLayout {
    label: Vec<String>,
    captions: Vec<Vec<String>>,
    /// Height of its highest picture.
    picture: i32,
    /// How far the lowest caption reaches below that.
    caption: i32,
}

impl RowLayout {
    fn new(label: &str, cells: &[Option<Cell>], widths: &[i32], default: i32) -> Self {
        let captions: Vec<_> = widths
            .iter()
            .enumerate()
            .map(|(column, width)| match cells.get(column).and_then(shown) {
                Some(cell) => wrap(BODY, &cell.caption, *width, 2),
                None => Vec::new(),
            })
            .collect();
        let height = |cell: &Cell| cell.picture.height() as i32;
        let picture = cells.iter().filter_map(shown).map(height).max().unwrap_or(default);
        let ends = cells.iter().zip(&captions).filter_map(|(cell, caption)| {
            let below = caption.len() as i32 * line_height(BODY);
            shown(cell).map(|cell| height(cell) + if below > 0 { TEXT_GAP + below } else { 0 })
        });
        let caption = ends.max().unwrap_or(0).max(picture) - picture;
        Self { label: wrap(STRONG, label, LABEL_WIDTH, 3), captions, picture, caption }
    }

    fn height(&self) -> i32 {
        self.picture + self.caption
    }
}

impl Layout {
    fn new(title: &str, columns: &[String], rows: &[(String, Vec<Option<Cell>>)]) -> Self {
        let cells = || rows.iter().flat_map(|(_, cells)| cells.iter().filter_map(shown));
        let default_width = cells().map(|cell| cell.picture.width()).max().unwrap_or(SIDE.0);
        let default_height = cells().map(|cell| cell.picture.height()).max().unwrap_or(SIDE.0);
        let count = rows.iter().map(|(_, cells)| cells.len()).fold(columns.len(), usize::max);
        let widths: Vec<i32> = (0..count)
            .map(|column| {
                let cells = rows.iter().filter_map(|(_, cells)| cells.get(column).and_then(shown));
                let width = cells.map(|cell| cell.picture.width()).max().unwrap_or(default_width);
                (width as i32).max(COLUMN_WIDTH_MIN)
            })
            .collect();
        let rows: Vec<_> = rows
            .iter()
            .map(|(label, cells)| RowLayout::new(label, cells, &widths, default_height as i32))
            .collect();
        let headings: Vec<_> = columns
            .iter()
            .zip(&widths)
            .map(|(name, width)| wrap(STRONG, name, *width, 2))
            .collect();

        let labels = rows.iter().flat_map(|row| &row.label).map(|line| text_width(STRONG, line));
        let left = MARGIN + labels.max().map_or(0, |width| width + GAP);
        let right = left + widths.iter().map(|width| width + GAP).sum::<i32>() - GAP;
        let width = (right + MARGIN).max(SHEET_WIDTH_MIN);
        let title = wrap(TITLE, title, width - 2 * MARGIN, 3);
        let band = |lines: usize, font, gap| match lines as i32 * line_height(font) {
            0 => 0,
            height => height + gap,
        };
        let heading_lines = headings.iter().map(Vec::len).max().unwrap_or(0);
        let top = MARGIN + band(title.len(), TITLE, GAP) + band(heading_lines, STRONG, TEXT_GAP);
        let below = rows.iter().map(|row| row.height() + GAP).sum::<i32>() - GAP;
        Self {
            width,
            height: top + below.max(0) + MARGIN,
            title,
            headings,
            left,
            top,
            widths,
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(width: u32, height: u32, colour: [u8; 3], caption: &str) -> Option<Cell> {
        let picture = Picture::filled(width, height, colour);
        Some(Cell { picture, caption: caption.to_owned() })
    }

    /// Left, top, width and height of what has a colour, and whether all of it has.
    fn area(sheet: &Picture, colour: [u8; 3]) -> Option<(u32, u32, u32, u32)> {
        let (mut xs, mut ys) = (Vec::new(), Vec::new());
        for y in 0..sheet.height() {
            for x in (0..sheet.width()).filter(|x| sheet.get(*x, y) == colour) {
                xs.push(x);
                ys.push(y);
            }
        }
        let (left, right) = (*xs.iter().min()?, *xs.iter().max()?);
        let (top, bottom) = (*ys.iter().min()?, *ys.iter().max()?);
        let (width, height) = (right - left + 1, bottom - top + 1);
        assert_eq!(xs.len(), (width * height) as usize, "{colour:?} is no rectangle");
        Some((left, top, width, height))
    }

    #[test]
    fn pictures_stand_whole_in_their_columns_and_rows() {
        let (red, green, blue) = ([200, 0, 0], [0, 200, 0], [0, 0, 200]);
        let rows = [
            ("seed 8".to_owned(), vec![cell(64, 64, red, ""), cell(512, 256, green, "loss 0.12")]),
            ("seed 9".to_owned(), vec![None, cell(250, 300, blue, "two lines\nof caption")]),
        ];
        let sheet = contact_sheet("a cat", &["plain".into(), "excited".into()], &rows);
        let left = 16 + 6 * 7 + 10;
        let top = 16 + 20 + 10 + 15 + 5;
        assert_eq!(area(&sheet, red), Some((left, top, 192, 192)));
        assert_eq!(area(&sheet, green), Some((left + 192 + 10, top, 384, 192)));
        let below = top + 192 + 5 + 15 + 10;
        assert_eq!(area(&sheet, blue), Some((left + 202 + (384 - 250) / 2, below, 250, 300)));
        assert_eq!(sheet.get(left, below + 150), PALE, "the missing cell");
        let size = (left + 192 + 10 + 384 + 16, below + 300 + 5 + 30 + 16);
        assert_eq!((sheet.width(), sheet.height()), size);
    }

    #[test]
    fn long_texts_stay_in_their_place() {
        let long = "an extraordinarily long text ".repeat(20);
        let red = [200, 0, 0];
        let sheet = contact_sheet(
            &long,
            std::slice::from_ref(&long),
            &[(long.clone(), vec![cell(200, 200, red, &long)])],
        );
        assert_eq!(sheet.width(), 420);
        let (_, top, width, height) = area(&sheet, red).unwrap();
        assert_eq!((width, height), (200, 200), "nothing is drawn over the picture");
        assert_eq!(top, 16 + 3 * 20 + 10 + 2 * 15 + 5);
        for x in (0..16).chain(404..420) {
            assert!((0..sheet.height()).all(|y| sheet.get(x, y) == WHITE), "margin at {x}");
        }
    }

    #[test]
    fn little_or_nothing_is_a_sheet_too() {
        let name = || "x".to_owned();
        for (case, columns, rows) in [
            ("nothing", vec![], vec![]),
            ("no rows", vec![name()], vec![]),
            ("an empty row", vec![], vec![(name(), vec![])]),
            ("only missing", vec![name()], vec![(name(), vec![None, None])]),
            ("an empty picture", vec![], vec![(name(), vec![cell(0, 7, [0; 3], "x")])]),
            ("one pixel", vec![], vec![(name(), vec![cell(1, 1, [0; 3], "")])]),
            ("a line", vec![], vec![(name(), vec![cell(5000, 1, [0; 3], "")])]),
        ] {
            let sheet = contact_sheet("", &columns, &rows);
            assert!(sheet.width() >= 420 && sheet.height() >= 22, "{case}");
        }
    }
}
