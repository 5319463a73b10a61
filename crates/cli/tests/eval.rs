//! `excite eval` as a user runs it, on images of two steps: they show nothing, but are measured.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn excite(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_excite")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Standard output and error of a command that ends so.
#[track_caller]
fn ends(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}

struct Folders {
    _temporary: TempDir,
    images: PathBuf,
    out: PathBuf,
}

impl Folders {
    /// Two prompts, two seeds, two methods, each made by itself.
    fn new() -> Self {
        let temporary = TempDir::new().unwrap();
        let (images, out) = (temporary.path().join("images"), temporary.path().join("out"));
        let prompts = ["a cat and a frog", "a bear with a crown"];
        for method in ["none", "composable"] {
            let options = ["--method", method, "--seeds", "0..2", "--steps", "2"];
            let mut args = vec!["generate", "--out", images.to_str().unwrap()];
            args.extend(prompts.iter().chain(&options));
            ends(&excite(&args), 0);
        }
        Self { _temporary: temporary, images, out }
    }

    fn eval(&self, more: &[&str]) -> Output {
        let mut args = vec!["eval", self.images.to_str().unwrap(), "--out"];
        args.push(self.out.to_str().unwrap());
        args.extend(more);
        excite(&args)
    }

    fn report(&self) -> Value {
        let text = std::fs::read(self.out.join("report.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

#[test]
fn a_folder_is_measured_once_and_reported_on() {
    let folders = Folders::new();
    let (stdout, stderr) = ends(&folders.eval(&["--sheets"]), 0);
    assert!(stderr.contains("8 images, 0 of them measured already"), "{stderr}");
    assert!(stdout.contains("composable") && stdout.contains("all subjects"), "{stdout}");
    for file in ["report.csv", "report.md", "full.png", "all_present.png"] {
        assert!(folders.out.join(file).is_file(), "{file}");
    }
    let sheets: Vec<_> = std::fs::read_dir(folders.out.join("sheets")).unwrap().collect();
    assert_eq!(sheets.len(), 2);
    let first = folders.report();
    let subsets = first["report"]["subsets"].as_array().unwrap();
    let names: Vec<&str> = subsets.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["animals", "animals_objects", "all"]);
    let methods = &subsets[2]["methods"];
    assert_eq!((&methods[0]["name"], &methods[0]["images"]), (&"none".into(), &4.into()));
    assert_eq!(methods[1]["differences"]["full"]["pairs"], 4);

    // Half a line, as an interruption leaves it: that image is measured again, the others are not.
    let scores = folders.out.join("scores.ndjson");
    let text = std::fs::read_to_string(&scores).unwrap();
    std::fs::write(&scores, &text[..text.len() - 40]).unwrap();
    let (stdout, stderr) = ends(&folders.eval(&["--json"]), 0);
    assert!(stderr.contains("8 images, 7 of them measured already"), "{stderr}");
    let printed: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(printed, first, "the same images, the same report");
    assert_eq!(std::fs::read_to_string(&scores).unwrap(), text);

    // The rows alone give the same report, in whatever files and order they are; later ones count.
    let lines: Vec<&str> = text.lines().collect();
    let other = folders.out.join("other.ndjson");
    let stale = lines[0].replace("\"full\":0", "\"full\":9").replace("\"full\":-0", "\"full\":9");
    assert_ne!(stale, lines[0]);
    std::fs::write(&other, format!("{}\n{stale}\n", lines[2..].join("\n"))).unwrap();
    let rest = folders.out.join("rest.ndjson");
    std::fs::write(&rest, format!("{}\nnonsense\n", lines[..4].join("\n"))).unwrap();
    let again = folders.out.join("again");
    let [other, rest, again] = [&other, &rest, &again].map(|path| path.to_str().unwrap());
    let report = ["eval", "report", other, rest, "--json", "--out", again];
    let (stdout, stderr) = ends(&excite(&report), 0);
    assert!(stderr.contains("1 line of") && stderr.contains("rest.ndjson"), "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), first);
    // A prompt with an image less is told.
    let (_, stderr) = ends(&excite(&["eval", "report", other, "--out", again]), 3);
    assert!(stderr.contains("unequally many images"), "{stderr}");
}

#[test]
fn missing_and_broken_images_are_listed() {
    let folders = Folders::new();
    let image = |name: &str| folders.images.join(name);
    std::fs::remove_file(image("a-cat-and-a-frog-1-none.png")).unwrap();
    let whole = std::fs::read(image("a-bear-with-a-crown-0-none.png")).unwrap();
    std::fs::write(image("a-bear-with-a-crown-0-none.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(image("a-bear-with-a-crown-1-none.png"), "no image").unwrap();
    let (_, stderr) = ends(&folders.eval(&[]), 3);
    for name in ["frog-1-none.json", "crown-0-none.png", "crown-1-none.png"] {
        assert!(stderr.contains(name), "{name}: {stderr}");
    }
    let report = folders.report();
    let problems = report["report"]["problems"].as_array().unwrap();
    assert!(problems.len() >= 3, "{problems:?}");
    assert_eq!(report["report"]["subsets"][2]["methods"][0]["images"], 1);
}

#[test]
fn what_cannot_be_evaluated_says_what_to_do() {
    let empty = TempDir::new().unwrap();
    let path = empty.path().to_str().unwrap();
    let out = empty.path().join("out");
    let out = out.to_str().unwrap();
    let (_, stderr) = ends(&excite(&["eval", path, "--out", out]), 2);
    assert!(stderr.contains("no images in"), "{stderr}");
    ends(&excite(&["eval"]), 2);
    let (_, stderr) = ends(&excite(&["eval", "report", "/dev/null", "--out", out]), 1);
    assert!(stderr.contains("not one score"), "{stderr}");
    let (_, stderr) = ends(&excite(&["eval", "report", "no-such-file", "--out", out]), 1);
    assert!(stderr.contains("no-such-file"), "{stderr}");
    let (_, stderr) = ends(&excite(&["eval", "paper", "--methods", "magic"]), 2);
    assert!(stderr.contains("`magic` is no method"), "{stderr}");

    let folders = Folders::new();
    let (_, stderr) = ends(&folders.eval(&["--clip", path]), 1);
    assert!(stderr.contains("config.json"), "{stderr}");
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../eval/tests/data/blip");
    let (_, stderr) = ends(&folders.eval(&["--clip", other.to_str().unwrap()]), 1);
    assert!(stderr.contains("`model_type` is `blip`") && stderr.contains("CLIPModel"), "{stderr}");
    assert!(!folders.out.join("report.json").exists());
}

#[test]
fn an_ablation_makes_every_variant_once() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = out.to_str().unwrap();
    let args =
        ["eval", "ablate", "--prompts", "1", "--seeds", "0..2", "--steps", "2", "--out", path];
    let (stdout, stderr) = ends(&excite(&args), 0);
    assert!(stderr.contains("18 images, 0 of them measured already"), "{stderr}");
    assert!(stdout.contains("no smoothing") && stdout.contains("beyond"), "{stdout}");
    let latents = out.join("latents.json");
    let latents: Value = serde_json::from_slice(&std::fs::read(latents).unwrap()).unwrap();
    let variants = latents.as_array().unwrap();
    assert_eq!(variants.len(), 9);
    assert!(variants.iter().all(|variant| variant["images"] == 2), "{latents}");
    // The options reach the run.
    let of = |name: &str| variants.iter().find(|v| v["variant"] == name).unwrap();
    let deviation = |name: &str| of(name)["deviation"]["value"].as_f64().unwrap();
    assert_ne!(deviation("step size x 2"), deviation("step size x 0.5"));
    // An image that was lost is made again, the others are kept.
    let image = out.join("images/official");
    let image = std::fs::read_dir(image).unwrap().filter_map(Result::ok).map(|file| file.path());
    std::fs::remove_file(image.max().unwrap()).unwrap();
    let (_, stderr) = ends(&excite(&args), 0);
    assert!(stderr.contains("18 images, 18 of them measured already"), "{stderr}");
}
