//! The folders, in the order of their names: which files are images, and what each should show.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use excite_prompt::PaperPrompt;

use super::beside::{self, Known};
use super::{Attended, Entry, ImagesError, Layout, Problem, Subject, papers, read};

/// A search and what it found so far.
pub(super) struct Search<'a> {
    root: &'a Path,
    papers: BTreeMap<&'static str, PaperPrompt>,
    pub(super) entries: Vec<Entry>,
    pub(super) problems: Vec<Problem>,
}

/// What is in a folder, each in the order of names.
#[derive(Default)]
struct Listing {
    images: Vec<PathBuf>,
    jsons: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

/// What the place of an image tells.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    /// From the name of its folder.
    prompt: Option<&'a str>,
    /// From the caller or the folder of the method; stronger than what the image says.
    method: Option<&'a str>,
}

impl<'a> Search<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root, papers: papers(), entries: Vec::new(), problems: Vec::new() }
    }

    pub(super) fn run(
        &mut self,
        layout: Option<Layout>,
        method: Option<&str>,
    ) -> Result<(), ImagesError> {
        let io = |source| ImagesError::Io { path: self.root.to_owned(), source };
        let listing = list(self.root).map_err(io)?;
        match layout.unwrap_or_else(|| recognised(&listing)) {
            Layout::Flat => self.folder(&listing, Place { prompt: None, method }),
            Layout::Prompts => self.prompts(&listing, method),
            Layout::Methods => {
                for folder in &listing.folders {
                    let name = name(folder);
                    if let Some(listing) = self.list(folder) {
                        self.prompts(&listing, Some(method.unwrap_or(&name)));
                    }
                }
            }
        }
        Ok(())
    }

    /// A folder of folders named as prompts.
    fn prompts(&mut self, listing: &Listing, method: Option<&str>) {
        for folder in &listing.folders {
            let Some(inside) = self.list(folder) else { continue };
            if inside.images.is_empty() && inside.jsons.is_empty() {
                self.problems.push(Problem::Empty { path: self.relative(folder) });
            }
            let prompt = name(folder);
            self.folder(&inside, Place { prompt: Some(&prompt), method });
        }
    }

    /// The images in a folder.
    fn folder(&mut self, listing: &Listing, place: Place<'_>) {
        for image in &listing.images {
            self.image(image, place);
        }
        let described: BTreeSet<_> =
            listing.images.iter().map(|image| beside::path(image)).collect();
        for json in &listing.jsons {
            if !described.contains(json) && beside::is_sidecar(json) {
                self.problems.push(Problem::ImageMissing { path: self.relative(json) });
            }
        }
    }

    fn image(&mut self, path: &Path, place: Place<'_>) {
        let name = self.relative(path);
        let bytes = match read::bytes(path) {
            Ok(bytes) => bytes,
            Err(ImagesError::Io { source, .. }) => {
                self.problems.push(Problem::Unreadable { path: name, reason: source.to_string() });
                return;
            }
            Err(error) => {
                self.problems.push(Problem::Broken { path: name, reason: error.to_string() });
                return;
            }
        };
        if let Err(reason) = read::check(&bytes) {
            self.problems.push(Problem::Broken { path: name, reason });
            return;
        }
        let sha256 = read::sha256_of(&bytes);
        let (known, wrong) = beside::known(path, &bytes, &sha256);
        if let Some(reason) = wrong {
            let path = self.relative(&beside::path(path));
            self.problems.push(Problem::Sidecar { path, reason });
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if known.spec().is_none() && beside::is_drawing(&stem) {
            return;
        }
        let prompt = known.spec().map(|spec| spec.prompt.as_str()).or(place.prompt);
        let Some(prompt) = prompt.map(str::to_owned) else {
            self.problems.push(Problem::PromptUnknown { path: name });
            return;
        };
        let (method, seed) = match known.method_and_seed() {
            Some((method, seed)) => (Some(method), Some(seed)),
            None => (None, stem.parse().ok()),
        };
        let method = place.method.map(str::to_owned).or(method);
        let sidecar = known.sidecar();
        self.entries.push(Entry {
            path: path.to_owned(),
            name,
            sha256,
            subset: self.papers.get(prompt.as_str()).map(|p| p.subset.as_str().to_owned()),
            subjects: self.subjects(&prompt, &known),
            prompt,
            method: method.unwrap_or_else(|| self.root_name()),
            seed,
            labels: sidecar.map(|sidecar| sidecar.labels.clone()).unwrap_or_default(),
            seconds: sidecar.map(|sidecar| sidecar.seconds).filter(|s| s.is_finite() && *s >= 0.),
            tries: sidecar.map_or(1, |sidecar| sidecar.tries.len().max(1) as u32),
            attended: sidecar.and_then(Attended::of),
        });
    }

    /// The paper's, with their colours; else those that the image was made for.
    fn subjects(&self, prompt: &str, known: &Known) -> Vec<Subject> {
        match self.papers.get(prompt) {
            Some(paper) => paper
                .subjects
                .iter()
                .map(|s| Subject { word: s.word.into(), colour: s.colour.map(str::to_owned) })
                .collect(),
            None => {
                let subjects = known.spec().map_or(&[][..], |spec| &spec.subjects);
                let plain = |word: &String| Subject { word: word.clone(), colour: None };
                subjects.iter().map(|subject| plain(&subject.word)).collect()
            }
        }
    }

    fn list(&mut self, folder: &Path) -> Option<Listing> {
        let unreadable = |error: std::io::Error| Problem::Unreadable {
            path: self.relative(folder),
            reason: error.to_string(),
        };
        match list(folder).map_err(unreadable) {
            Ok(listing) => Some(listing),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// The path below the root, with `/` everywhere.
    fn relative(&self, path: &Path) -> String {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        let parts = below.components().map(|part| part.as_os_str().to_string_lossy());
        parts.collect::<Vec<_>>().join("/")
    }

    /// The name of the folder that is searched, also where it is `.`.
    fn root_name(&self) -> String {
        let whole = self.root.canonicalize().unwrap_or_else(|_| self.root.to_owned());
        name(&whole)
    }
}

/// Images in the folder itself, in its folders, or deeper.
fn recognised(listing: &Listing) -> Layout {
    if !listing.images.is_empty() {
        return Layout::Flat;
    }
    let inside = || listing.folders.iter().filter_map(|folder| list(folder).ok());
    if inside().any(|inside| !inside.images.is_empty()) {
        Layout::Prompts
    } else if inside().any(|inside| !inside.folders.is_empty()) {
        Layout::Methods
    } else if listing.folders.is_empty() {
        Layout::Flat
    } else {
        Layout::Prompts
    }
}

fn list(folder: &Path) -> std::io::Result<Listing> {
    let mut listing = Listing::default();
    for item in std::fs::read_dir(folder)? {
        let path = item?.path();
        if name(&path).starts_with('.') {
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_dir() {
            listing.folders.push(path);
        } else if matches!(extension.as_str(), "png" | "jpg" | "jpeg") {
            listing.images.push(path);
        } else if extension == "json" {
            listing.jsons.push(path);
        }
    }
    for paths in [&mut listing.images, &mut listing.jsons, &mut listing.folders] {
        paths.sort();
    }
    Ok(listing)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
