//! What is to be evaluated: the images below a folder, with the prompt each of them should show.
//!
//! Two sources: the layout of the paper's own script (a folder a prompt), and what `excite generate`
//! and `excite batch fetch` write (images with a JSON beside them). What is missing, broken or
//! unknown is listed beside what was found and stops nothing. Not here: scores, and which metrics
//! are measured.

mod beside;
mod read;
mod walk;
mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use excite_diffusion::weakest;
use excite_jobs::{Number, Sidecar};
use excite_prompt::{PaperPrompt, paper_prompts};
use serde::{Deserialize, Serialize};

pub use read::{Image, read};
pub use whole::unequal;

/// An image to evaluate.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// The same below the folder that was searched, with `/`: it stays when the folder moves.
    pub name: String,
    /// Of the file, in hexadecimal.
    pub sha256: String,
    /// What it should show.
    pub prompt: String,
    /// How it was made; with `+accept` where further seeds were tried for a good one.
    pub method: String,
    /// The first of the seeds that were tried; `None` where nothing tells it.
    pub seed: Option<u32>,
    /// Of the paper's prompts, the set it belongs to.
    pub subset: Option<String>,
    /// What the person who ordered it wanted to find it by.
    pub labels: BTreeMap<String, String>,
    /// That it took to make it, all tries together.
    pub seconds: Option<f64>,
    /// Seeds that were tried for it, at least 1.
    pub tries: u32,
    /// Things it should show, in the order of the prompt; empty where nothing tells them.
    pub subjects: Vec<Subject>,
    /// From the JSON beside the image: how far its weakest subject was attended to.
    pub attended: Option<Attended>,
}

/// The attention to the weakest subject of an image while it was made, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attended {
    /// At the last step that guidance may change, by which `accept` chooses.
    pub judged: f32,
    /// At some of the steps ([`Attended::STEPS`]), from 0.
    pub steps: BTreeMap<usize, f32>,
}

impl Attended {
    /// The paper's thresholds are tested at the first three; guidance ends behind 24.
    pub const STEPS: [usize; 5] = [0, 10, 20, 24, 40];

    /// `None` where it has no subjects or its scores are not known.
    pub(crate) fn of(sidecar: &Sidecar) -> Option<Self> {
        let of_step = |step: usize| Some((step, least(&sidecar.steps.get(step)?.scores)?));
        Some(Self {
            judged: least(&sidecar.attention.scores)?,
            steps: Self::STEPS.into_iter().filter_map(of_step).collect(),
        })
    }
}

/// `None` if one is not known, or there is none.
fn least(scores: &[Number]) -> Option<f32> {
    let known: Vec<f32> = scores.iter().copied().collect::<Option<_>>()?;
    weakest(&known).map(|place| known[place])
}

/// A thing that an image should show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The noun.
    pub word: String,
    /// Its colour, known of the paper's prompts.
    pub colour: Option<String>,
}

/// How images are laid out below a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Images with their sidecars in the folder itself.
    Flat,
    /// A folder a prompt, named as the prompt.
    Prompts,
    /// A folder a method, in each a folder a prompt.
    Methods,
}

/// What a search came to.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// By method, prompt, seed and name.
    pub entries: Vec<Entry>,
    /// In the order of their paths; those of whole methods at the end.
    pub problems: Vec<Problem>,
}

/// What is not as it should be, and left out if it is an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum Problem {
    /// An image that cannot be read.
    #[error("`{path}` is left out: {reason}")]
    Broken {
        /// Its name below the folder.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A JSON of an image that is not there.
    #[error("`{path}` has no image beside it: make or fetch it again")]
    ImageMissing {
        /// Of the JSON.
        path: String,
    },
    /// A JSON beside an image that says nothing about it.
    #[error("`{path}` is not used: {reason}")]
    Sidecar {
        /// Of the JSON.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An image of which nothing tells the prompt.
    #[error(
        "`{path}` is left out: no JSON beside it and no text in it tells its prompt; fetch it \
         with sidecars or put it into a folder named as its prompt"
    )]
    PromptUnknown {
        /// Its name below the folder.
        path: String,
    },
    /// An image of which the captioning model says nothing.
    #[error("`{path}` has an empty caption: its text-text similarity is left out")]
    EmptyCaption {
        /// Its name below the folder.
        path: String,
    },
    /// A second image of the same method, prompt and seed.
    #[error("`{path}` is left out: `{first}` is of the same method, prompt and seed")]
    Twice {
        /// The one that is left out.
        path: String,
        /// The one that counts.
        first: String,
    },
    /// A folder without images where the images of a prompt should be.
    #[error("`{path}` has no images")]
    Empty {
        /// The folder's name.
        path: String,
    },
    /// Something that the system does not let be read.
    #[error("`{path}` cannot be read: {reason}")]
    Unreadable {
        /// Its name below the folder.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The prompts of a method do not have equally many images, which the paper's script requires.
    #[error("the prompts of `{method}` have unequally many images: {}", told(.counts))]
    UnequalCounts {
        /// The method.
        method: String,
        /// How many have how many, the most images first.
        counts: Vec<Count>,
    },
    /// Images of two methods that were made together, of whose time each was told the same share.
    #[error(
        "{images} images of `{method}` and `{other}` were made together, so their seconds do not \
         tell the methods apart: make each method by itself to compare what they cost"
    )]
    SharedSeconds {
        /// A method.
        method: String,
        /// Another.
        other: String,
        /// Pairs of the same prompt and seed.
        images: usize,
    },
}

/// Prompts with the same number of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Of each.
    pub images: usize,
    /// Such prompts.
    pub prompts: usize,
}

fn told(counts: &[Count]) -> String {
    let parts = counts.iter().map(|c| format!("{} have {}", c.prompts, c.images));
    parts.collect::<Vec<_>>().join(", ")
}

/// Why nothing can be evaluated, or an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The system refuses.
    #[error("`{path}` cannot be read: {source}")]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no PNG or JPEG, is damaged or too large.
    #[error("`{path}` cannot be read as an image: {reason}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is not one image.
    #[error(
        "no images in `{path}`: name a folder of images with their JSON, of folders named as \
         prompts, or of such folders a method"
    )]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
}

/// Finds the images below `root`. `layout` is recognised if it is not given. `method` is the name
/// for all of them; without it the folder of the method names it, then what the image says of
/// itself, then the name of the folder `root`.
///
/// # Errors
/// If `root` cannot be listed, or if neither an image nor a problem is found there.
pub fn find(
    root: &Path,
    layout: Option<Layout>,
    method: Option<&str>,
) -> Result<Found, ImagesError> {
    let mut search = walk::Search::new(root);
    search.run(layout, method)?;
    let walk::Search { mut entries, mut problems, .. } = search;
    if entries.is_empty() && problems.is_empty() {
        return Err(ImagesError::Nothing { path: root.to_owned() });
    }
    // By seed before name: `10.png` comes after `9.png`.
    let key = |e: &Entry| (e.method.clone(), e.prompt.clone(), e.seed, e.name.clone());
    entries.sort_by_cached_key(key);
    let entries = whole::once(entries, &mut problems);
    let images = entries.iter().map(|entry| (entry.method.as_str(), entry.prompt.as_str()));
    problems.extend(unequal(images));
    problems.extend(whole::shared_seconds(&entries));
    Ok(Found { entries, problems })
}

/// The paper's prompts by their text.
fn papers() -> BTreeMap<&'static str, PaperPrompt> {
    paper_prompts().map(|prompt| (prompt.text, prompt)).collect()
}

#[cfg(test)]
mod tests;
