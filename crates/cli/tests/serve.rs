//! `excite serve` as a user runs it: started, killed, started again, stopped.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A running `excite serve`; killed at the end of a test.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_excite"))
            .args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("it did not start: {stderr}");
        }
        let said: Value = serde_json::from_str(&line).unwrap();
        Self { child, url: said["url"].as_str().unwrap().to_owned() }
    }

    /// A command of `excite` on this server; what it prints as JSON.
    fn ask(&self, args: &[&str]) -> Vec<Value> {
        let output = excite(&[args, &["--server", &self.url, "--json"]].concat());
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?}: {stdout}{stderr}");
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn excite(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_excite")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_was_accepted_is_made_however_often_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, prompts) = (folder.path().join("data"), folder.path().join("prompts.txt"));
    std::fs::write(&prompts, "a cat and a frog\n").unwrap();
    let mut serving = Serving::start(&data);
    let submit = ["submit", prompts.to_str().unwrap(), "--seeds", "0..6", "--steps", "8"];
    let submitted = serving.ask(&submit);
    let id = submitted[0]["id"].as_str().unwrap().to_owned();

    // Some images are stored, others not begun.
    let stored = || {
        let batch = data.join("store/batches").join(&id).join("images");
        let files = std::fs::read_dir(batch).map(|files| files.count()).unwrap_or(0);
        files / 2
    };
    while stored() == 0 {
        assert!(serving.child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    serving.signal("-KILL");
    serving.child.wait().unwrap();
    assert!(stored() < 6, "it was killed too late to show anything");

    let mut serving = Serving::start(&data);
    serving.ask(&["batch", "watch", &id]);
    let out = folder.path().join("fetched");
    serving.ask(&["batch", "fetch", &id, "--out", out.to_str().unwrap()]);
    let made = folder.path().join("made");
    let generate = ["generate", "a cat and a frog", "--seeds", "0..6", "--steps", "8", "--out"];
    let generated = excite(&[&generate[..], &[made.to_str().unwrap()]].concat());
    assert!(generated.status.success(), "{}", text(&generated.stderr));
    let images = |folder: &Path| {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let images = files.filter(|path| path.extension().is_some_and(|end| end == "png"));
        let mut images: Vec<Vec<u8>> = images.map(|path| std::fs::read(path).unwrap()).collect();
        images.sort();
        images
    };
    assert_eq!(images(&out).len(), 6);
    assert!(images(&out) == images(&made), "the images are not those of an undisturbed run");

    serving.signal("-INT");
    assert!(serving.child.wait().unwrap().success());
}

#[test]
fn what_is_taken_is_said_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serving = Serving::start(&data);
    let address = serving.url.strip_prefix("http://").unwrap();
    let other = folder.path().join("other");
    let other = other.to_str().unwrap();
    let data = data.to_str().unwrap();
    for (args, status, want) in [
        (["--data", data, "--listen", "127.0.0.1:0"], 1, "another `excite serve` has"),
        (["--data", other, "--listen", address], 1, "--listen 127.0.0.1:0 for a free one"),
        (["--data", other, "--listen", "0.0.0.0:0"], 2, "excite token new"),
    ] {
        let output = excite(&[&["serve"], &args[..]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(want), "{stderr}");
    }
    let tokens = folder.path().join("tokens");
    let tokens = tokens.to_str().unwrap();
    let new = ["token", "new", "--name", "ci", "--file", tokens];
    let made = excite(&new);
    assert!(made.status.success() && text(&made.stdout).starts_with("excite_"));
    let twice = excite(&new);
    assert_eq!(twice.status.code(), Some(2), "{}", text(&twice.stderr));
}

/// The blocks of a language in `docs/api.md`.
fn examples(language: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)).map(str::to_owned).collect()
}

#[test]
fn the_examples_of_the_api_page_do_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(&folder.path().join("data"));
    for (program, language, made) in [
        ("sh", "sh\n", ["prompts.csv", "results.jsonl", "images.zip"]),
        ("python3", "python\n", ["0.png", "1.png", "example"]),
    ] {
        let blocks = examples(language);
        assert_eq!(blocks.len(), 1, "{language}");
        let home = folder.path().join(program);
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("example"), &blocks[0]).unwrap();
        let mut command = Command::new(program);
        // A variable that is not set, or a command that fails, ends a script of `sh`.
        let options = if program == "sh" { &["-eu"][..] } else { &[] };
        command.args(options).arg("example").current_dir(&home).env("EXCITE_SERVER", &serving.url);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program}: {}", text(&output.stderr));
        for file in made {
            assert!(home.join(file).metadata().is_ok_and(|file| file.len() > 0), "{file}");
        }
    }
    let results = std::fs::read_to_string(folder.path().join("sh/results.jsonl")).unwrap();
    let mut names: Vec<String> = results
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["custom_id"].to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["\"ball\"", "\"pair\""]);
}
