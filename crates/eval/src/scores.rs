//! What was measured on each image, a line of JSON an image, in a file that an interrupted
//! evaluation goes on with.
//!
//! Rows are only ever added; a later one of the same image supersedes an earlier one, so what is
//! measured later can be filled in. Rows that were measured otherwise, or on an image that has
//! changed since, stay in the file and do not count. Not here: measuring.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::binding::Verdict;
use crate::images::{Attended, Entry};

/// Of a row.
pub const VERSION: u32 = 1;

/// The measurements of one image. Similarities are cosines, -1 to 1; what is absent was not
/// measured or does not apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// [`VERSION`].
    pub v: u32,
    /// [`Entry::name`].
    pub path: String,
    /// Of the image file.
    pub sha256: String,
    /// What it should show.
    pub prompt: String,
    /// Of the paper's prompts, the set it belongs to.
    pub subset: Option<String>,
    /// How it was made.
    pub method: String,
    /// What it shares with images of other methods.
    pub seed: Option<u32>,
    /// That it took to make it.
    pub seconds: Option<f64>,
    /// Similarity of image and prompt.
    pub full: Option<f32>,
    /// The lesser of the similarities of the image with the two parts of the prompt.
    pub min_object: Option<f32>,
    /// What the captioning model says of the image.
    pub caption: Option<String>,
    /// Similarity of that caption and the prompt.
    pub text_text: Option<f32>,
    /// Of each subject, whether it is seen; empty where it was not looked for.
    #[serde(default)]
    pub presence: Vec<Presence>,
    /// Whether each subject has its colour; `None` where that cannot be measured.
    #[serde(default)]
    pub binding: Option<Binding>,
    /// How far its weakest subject was attended to while it was made.
    #[serde(default)]
    pub attended: Option<Attended>,
    /// Seeds that were tried for it.
    pub tries: u32,
    /// The models and the version that these numbers are of.
    pub measure: String,
}

/// What is said of the colours of the subjects, from their own regions (`binding`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The subjects in their order.
    pub subjects: Vec<Bound>,
    /// What the regions of the picture show, the largest first; `None` where that is not clear.
    pub things: Vec<Option<String>>,
}

/// A subject and its colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The subject.
    pub word: String,
    /// That it should have, if any.
    pub colour: Option<String>,
    /// What is found.
    pub verdict: Verdict,
}

impl Binding {
    /// Of the subjects that should have a colour, are there, and are clear: those that have it, and
    /// all of them.
    pub fn right(&self) -> (usize, usize) {
        let of = |wanted: &[Verdict]| {
            let coloured = self.subjects.iter().filter(|subject| subject.colour.is_some());
            coloured.filter(|subject| wanted.contains(&subject.verdict)).count()
        };
        let right = of(&[Verdict::Right]);
        (right, right + of(&[Verdict::Swapped, Verdict::Wrong, Verdict::Mixed]))
    }
}

/// Whether a judge sees a subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// The subject.
    pub word: String,
    /// How sure: 0 is undecided, more is "yes".
    pub logit: f32,
    /// The answer.
    pub present: bool,
}

impl Score {
    /// The row of an image before anything is measured.
    pub fn new(entry: &Entry, measure: &str) -> Self {
        Self {
            v: VERSION,
            path: entry.name.clone(),
            sha256: entry.sha256.clone(),
            prompt: entry.prompt.clone(),
            subset: entry.subset.clone(),
            method: entry.method.clone(),
            seed: entry.seed,
            seconds: entry.seconds,
            full: None,
            min_object: None,
            caption: None,
            text_text: None,
            presence: Vec::new(),
            binding: None,
            attended: entry.attended.clone(),
            tries: entry.tries,
            measure: measure.to_owned(),
        }
    }

    /// Whether all subjects are seen; `None` where they were not looked for.
    pub fn shows_all(&self) -> Option<bool> {
        (!self.presence.is_empty()).then(|| self.presence.iter().all(|subject| subject.present))
    }

    /// How an image lacks a subject: `doubled`, another one stands there twice; `lone`, there is one
    /// thing alone; `other`. `None` where it lacks none or that was not looked for.
    pub fn failure(&self) -> Option<&'static str> {
        if self.shows_all()? {
            return None;
        }
        let things = &self.binding.as_ref()?.things;
        let count = |word: &str| things.iter().flatten().filter(|thing| *thing == word).count();
        let twice = self.presence.iter().any(|subject| count(&subject.word) > 1);
        Some(if twice {
            "doubled"
        } else if things.len() == 1 {
            "lone"
        } else {
            "other"
        })
    }

    /// The name of a number that JSON cannot hold.
    fn not_finite(&self) -> Option<&'static str> {
        let bad = |value: Option<f32>| value.is_some_and(|value| !value.is_finite());
        let fields = [
            ("full", bad(self.full)),
            ("min_object", bad(self.min_object)),
            ("text_text", bad(self.text_text)),
            ("presence", self.presence.iter().any(|subject| !subject.logit.is_finite())),
            ("seconds", self.seconds.is_some_and(|seconds| !seconds.is_finite())),
        ];
        fields.into_iter().find_map(|(name, bad)| bad.then_some(name))
    }
}

/// Why scores cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ScoresError {
    /// The system refuses.
    #[error("the scores in `{path}` cannot be read or written: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A measurement is NaN or infinite.
    #[error("`{field}` of `{image}` is not a number: its image or the model is damaged")]
    NotFinite {
        /// Of the row.
        field: &'static str,
        /// Its path.
        image: String,
    },
    /// The row is of another measure than the book.
    #[error("a row of `{image}` is of measure `{found}`, and the file is open for `{wanted}`")]
    OtherMeasure {
        /// Its path.
        image: String,
        /// Of the row.
        found: String,
        /// Of the book.
        wanted: String,
    },
}

/// Lines of a file that do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// Measured with other models or another version.
    pub other_measure: usize,
    /// No row, or one of another form.
    pub broken: usize,
    /// The last line, which an interruption cut off; it is taken out of the file.
    pub cut: usize,
}

/// The rows of a file, whatever they were measured with.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// In their order, superseded ones too.
    pub rows: Vec<Score>,
    /// What is no row.
    pub ignored: Ignored,
    /// Bytes up to the end of the last whole line.
    whole: u64,
}

impl Lines {
    /// Reads to the end.
    ///
    /// # Errors
    /// If that fails.
    pub fn read(mut reader: impl BufRead) -> std::io::Result<Self> {
        let (mut found, mut line) = (Self::default(), Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(found);
            }
            if !line.ends_with(b"\n") {
                found.ignored.cut = 1;
                return Ok(found);
            }
            found.whole += read as u64;
            match serde_json::from_slice::<Score>(&line) {
                Ok(row) if row.v == VERSION => found.rows.push(row),
                _ => found.ignored.broken += 1,
            }
        }
    }
}

/// Rows of the same method, prompt and seed are of the same image, measured or made again: the last
/// one counts. Without a seed the file's name tells them apart. By method, prompt, seed and name.
pub fn latest(rows: impl IntoIterator<Item = Score>) -> Vec<Score> {
    let key = |row: &Score| {
        let name = row.seed.is_none().then(|| row.path.clone());
        (row.method.clone(), row.prompt.clone(), row.seed, name)
    };
    let by_image: BTreeMap<_, _> = rows.into_iter().map(|row| (key(&row), row)).collect();
    by_image.into_values().collect()
}

/// The file of scores.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    file: File,
    measure: String,
    rows: BTreeMap<Key, Score>,
    ignored: Ignored,
}

/// An image: its place and contents, and what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    method: String,
    prompt: String,
    path: String,
    sha256: String,
}

impl Key {
    fn of_row(row: &Score) -> Self {
        Self {
            method: row.method.clone(),
            prompt: row.prompt.clone(),
            path: row.path.clone(),
            sha256: row.sha256.clone(),
        }
    }

    fn of_entry(entry: &Entry) -> Self {
        Self {
            method: entry.method.clone(),
            prompt: entry.prompt.clone(),
            path: entry.name.clone(),
            sha256: entry.sha256.clone(),
        }
    }
}

impl Book {
    /// Opens the file, or begins it, and reads the rows of this measure.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, measure: &str) -> Result<Self, ScoresError> {
        let io = |source| ScoresError::Io { path: path.to_owned(), source };
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false);
        let mut file = file.open(path).map_err(io)?;
        let read = Lines::read(BufReader::new(&mut file)).map_err(io)?;
        let Lines { rows: all, mut ignored, whole } = read;
        let mut rows = BTreeMap::new();
        for row in all {
            match row.measure == measure {
                true => drop(rows.insert(Key::of_row(&row), row)),
                false => ignored.other_measure += 1,
            }
        }
        // The next row must not continue a cut one.
        file.set_len(whole).map_err(io)?;
        file.seek(SeekFrom::Start(whole)).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, measure: measure.to_owned(), rows, ignored })
    }

    /// The row of an image as it is now.
    pub fn get(&self, entry: &Entry) -> Option<&Score> {
        self.rows.get(&Key::of_entry(entry))
    }

    /// Whether there is a row of the image as it is now.
    pub fn has(&self, entry: &Entry) -> bool {
        self.get(entry).is_some()
    }

    /// The rows of these images, in their order; those that are not measured are left out.
    pub fn of<'a>(&'a self, entries: &'a [Entry]) -> impl Iterator<Item = &'a Score> {
        entries.iter().filter_map(|entry| self.get(entry))
    }

    /// Adds a row, which is in the file when this returns; one of the same image is superseded.
    ///
    /// # Errors
    /// If it cannot be written, holds a number that is none, or is of another measure.
    pub fn append(&mut self, row: Score) -> Result<(), ScoresError> {
        if let Some(field) = row.not_finite() {
            return Err(ScoresError::NotFinite { field, image: row.path });
        }
        if row.measure != self.measure {
            let wanted = self.measure.clone();
            return Err(ScoresError::OtherMeasure { image: row.path, found: row.measure, wanted });
        }
        let io = |source| ScoresError::Io { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(&row).map_err(|e| io(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.flush()).map_err(io)?;
        self.rows.insert(Key::of_row(&row), row);
        Ok(())
    }

    /// What was in the file and does not count.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, sha256: &str) -> Entry {
        Entry {
            path: name.into(),
            name: name.into(),
            sha256: sha256.into(),
            prompt: "a cat and a dog".into(),
            method: "none".into(),
            seed: Some(3),
            subset: Some("animals".into()),
            labels: BTreeMap::new(),
            seconds: Some(1.5),
            tries: 1,
            subjects: Vec::new(),
            attended: None,
        }
    }

    fn row(name: &str, full: f32) -> Score {
        Score { full: Some(full), ..Score::new(&entry(name, "aa"), "m1") }
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.ndjson");
        (folder, path)
    }

    #[test]
    fn an_interrupted_evaluation_goes_on() {
        let (_folder, path) = folder();
        let mut book = Book::open(&path, "m1").unwrap();
        book.append(row("a", 0.1)).unwrap();
        book.append(row("b", 0.2)).unwrap();
        drop(book);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..40]].concat()).unwrap();

        let mut book = Book::open(&path, "m1").unwrap();
        assert_eq!(book.ignored(), Ignored { cut: 1, ..Ignored::default() });
        assert_eq!(std::fs::read(&path).unwrap(), whole, "the cut line is taken out");
        let has = |book: &Book, name| book.has(&entry(name, "aa"));
        assert!(has(&book, "a") && has(&book, "b") && !has(&book, "c"));
        book.append(row("c", 0.3)).unwrap();
        drop(book);
        let book = Book::open(&path, "m1").unwrap();
        assert_eq!(book.ignored(), Ignored::default());
        let entries = ["c", "x", "a"].map(|name| entry(name, "aa"));
        let full: Vec<_> = book.of(&entries).map(|row| row.full).collect();
        assert_eq!(full, [Some(0.3), Some(0.1)], "in the order of the images");
    }

    #[test]
    fn a_row_counts_for_the_image_it_was_measured_on_alone() {
        let (_folder, path) = folder();
        Book::open(&path, "m1").unwrap().append(row("a", 0.1)).unwrap();
        let book = Book::open(&path, "m1").unwrap();
        assert!(book.has(&entry("a", "aa")));
        assert!(!book.has(&entry("a", "bb")), "the image has changed");
        assert!(!book.has(&Entry { method: "other".into(), ..entry("a", "aa") }));
        assert!(!book.has(&Entry { prompt: "a cat".into(), ..entry("a", "aa") }));
        let mut other = Book::open(&path, "m2").unwrap();
        assert!(!other.has(&entry("a", "aa")), "measured otherwise");
        assert_eq!(other.ignored(), Ignored { other_measure: 1, ..Ignored::default() });
        let refused = other.append(row("a", 0.1)).unwrap_err();
        assert!(matches!(refused, ScoresError::OtherMeasure { .. }), "{refused}");
        drop((book, other));
        assert!(Book::open(&path, "m1").unwrap().has(&entry("a", "aa")), "rows are only added");
    }

    #[test]
    fn a_later_row_supersedes_an_earlier_one() {
        let (_folder, path) = folder();
        let mut book = Book::open(&path, "m1").unwrap();
        book.append(row("a", 0.1)).unwrap();
        let caption = Some("two cats".to_owned());
        let filled = Score { caption, ..book.get(&entry("a", "aa")).unwrap().clone() };
        book.append(filled.clone()).unwrap();
        assert_eq!(book.get(&entry("a", "aa")), Some(&filled));
        assert_eq!(Book::open(&path, "m1").unwrap().get(&entry("a", "aa")), Some(&filled));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn what_is_no_row_is_counted_and_what_is_no_number_refused() {
        let (_folder, path) = folder();
        let later = serde_json::to_string(&Score { v: 2, ..row("a", 0.1) }).unwrap();
        std::fs::write(&path, format!("\nnonsense\n{later}\n")).unwrap();
        let mut book = Book::open(&path, "m1").unwrap();
        assert_eq!(book.ignored(), Ignored { broken: 3, ..Ignored::default() });
        let presence = vec![Presence { word: "cat".into(), logit: f32::NAN, present: false }];
        for (field, row) in [
            ("full", row("a", f32::NAN)),
            ("seconds", Score { seconds: Some(f64::INFINITY), ..row("a", 0.) }),
            ("presence", Score { presence, ..row("a", 0.) }),
        ] {
            let error = book.append(row).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{field}` of `a`")), "{error}");
        }
        assert!(!book.has(&entry("a", "aa")));
    }

    /// The file is read by other programs: names and forms stay.
    #[test]
    fn a_row_is_a_line_of_json() {
        let presence = vec![Presence { word: "cat".into(), logit: 1.5, present: true }];
        let attended = Some(Attended { judged: 0.5, steps: [(10, 0.25)].into() });
        let row = Score { presence, attended, ..row("a/3.png", 0.25) };
        let want = concat!(
            r#"{"v":1,"path":"a/3.png","sha256":"aa","prompt":"a cat and a dog","#,
            r#""subset":"animals","method":"none","seed":3,"seconds":1.5,"full":0.25,"#,
            r#""min_object":null,"caption":null,"text_text":null,"#,
            r#""presence":[{"word":"cat","logit":1.5,"present":true}],"binding":null,"#,
            r#""attended":{"judged":0.5,"steps":{"10":0.25}},"tries":1,"measure":"m1"}"#
        );
        assert_eq!(serde_json::to_string(&row).unwrap(), want);
        assert_eq!(serde_json::from_str::<Score>(want).unwrap(), row);
        assert_eq!(
            (row.shows_all(), Score { presence: vec![], ..row }.shows_all()),
            (Some(true), None)
        );
    }
}
