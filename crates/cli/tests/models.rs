//! `excite model` and `excite parity` as a user runs them, against a server in this process that
//! has the bundled model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the hub's own tests use all of it")]
#[path = "../../hub/tests/hub/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use server::{Answer, Repository, Server, ranged};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// A place for models, and the server that they come from.
struct World {
    models: TempDir,
    server: Server,
}

impl World {
    fn new(repository: Repository) -> Self {
        Self { models: TempDir::new().unwrap(), server: Server::new(repository) }
    }

    fn excite(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_excite"))
            .args(args)
            .env("EXCITE_MODELS", self.models.path())
            .env("HF_ENDPOINT", self.server.address())
            .env("HF_HOME", self.models.path().join(".none"))
            .env_remove("HF_TOKEN")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn pull(&self, args: &[&str]) -> Output {
        self.excite(&[&["model", "pull", "owner/name"], args].concat())
    }

    fn file(&self, path: &str) -> PathBuf {
        self.models.path().join("name").join(path)
    }
}

fn emoji() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji"))
}

/// The bundled model as a repository, with what repositories have besides.
fn repository() -> Repository {
    let mut files = vec![
        ("README.md".to_owned(), b"a card".to_vec()),
        ("unet/diffusion_pytorch_model.bin".to_owned(), b"a pickle".to_vec()),
    ];
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(emoji().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.to_str().unwrap().to_owned();
                    files.push((name, std::fs::read(entry.path()).unwrap()));
                }
            }
        }
    }
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    Repository::of(&files)
}

#[track_caller]
fn succeeded(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?}\n{stdout}\n{stderr}", output.status);
    (stdout, stderr)
}

#[track_caller]
fn failed(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn objects(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_model_is_fetched_listed_checked_and_used() {
    let world = World::new(repository());
    let (stdout, stderr) = succeeded(&world.pull(&["--json"]));
    let pulled = &objects(&stdout)[0];
    assert_eq!((&pulled["name"], &pulled["licence"]), (&"name".into(), &"mit".into()));
    assert!(stderr.contains("licence: mit"), "{stderr}");
    assert!(world.file(UNET).is_file());
    for unneeded in ["README.md", "unet/diffusion_pytorch_model.bin"] {
        assert!(!world.file(unneeded).exists(), "{unneeded}");
        assert!(world.server.requests(unneeded).is_empty(), "{unneeded}");
    }

    let (stdout, _) = succeeded(&world.excite(&["model", "list"]));
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("emoji") && lines[0].contains("part of the program"), "{stdout}");
    assert!(lines[1].starts_with("name ") && lines[1].contains("owner/name@0123456789"));
    assert_eq!(lines.len(), 2, "{stdout}");

    let (stdout, _) = succeeded(&world.excite(&["model", "show", "name", "--json"]));
    let shown = &objects(&stdout)[0];
    assert_eq!((&shown["family"], &shown["side"]), (&"SD 1.x".into(), &128.into()));
    assert_eq!((&shown["map_side"], &shown["licence"]), (&16.into(), &"mit".into()));

    let (stdout, _) = succeeded(&world.excite(&["model", "check", "name"]));
    assert!(stdout.contains("files are as they were fetched"), "{stdout}");
    assert!(stdout.contains("tensors  all there, none left over"), "{stdout}");
    assert!(stdout.contains("4.2 million weights, F16"), "{stdout}");

    // The same numbers as the bundled model under another name.
    let out = TempDir::new().unwrap();
    let image = |model: &str, name: &str| {
        let path = out.path().join(name);
        let folder = path.to_str().unwrap();
        let args = ["generate", "a cat", "--steps", "2", "--model", model, "--out", folder];
        succeeded(&world.excite(&args));
        let decoder = png::Decoder::new(std::io::BufReader::new(
            std::fs::File::open(path.join("a-cat-0.png")).unwrap(),
        ));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    };
    assert_eq!(image("name", "fetched"), image("emoji", "bundled"));

    // Again: nothing is fetched twice.
    let before = world.server.requests(UNET).len();
    succeeded(&world.pull(&[]));
    assert_eq!(world.server.requests(UNET).len(), before);
}

#[test]
fn damage_is_found_and_mended() {
    let world = World::new(repository());
    succeeded(&world.pull(&[]));
    let bytes = std::fs::read(world.file(UNET)).unwrap();
    let mut wrong = bytes.clone();
    *wrong.last_mut().unwrap() ^= 1;
    std::fs::write(world.file(UNET), &wrong).unwrap();
    let stderr = failed(&world.excite(&["model", "check", "name"]), 1);
    assert!(stderr.contains(UNET) && stderr.contains("excite model pull owner/name"), "{stderr}");
    std::fs::write(world.file(UNET), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::remove_file(world.file("vae/config.json")).unwrap();
    let stderr = failed(&world.excite(&["model", "check", "name"]), 1);
    assert!(stderr.contains("vae/config.json: missing"), "{stderr}");
    succeeded(&world.pull(&[]));
    succeeded(&world.excite(&["model", "check", "name"]));
}

#[test]
fn a_cut_download_goes_on() {
    let size = std::fs::metadata(emoji().join(UNET)).unwrap().len() as usize;
    let bytes = std::fs::read(emoji().join(UNET)).unwrap();
    let cut = repository().rule("diffusion_pytorch_model.safetensors", move |request, before| {
        let whole = request.target.contains("unet/") && before == 0;
        whole.then(|| ranged(&bytes, request).cut(size / 3))
    });
    let world = World::new(cut);
    succeeded(&world.pull(&[]));
    let requests = world.server.requests(UNET);
    assert_eq!(requests.len(), 2);
    assert!(requests[1].from().is_some_and(|from| from > 0 && from <= size / 3));
    succeeded(&world.excite(&["model", "check", "name"]));
}

#[test]
fn what_cannot_be_fetched_says_what_to_do() {
    let world = World::new(repository().rule("/api/models/", |request, _| {
        request
            .target
            .contains("gated")
            .then(|| Answer::new(403, "").with("X-Error-Code", "GatedRepo"))
    }));
    let pull = |args: &[&str]| world.excite(&[&["model", "pull"], args].concat());
    let stderr = failed(&pull(&["owner/other"]), 1);
    assert!(stderr.contains("owner/other"), "{stderr}");
    let stderr = failed(&pull(&["owner/gated"]), 1);
    assert!(stderr.contains("HF_TOKEN"), "{stderr}");
    for bad in ["name", "../x/y", "owner/name/more"] {
        failed(&pull(&[bad]), 1);
    }
    let stderr = failed(&world.pull(&["--name", "../escape"]), 2);
    assert!(stderr.contains("`--name` is `../escape`"), "{stderr}");
    let stderr = failed(&world.pull(&["--name", "emoji"]), 2);
    assert!(stderr.contains("bundled"), "{stderr}");
    let stderr = failed(&world.pull(&["--file", "nothing.safetensors"]), 1);
    assert!(stderr.contains("nothing.safetensors"), "{stderr}");
    assert!(std::fs::read_dir(world.models.path()).unwrap().next().is_none());
    let stderr = failed(&world.excite(&["generate", "a cat", "--model", "name"]), 1);
    assert!(stderr.contains("excite model list"), "{stderr}");
}

#[test]
fn a_repository_of_another_family_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let index = folder.path().join("model_index.json");
    let path = folder.path().to_str().unwrap();
    let world = World::new(Repository::default());
    for class in ["FluxPipeline", "StableDiffusion3Pipeline"] {
        std::fs::write(&index, format!("{{\"_class_name\": \"{class}\"}}")).unwrap();
        for command in [["model", "show"], ["model", "check"]] {
            let stderr = failed(&world.excite(&[command[0], command[1], path]), 1);
            assert!(stderr.contains(class), "{stderr}");
            assert!(stderr.contains("StableDiffusionXLPipeline"), "{stderr}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn the_bundled_model_is_proven_and_another_is_not_taken_for_it() {
    let world = World::new(Repository::default());
    // The other five are tested where the pipeline is.
    let cases = &["--case", "plain_ddim", "--case", "guided_short"][..];
    let (stdout, _) = succeeded(&world.excite(&[&["parity", "--json"], cases].concat()));
    let objects = objects(&stdout);
    let replayed: Vec<&Value> = objects.iter().filter(|o| o["case"].is_string()).collect();
    let names: Vec<&Value> = replayed.iter().map(|case| &case["case"]).collect();
    assert_eq!(names, ["plain_ddim", "guided_short"], "{stdout}");
    assert!(replayed.iter().all(|case| case["agrees"] == true), "{stdout}");
    assert_eq!(objects.last().unwrap()["verdict"], "agrees");

    let other = TempDir::new().unwrap();
    copy(&emoji(), other.path());
    let config = other.path().join("scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"steps_offset\": 1", "\"steps_offset\": 0")).unwrap();
    let (stdout, _) = succeeded(&world.excite(&["parity", other.path().to_str().unwrap()]));
    assert!(stdout.contains("verdict  not compared: no trace was published"), "{stdout}");
    let args = [&["parity", other.path().to_str().unwrap()], cases].concat();
    assert!(failed(&world.excite(&args), 2).contains("`--case`"));
}
