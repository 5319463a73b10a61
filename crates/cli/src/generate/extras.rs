//! What is drawn beside the images: where the model looked, and the contact sheet.

use std::path::PathBuf;

use excite_diffusion::Rendered;
use excite_diffusion::picture::{Picture, Read, heat, sheet};

use super::plan::{Image, Plan, Sheet};
use crate::args::GenerateArgs;
use crate::fault::Fault;
use crate::files;
use crate::sidecar;

/// Beside the image: the image and a heat map a subject.
const ATTENTION: &str = "-attention.png";
/// Beside the image: the heat maps over the steps.
const STEPS: &str = "-steps.png";
/// Steps that the strip shows.
const COLUMNS: usize = 6;
/// Rows of one contact sheet; more go to further pages.
const SHEET_ROWS: usize = 25;

pub(super) fn attention_is_there(image: &Image) -> bool {
    image.spec.subjects.is_empty()
        || image.beside(ATTENTION).exists() && image.beside(STEPS).exists()
}

/// Draws the heat maps of an image that has subjects.
pub(super) fn draw_attention(image: &Image, rendered: &Rendered) -> Result<(), Fault> {
    let Some(overview) = heat::overview(rendered) else { return Ok(()) };
    files::write(&image.beside(ATTENTION), &overview.to_png(&[])?)?;

    let observed = rendered.record.observed();
    let Some(size) = observed.first().map(|seen| seen.size) else { return Ok(()) };
    let shown = spread(observed.len(), COLUMNS);
    let columns: Vec<String> = shown.iter().map(|step| format!("step {step}")).collect();
    let rows: Vec<heat::Row<'_>> = image
        .spec
        .subjects
        .iter()
        .enumerate()
        .map(|(s, subject)| heat::Row {
            label: subject.word.clone(),
            maps: shown.iter().map(|&step| observed[step].maps[s].as_slice()).collect(),
        })
        .collect();
    let strip = heat::strip(&rendered.picture, &columns, &rows, size);
    files::write(&image.beside(STEPS), &strip.to_png(&[])?)
}

/// `count` positions from first to last of `length`, evenly.
fn spread(length: usize, count: usize) -> Vec<usize> {
    let count = count.min(length);
    (0..count).map(|i| if count > 1 { i * (length - 1) / (count - 1) } else { 0 }).collect()
}

/// Draws a contact sheet for each line, all images on it as they came.
pub(super) fn contact_sheets(args: &GenerateArgs, plan: &Plan) -> Result<Vec<PathBuf>, Fault> {
    let mut written = Vec::new();
    for sheet in &plan.sheets {
        let pages = sheet.rows.len().div_ceil(SHEET_ROWS);
        for page in 0..pages {
            let suffix = if pages > 1 { format!("-{}", page + 1) } else { String::new() };
            let path = args.out.join(format!("{}{suffix}.png", sheet.stem));
            files::write(&path, &draw_page(plan, sheet, page).to_png(&[])?)?;
            written.push(path);
        }
    }
    Ok(written)
}

fn draw_page(plan: &Plan, sheet: &Sheet, page: usize) -> Picture {
    let rows = sheet.rows.iter().skip(page * SHEET_ROWS).take(SHEET_ROWS);
    let methods = sheet.rows.first().map_or(&[][..], |(_, images)| images);
    let columns: Vec<String> =
        methods.iter().map(|&at| plan.images[at].spec.method.name().title().to_owned()).collect();
    let rows: Vec<(String, Vec<Option<sheet::Cell>>)> = rows
        .map(|(seed, images)| {
            let cells = images.iter().map(|&at| cell(&plan.images[at])).collect();
            (format!("seed {seed}"), cells)
        })
        .collect();
    sheet::contact_sheet(&sheet.prompt, &columns, &rows)
}

/// From the files, whichever run wrote them; `None` if the image failed.
fn cell(image: &Image) -> Option<sheet::Cell> {
    let bytes = std::fs::read(&image.path).ok()?;
    let picture = Read::bytes(&bytes).ok()?.picture;
    let attention = sidecar::of(&image.path, &bytes)?.attention;
    let caption = match (attention.loss, attention.weakest) {
        (Some(loss), Some(weakest)) => format!("loss {loss:.3}, weakest: {weakest}"),
        _ => String::new(),
    };
    Some(sheet::Cell { picture, caption })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_steps_go_from_first_to_last() {
        assert_eq!(spread(51, 6), [0, 10, 20, 30, 40, 50]);
        assert_eq!(spread(3, 6), [0, 1, 2]);
        assert_eq!(spread(1, 6), [0]);
        assert!(spread(0, 6).is_empty());
    }
}
