//! Contact sheets: what the methods made of a prompt, a column a method, a row a seed, under each
//! image which subjects are seen.
//!
//! Not here: the layout (`excite_diffusion::picture::sheet`), and where the pictures go.

use std::collections::BTreeMap;

use excite_diffusion::picture::Picture;
use excite_diffusion::picture::sheet::{Cell, contact_sheet};

use crate::images::{Entry, read};
use crate::report::label;
use crate::scores::Score;

/// Rows of a page.
const ROWS: usize = 8;

/// The images of a prompt.
#[derive(Debug, Clone)]
pub struct Sheet<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The baseline first, then by name.
    methods: Vec<&'a str>,
    /// By seed; of images without a seed the first of each method, the second, ...
    rows: BTreeMap<(Option<u32>, usize), BTreeMap<&'a str, Shown<'a>>>,
}

#[derive(Debug, Clone, Copy)]
struct Shown<'a> {
    entry: &'a Entry,
    score: Option<&'a Score>,
}

impl<'a> Sheet<'a> {
    /// A sheet for each prompt, in the order of their texts. `score` finds the row of an image.
    pub fn all(
        entries: &'a [Entry],
        baseline: &str,
        score: impl Fn(&'a Entry) -> Option<&'a Score>,
    ) -> Vec<Self> {
        let mut sheets: BTreeMap<&str, Self> = BTreeMap::new();
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for entry in entries {
            let prompt = entry.prompt.as_str();
            let sheet = sheets.entry(prompt).or_insert_with(|| Self {
                prompt,
                methods: Vec::new(),
                rows: BTreeMap::new(),
            });
            if !sheet.methods.contains(&entry.method.as_str()) {
                sheet.methods.push(&entry.method);
            }
            let place = match entry.seed {
                Some(_) => 0,
                None => {
                    let count = counts.entry((prompt, &entry.method)).or_default();
                    *count += 1;
                    *count
                }
            };
            let row = sheet.rows.entry((entry.seed, place)).or_default();
            row.entry(&entry.method).or_insert(Shown { entry, score: score(entry) });
        }
        let mut sheets: Vec<Self> = sheets.into_values().collect();
        for sheet in &mut sheets {
            sheet.methods.sort_by_key(|method| (*method != baseline, *method));
        }
        sheets
    }

    /// Pictures it takes: eight rows a page.
    pub fn pages(&self) -> usize {
        self.rows.len().div_ceil(ROWS)
    }

    /// A page, from 0, with the images read from their files; one that cannot be read is shown as
    /// missing.
    pub fn draw(&self, page: usize) -> Picture {
        let columns: Vec<String> = self.methods.iter().map(|method| label(method)).collect();
        let rows = self.rows.iter().skip(page.saturating_mul(ROWS)).take(ROWS);
        let rows: Vec<_> = rows
            .map(|((seed, place), images)| {
                let label = match seed {
                    Some(seed) => format!("seed {seed}"),
                    None => format!("image {place}"),
                };
                let cell = |method: &&str| images.get(*method).and_then(|shown| shown.cell());
                (label, self.methods.iter().map(cell).collect())
            })
            .collect();
        contact_sheet(self.prompt, &columns, &rows)
    }
}

impl Shown<'_> {
    fn cell(&self) -> Option<Cell> {
        let picture = read(&self.entry.path).ok()?.picture;
        Some(Cell { picture, caption: self.score.map_or_else(String::new, caption) })
    }
}

/// Which subjects are seen, or how alike image and prompt are where nobody looked for subjects.
fn caption(score: &Score) -> String {
    let seen = score.presence.iter().map(|subject| {
        if subject.present { subject.word.clone() } else { format!("no {}", subject.word) }
    });
    match score.full {
        Some(full) if score.presence.is_empty() => format!("{full:.3}"),
        _ => seen.collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::scores::Presence;

    fn entry(
        folder: &Path,
        prompt: &str,
        method: &str,
        seed: Option<u32>,
        colour: [u8; 3],
    ) -> Entry {
        let name = format!("{prompt}-{method}-{seed:?}.png");
        let path = folder.join(&name);
        std::fs::write(&path, Picture::filled(64, 64, colour).to_png(&[]).unwrap()).unwrap();
        Entry {
            path,
            sha256: name.clone(),
            name,
            prompt: prompt.into(),
            method: method.into(),
            seed,
            subset: None,
            labels: BTreeMap::new(),
            seconds: None,
            tries: 1,
            subjects: Vec::new(),
            attended: None,
        }
    }

    fn score(entry: &Entry, seen: &[(&str, bool)]) -> Score {
        let presence = |(word, present): &(&str, bool)| Presence {
            word: (*word).to_owned(),
            logit: 0.,
            present: *present,
        };
        Score {
            presence: seen.iter().map(presence).collect(),
            full: Some(0.25),
            ..Score::new(entry, "m")
        }
    }

    #[test]
    fn methods_are_columns_and_seeds_are_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (red, green, blue) = ([200, 0, 0], [0, 200, 0], [0, 0, 200]);
        let of = |method, seed, colour| entry(folder.path(), "a cat", method, seed, colour);
        let entries = [
            of("attend_and_excite", Some(3), green),
            of("attend_and_excite", Some(10), blue),
            of("none", Some(3), red),
            entry(folder.path(), "a bird", "none", None, red),
        ];
        let sheets = Sheet::all(&entries, "none", |_| None);
        let prompts: Vec<_> = sheets.iter().map(|sheet| (sheet.prompt, sheet.pages())).collect();
        assert_eq!(prompts, [("a bird", 1), ("a cat", 1)]);
        let sheet = sheets[1].draw(0);
        let find = |colour| {
            let mut places =
                (0..sheet.height()).flat_map(|y| (0..sheet.width()).map(move |x| (x, y)));
            places.find(|(x, y)| sheet.get(*x, *y) == colour).unwrap()
        };
        let (red, green, blue) = (find(red), find(green), find(blue));
        assert!(red.1 == green.1 && red.0 < green.0, "the baseline is left: {red:?} {green:?}");
        assert!(green.0 == blue.0 && green.1 < blue.1, "seed 3 is over seed 10");
        assert_eq!(Sheet::all(&[], "none", |_| None).len(), 0);
    }

    #[test]
    fn an_image_that_cannot_be_read_is_missing_and_many_seeds_take_pages() {
        let folder = tempfile::tempdir().unwrap();
        let red = [200, 0, 0];
        let entries: Vec<_> =
            (0..9).map(|seed| entry(folder.path(), "a cat", "none", Some(seed), red)).collect();
        std::fs::write(&entries[8].path, b"no image").unwrap();
        let sheets = Sheet::all(&entries, "none", |_| None);
        assert_eq!(sheets[0].pages(), 2);
        let has_red = |picture: &Picture| picture.pixels().chunks(3).any(|pixel| pixel == red);
        assert!(has_red(&sheets[0].draw(0)));
        let second = sheets[0].draw(1);
        assert!(!has_red(&second) && second.height() > 64, "a crossed rectangle");
    }

    #[test]
    fn captions_say_which_subjects_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let entry = entry(folder.path(), "a cat and a frog", "none", Some(0), [0; 3]);
        for (seen, want) in [
            (&[("cat", true), ("frog", false)][..], "cat, no frog"),
            (&[("cat", true), ("frog", true)], "cat, frog"),
            (&[], "0.250"),
        ] {
            assert_eq!(caption(&score(&entry, seen)), want);
        }
    }
}
