//! Where the images of a batch go: `PROMPT-SEED.png`, or a folder a prompt.

use std::collections::HashMap;
use std::path::PathBuf;

use excite_jobs::MethodName;
use excite_jobs::api::JobView;

use crate::args::Layout;
use crate::generate::{self, slug};

/// Bytes of a prompt as the name of a folder; file systems end at 255.
const FOLDER_BYTES_MAX: usize = 200;

/// Gives each image its own path: the same ones for the same jobs in the same order.
pub(super) struct Names {
    layout: Layout,
    /// Without their ending.
    taken: generate::Names,
    folders: generate::Names,
    /// The folder of each prompt.
    folder_of: HashMap<String, String>,
}

impl Names {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            taken: generate::Names::default(),
            folders: generate::Names::default(),
            folder_of: HashMap::new(),
        }
    }

    /// The path of a job's image below the folder that was asked for.
    pub(super) fn path(&mut self, job: &JobView) -> PathBuf {
        let method = match job.method.as_str() {
            method if method == MethodName::AttendAndExcite.as_str() => String::new(),
            method => format!("-{}", letters(method)),
        };
        let stem = match self.layout {
            Layout::Flat => {
                let base = job.custom_id.as_deref().map_or_else(|| slug(&job.prompt), letters);
                format!("{base}-{}{method}", job.seed)
            }
            Layout::Paper => format!("{}/{}{method}", self.folder(&job.prompt), job.seed),
        };
        PathBuf::from(self.taken.take(&stem) + ".png")
    }

    fn folder(&mut self, prompt: &str) -> String {
        if let Some(known) = self.folder_of.get(prompt) {
            return known.clone();
        }
        let folder = self.folders.take(&folder(prompt));
        self.folder_of.insert(prompt.to_owned(), folder.clone());
        folder
    }
}

/// A prompt as the name of a folder: as it is, but for what file systems do not take.
fn folder(prompt: &str) -> String {
    let mut name = String::new();
    for c in prompt.chars() {
        if name.len() + c.len_utf8() > FOLDER_BYTES_MAX {
            break;
        }
        let taken =
            c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
        name.push(if taken { '-' } else { c });
    }
    let name = name.trim_matches(|c: char| c == '.' || c.is_whitespace());
    if name.is_empty() { "image".to_owned() } else { name.to_owned() }
}

/// What a server calls something, as a part of a file name.
fn letters(name: &str) -> String {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().map(|c| if letter(c) { c } else { '-' }).take(128).collect()
}

#[cfg(test)]
mod tests {
    use excite_jobs::{BatchId, JobId, State};
    use time::OffsetDateTime;

    use super::*;

    fn job(prompt: &str, seed: u32, method: &str, custom_id: Option<&str>) -> JobView {
        JobView {
            id: JobId::new(BatchId::new(), seed),
            index: seed,
            line: 1,
            custom_id: custom_id.map(str::to_owned),
            labels: Default::default(),
            prompt: prompt.into(),
            seed,
            method: method.into(),
            state: State::Succeeded,
            attempt: 1,
            worker: None,
            at: Some(OffsetDateTime::UNIX_EPOCH),
            compared_with: None,
            success: None,
            failure: None,
            dead: None,
        }
    }

    fn paths(layout: Layout, jobs: &[JobView]) -> Vec<String> {
        let mut names = Names::new(layout);
        jobs.iter().map(|job| names.path(job).to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn names_are_those_of_generate_or_of_the_paper() {
        let guided = "attend_and_excite";
        let jobs = [
            job("a cat and a frog", 3, guided, None),
            job("a cat and a frog", 3, "none", None),
            job("a cat and a frog", 3, guided, None),
            job("a cat, and a frog", 3, guided, None),
            job("a dog", 4, guided, Some("first")),
            job("../../etc/passwd", 0, guided, Some("../x")),
            job("..", 0, "../../none", None),
        ];
        #[rustfmt::skip]
        assert_eq!(paths(Layout::Flat, &jobs), [
            "a-cat-and-a-frog-3.png", "a-cat-and-a-frog-3-none.png", "a-cat-and-a-frog-3-2.png",
            "a-cat-and-a-frog-3-3.png", "first-4.png", "..-x-0.png", "image-0-..-..-none.png",
        ]);
        #[rustfmt::skip]
        assert_eq!(paths(Layout::Paper, &jobs), [
            "a cat and a frog/3.png", "a cat and a frog/3-none.png", "a cat and a frog/3-2.png",
            "a cat, and a frog/3.png", "a dog/4.png", "-..-etc-passwd/0.png",
            "image/0-..-..-none.png",
        ]);
    }

    #[test]
    fn prompts_that_make_the_same_folder_get_folders_of_their_own() {
        let long = "é".repeat(500);
        let [a, b] = [format!("{long} a"), format!("{long} b")];
        let method = "attend_and_excite";
        let got = paths(Layout::Paper, &[job(&a, 0, method, None), job(&b, 0, method, None)]);
        assert_ne!(got[0], got[1]);
        assert!(got.iter().all(|path| path.len() < 255), "{got:?}");
    }
}
