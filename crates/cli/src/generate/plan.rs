//! The plan: one image a spec, its name, and whether it is there already.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use excite_diffusion::picture;
use excite_jobs::{Accept, FoundSubject, MethodName, Resolved, Sidecar, Spec, Tries, Warning};

use crate::args::GenerateArgs;
use crate::fault::{Fault, Status};
use crate::sidecar;

/// Images that one command makes; more is work for a cluster.
const IMAGES_MAX: usize = 100_000;
/// Bytes of a prompt in a file name.
const SLUG_BYTES_MAX: usize = 60;

/// An image to make.
pub(super) struct Image {
    pub(super) spec: Spec,
    /// When it is good enough; until then further seeds are tried.
    pub(super) accept: Option<Accept>,
    pub(super) custom_id: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// The subjects with their attributes, if they were found and not named.
    pub(super) found: Vec<FoundSubject>,
    /// What was done otherwise than its line may expect.
    pub(super) warnings: Vec<Warning>,
    /// Where the PNG goes.
    pub(super) path: PathBuf,
    /// Set if it is there already, whole and as wanted.
    pub(super) finished: Option<Sidecar>,
}

impl Image {
    /// A file beside the PNG: its name with `suffix` instead of `.png`.
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.path.with_file_name(stem + suffix)
    }
}

/// The images that a contact sheet shows: those of one line.
pub(super) struct Sheet {
    pub(super) prompt: String,
    /// File name without extension.
    pub(super) stem: String,
    /// For each seed the images of the methods, as positions in the plan.
    pub(super) rows: Vec<(u32, Vec<usize>)>,
}

/// Everything a command makes.
pub(super) struct Plan {
    pub(super) images: Vec<Image>,
    pub(super) sheets: Vec<Sheet>,
}

impl Plan {
    /// Of lines with an entry for each of their methods.
    pub(super) fn new(args: &GenerateArgs, resolved: &[Vec<Resolved>]) -> Result<Self, Fault> {
        let count = |line: &[Resolved]| line.iter().map(|line| line.seeds.count()).sum::<u64>();
        let total: u64 = resolved.iter().map(|line| count(line)).sum();
        if total > IMAGES_MAX as u64 {
            let message = format!("{total} images are more than {IMAGES_MAX}");
            let remedy = "Ask for fewer seeds, or split the file.";
            return Err(Fault::usage("too_many_images", message, remedy));
        }
        if args.trace.is_some() && total != 1 {
            let message = format!("--trace takes one image, these are {total}");
            return Err(Fault::usage("trace", message, "Name one prompt and one seed."));
        }
        let mut taken = Taken::default();
        let mut plan = Self { images: Vec::new(), sheets: Vec::new() };
        for line in resolved {
            plan.add(args, line, &mut taken)?;
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        args: &GenerateArgs,
        methods: &[Resolved],
        taken: &mut Taken,
    ) -> Result<(), Fault> {
        let Some(first) = methods.first() else { return Ok(()) };
        let base = first.custom_id.clone().unwrap_or_else(|| slug(&first.first.prompt));
        let mut rows = Vec::new();
        for seed in first.seeds.iter() {
            let seeded = match &first.custom_id {
                Some(id) if first.seeds.count() == 1 => id.clone(),
                _ => format!("{base}-{seed}"),
            };
            let mut row = Vec::new();
            for line in methods {
                let spec = Spec { seed, ..line.first.clone() };
                let json = spec.canonical_json().map_err(|e| Fault::bug(&e.to_string()))?;
                let json = format!("{json} {:?}", line.accept);
                // The same image asked for twice is made once.
                let at = *taken.images.entry(json).or_insert(self.images.len());
                if at == self.images.len() {
                    let stem = match spec.method.name() {
                        MethodName::AttendAndExcite => seeded.clone(),
                        method => format!("{seeded}-{method}"),
                    };
                    self.images.push(Image {
                        path: args.out.join(format!("{}.png", taken.names.take(&stem))),
                        spec,
                        accept: line.accept,
                        custom_id: line.custom_id.clone(),
                        labels: line.labels.clone(),
                        found: line.found.clone(),
                        warnings: line.warnings.clone(),
                        finished: None,
                    });
                }
                row.push(at);
            }
            rows.push((seed, row));
        }
        if args.compare.is_some() {
            let stem = taken.names.take(&format!("{base}-compare"));
            self.sheets.push(Sheet { prompt: first.first.prompt.clone(), stem, rows });
        }
        Ok(())
    }

    /// Finds what an earlier run finished, and what would be lost.
    pub(super) fn find_finished(&mut self, args: &GenerateArgs) -> Result<(), Fault> {
        if args.overwrite {
            return Ok(());
        }
        for image in &mut self.images {
            let Ok(bytes) = std::fs::read(&image.path) else { continue };
            require_same(image, &bytes)?;
            let extras = !args.attention || super::extras::attention_is_there(image);
            let trace = args.trace.as_deref().is_none_or(Path::exists);
            let sidecar = sidecar::of(&image.path, &bytes);
            if sidecar.as_ref().is_some_and(|found| !found.is_of(&image.spec, image.accept)) {
                return Err(is_another(&image.path, "it was made with another `accept`"));
            }
            image.finished = sidecar.filter(|_| extras && trace);
        }
        Ok(())
    }
}

/// Refuses to replace an image that is not the one that is wanted.
fn require_same(image: &Image, bytes: &[u8]) -> Result<(), Fault> {
    let other = |what: String| Err(is_another(&image.path, &what));
    match picture::Read::bytes(bytes).map_err(|e| e.to_string()).and_then(|read| read.spec()) {
        Ok(found) => {
            // Which of its seeds is kept is known only when it is made.
            let tries = Tries::new(image.spec.seed, image.accept);
            let seed = tries.seeds().find(|seed| *seed == found.seed);
            let wanted = Spec { seed: seed.unwrap_or(image.spec.seed), ..image.spec.clone() };
            match found.difference(&wanted) {
                Some((field, there, here)) => {
                    other(format!("`{field}` is {there} there, {here} here"))
                }
                None => Ok(()),
            }
        }
        Err(message) => other(message),
    }
}

fn is_another(path: &Path, what: &str) -> Fault {
    Fault::new(
        Status::Usage,
        "exists",
        format!("{} is there already, and it is another image: {what}", path.display()),
        "Choose another --out, or --overwrite it.".into(),
    )
}

/// What is taken already.
#[derive(Default)]
struct Taken {
    names: Names,
    /// Canonical JSON of a spec, and when it is good enough, to its position in the plan.
    images: HashMap<String, usize>,
}

/// File names, each given once.
#[derive(Default)]
pub(crate) struct Names(HashMap<String, u32>);

impl Names {
    /// `wanted`, or `wanted-2`, `wanted-3` if it is taken: the same names for the same input.
    pub(crate) fn take(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while self.0.contains_key(&name) {
            let count = self.0.entry(wanted.to_owned()).or_insert(1);
            *count += 1;
            name = format!("{wanted}-{count}");
        }
        self.0.insert(name.clone(), 1);
        name
    }
}

/// A prompt as a file name: letters and digits in lower case, anything else a hyphen.
pub(crate) fn slug(prompt: &str) -> String {
    let mut slug = String::new();
    for c in prompt.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            if slug.len() + c.len_utf8() > SLUG_BYTES_MAX {
                break;
            }
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "image".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_become_file_names() {
        for (prompt, want) in [
            ("a cat and a frog", "a-cat-and-a-frog"),
            ("  A Cat,  (very) \"cute\"! ", "a-cat-very-cute"),
            ("../../etc/passwd", "etc-passwd"),
            ("une pêche à Évian", "une-pêche-à-évian"),
            ("!!!", "image"),
        ] {
            assert_eq!(slug(prompt), want, "{prompt}");
        }
        let long = slug(&"é".repeat(100));
        assert!(long.len() <= SLUG_BYTES_MAX && long.chars().all(|c| c == 'é'), "{long}");
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut names = Names::default();
        let given: Vec<String> =
            ["a", "a", "a-2", "b", "a"].iter().map(|name| names.take(name)).collect();
        assert_eq!(given, ["a", "a-2", "a-2-2", "b", "a-3"]);
    }
}
