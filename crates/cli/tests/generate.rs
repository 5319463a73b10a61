//! `excite generate` and `excite explain` as a user runs them: files, texts and exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const PROMPT: &str = "a cat and a frog";

fn excite(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_excite")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// `generate` of two steps into `out`.
fn generate(out: &Path, args: &[&str]) -> Output {
    let mut all = vec!["generate", "--steps", "2", "--out", out.to_str().unwrap()];
    all.extend(args);
    excite(&all)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> (String, String) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?}\n{stdout}\n{stderr}", output.status);
    (stdout, stderr)
}

/// Exit code and stderr of a command that must fail.
#[track_caller]
fn failed(output: &Output, code: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn objects(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn folder() -> TempDir {
    TempDir::new().unwrap()
}

#[test]
fn an_image_comes_with_its_sidecar_and_is_made_once() {
    let out = folder();
    let args = [PROMPT, "--seeds", "3,5"];
    let (stdout, stderr) = succeeded(&generate(out.path(), &args));
    assert!(stderr.contains("subjects found: cat, frog"), "{stderr}");
    assert!(stdout.lines().all(|line| line.contains("weakest subject: ")), "{stdout}");
    let names = [
        "a-cat-and-a-frog-3.json",
        "a-cat-and-a-frog-3.png",
        "a-cat-and-a-frog-5.json",
        "a-cat-and-a-frog-5.png",
    ];
    assert_eq!(files(out.path()), names);
    let before = std::fs::metadata(out.path().join(names[1])).unwrap().modified().unwrap();

    // One is lost: the rerun makes that one, with the same bytes.
    let image = out.path().join(names[3]);
    let bytes = std::fs::read(&image).unwrap();
    std::fs::remove_file(&image).unwrap();
    let (stdout, stderr) = succeeded(&generate(out.path(), &args));
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(stderr.contains("1 image was there already"), "{stderr}");
    assert!(std::fs::read(&image).unwrap() == bytes);
    let after = std::fs::metadata(out.path().join(names[1])).unwrap().modified().unwrap();
    assert_eq!(before, after);

    // Other settings under the same name are refused before anything is made.
    let other = generate(out.path(), &[PROMPT, "--seeds", "3,5", "--guidance-scale", "3"]);
    let stderr = failed(&other, 2);
    assert!(stderr.contains("`guidance_scale` is 7.5 there, 3.0 here"), "{stderr}");
    assert!(std::fs::read(&image).unwrap() == bytes);
    let overwrite = ["--overwrite", PROMPT, "--seeds", "3,5", "--guidance-scale", "3"];
    succeeded(&generate(out.path(), &overwrite));
    assert!(std::fs::read(&image).unwrap() != bytes);
}

#[test]
fn the_number_of_threads_and_the_batch_change_no_byte() {
    let (one, two) = (folder(), folder());
    let args = [PROMPT, "--seeds", "0..3"];
    succeeded(&generate(
        one.path(),
        &[&args[..], &["--threads", "1", "--batch-size", "1"]].concat(),
    ));
    succeeded(&generate(
        two.path(),
        &[&args[..], &["--threads", "2", "--batch-size", "3"]].concat(),
    ));
    for seed in 0..3 {
        let name = format!("a-cat-and-a-frog-{seed}.png");
        let [a, b] = [&one, &two].map(|out| std::fs::read(out.path().join(&name)).unwrap());
        assert!(a == b, "{name}");
    }
}

#[test]
fn a_file_of_jobs_is_made_line_by_line() {
    let out = folder();
    let jobs = out.path().join("jobs.jsonl");
    let lines = [
        r#"{"prompt": "a cat and a frog", "custom_id": "first", "labels": {"set": "x"}}"#,
        "",
        r#"{"prompt": "a dog with a crown", "seeds": "0..2", "subjects": ["dog"], "method_params": {"preset": "paper"}}"#,
        r#"{"prompt": "abstract mood", "steps": 1}"#,
    ];
    std::fs::write(&jobs, lines.join("\n")).unwrap();
    let images = out.path().join("images");
    let (stdout, stderr) =
        succeeded(&generate(&images, &["--file", jobs.to_str().unwrap(), "--json"]));
    assert!(stderr.contains("line 4: no subject was found"), "{stderr}");
    let objects = objects(&stdout);
    assert_eq!(objects.len(), 5, "{stdout}");
    let summary = &objects[4]["summary"];
    assert_eq!(summary["made"], 4);
    assert!(summary["first_step_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{summary}");
    let by_name = |name: &str| {
        objects.iter().find(|o| o["path"].as_str().is_some_and(|p| p.ends_with(name))).unwrap()
    };
    let first = by_name("first.png");
    assert_eq!((&first["labels"]["set"], &first["custom_id"]), (&"x".into(), &"first".into()));
    assert_eq!(by_name("a-dog-with-a-crown-1.png")["subjects"][0]["word"], "dog");
    let plain = by_name("abstract-mood-0-none.png");
    assert_eq!(
        (&plain["loss"], &plain["warnings"][0]["code"]),
        (&Value::Null, &"no_subjects".into())
    );
    let sidecar: Value =
        serde_json::from_slice(&std::fs::read(images.join("a-dog-with-a-crown-1.json")).unwrap())
            .unwrap();
    assert_eq!(sidecar["spec"]["method_params"]["refinement"], "paper");
    assert_eq!(sidecar["steps"].as_array().unwrap().len(), 3);
}

/// The same image is made once; other images of one name get names of their own.
/// The image of the seed that is kept is the one that this seed gives when it is asked for.
#[test]
fn further_seeds_are_tried_and_the_best_is_kept() {
    let out = folder();
    let small = ["--size", "64", "--scheduler", "euler", "--json"];
    let accept = ["--min-score", "1", "--max-seeds", "3"];
    let run = |folder: &str, more: &[&str]| {
        let args = [&[PROMPT][..], &small, more].concat();
        let (stdout, _) = succeeded(&generate(&out.path().join(folder), &args));
        objects(&stdout).remove(0)
    };
    let made = run("tried", &accept);
    let tries = made["tries"].as_array().unwrap();
    let score = |one: &Value| one["score"].as_f64().unwrap();
    let best = tries.iter().map(score).reduce(f64::max).unwrap();
    let kept = tries.iter().find(|one| score(one) == best).unwrap();
    assert_eq!((tries.len(), &tries[0]["seed"], &made["seed"]), (3, &0.into(), &kept["seed"]));
    let seed = kept["seed"].to_string();
    let alone = run("alone", &["--seeds", &seed]);
    assert_eq!(made["sha256"], alone["sha256"], "seed {seed}");
    assert_eq!(run("tried", &accept)["status"], "skipped", "a rerun finds it");
    let other = [&[PROMPT][..], &small, &["--min-score", "0.9"]].concat();
    let stderr = failed(&generate(&out.path().join("tried"), &other), 2);
    assert!(stderr.contains("another `accept`") || stderr.contains("`seed`"), "{stderr}");
}

#[test]
fn names_are_not_shared() {
    let out = folder();
    let jobs = out.path().join("jobs.jsonl");
    let lines = [
        r#"{"prompt": "a cat"}"#,
        r#"{"prompt": "a cat", "guidance_scale": 2}"#,
        r#"{"prompt": "a cat", "labels": {"again": "yes"}}"#,
    ];
    std::fs::write(&jobs, lines.join("\n")).unwrap();
    let images = out.path().join("images");
    for _ in 0..2 {
        succeeded(&generate(&images, &["--file", jobs.to_str().unwrap()]));
        assert_eq!(
            files(&images),
            ["a-cat-0-2.json", "a-cat-0-2.png", "a-cat-0.json", "a-cat-0.png"]
        );
    }
}

#[test]
fn prompts_come_from_standard_input_too() {
    let out = folder();
    let mut child = Command::new(env!("CARGO_BIN_EXE_excite"))
        .args(["generate", "--steps", "1", "--file", "-", "--out", out.path().to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"a cat\n{\"prompt\": \"a dog\", \"seed\": 4}\n")
        .unwrap();
    succeeded(&child.wait_with_output().unwrap());
    assert_eq!(files(out.path()), ["a-cat-0.json", "a-cat-0.png", "a-dog-4.json", "a-dog-4.png"]);
}

#[test]
fn a_table_is_a_file_of_jobs() {
    let out = folder();
    let table = out.path().join("set.csv");
    std::fs::write(&table, "prompt,subjects,seed\na cat and a frog,frog,7\n\"a dog, asleep\",,\n")
        .unwrap();
    let images = out.path().join("images");
    let path = table.to_str().unwrap();
    succeeded(&generate(&images, &["--file", path]));
    let want = ["a-cat-and-a-frog-7.json", "a-cat-and-a-frog-7.png"];
    assert_eq!(files(&images)[..2], want);
    assert_eq!(files(&images).len(), 4);
    let sidecar = std::fs::read(images.join(want[0])).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!(sidecar["spec"]["subjects"][0]["word"], "frog");
    std::fs::write(&table, "prompt,seed\na cat,1\na dog,x\n").unwrap();
    let stderr = failed(&generate(&images, &["--file", path]), 2);
    assert!(stderr.contains("line 3: ") && stderr.contains("seed"), "{stderr}");
    std::fs::write(&table, "text\na cat\n").unwrap();
    let stderr = failed(&generate(&images, &["--file", path]), 2);
    assert!(stderr.contains("`text`") && stderr.contains("labels.NAME"), "{stderr}");
}

#[test]
fn methods_are_compared_on_one_sheet() {
    let out = folder();
    let methods = "none,composable,structure,syngen,attend_and_excite";
    let prompt = "a cat and a red car";
    let args = ["--compare", methods, prompt];
    let (stdout, stderr) = succeeded(&generate(out.path(), &args));
    assert!(stdout.contains("a-cat-and-a-red-car-compare.png  contact sheet"), "{stdout}");
    assert!(!stderr.contains("warning"), "{stderr}");
    let stem = "a-cat-and-a-red-car";
    let mut want = vec![format!("{stem}-compare.png")];
    for method in ["", "-composable", "-none", "-structure", "-syngen"] {
        want.extend([".json", ".png"].map(|ending| format!("{stem}-0{method}{ending}")));
    }
    want.sort();
    assert_eq!(files(out.path()), want);
    // A prompt behind the option is a prompt.
    let args = ["--compare", prompt];
    succeeded(&generate(folder().path(), &args));
    let stderr = failed(&generate(out.path(), &[prompt, "--compare", "none,composed"]), 2);
    assert!(stderr.contains("`composed` is no method"), "{stderr}");
}

#[test]
fn comparison_heat_maps_and_trace_are_drawn() {
    let out = folder();
    let args = [PROMPT, "--compare", "--attention"];
    let (stdout, _) = succeeded(&generate(out.path(), &args));
    assert!(stdout.contains("a-cat-and-a-frog-compare.png  contact sheet"), "{stdout}");
    let mut want = vec!["a-cat-and-a-frog-compare.png".to_owned()];
    for stem in ["a-cat-and-a-frog-0", "a-cat-and-a-frog-0-none"] {
        let endings = ["-attention.png", "-steps.png", ".json", ".png"];
        want.extend(endings.map(|ending| format!("{stem}{ending}")));
    }
    want.sort();
    assert_eq!(files(out.path()), want);
    // The sheet is drawn again from what is there, with its losses.
    let sheet = out.path().join("a-cat-and-a-frog-compare.png");
    let before = std::fs::read(&sheet).unwrap();
    std::fs::remove_file(&sheet).unwrap();
    succeeded(&generate(out.path(), &args));
    assert!(std::fs::read(&sheet).unwrap() == before);

    let trace = out.path().join("run.safetensors");
    let trace = trace.to_str().unwrap();
    succeeded(&generate(out.path(), &[PROMPT, "--trace", trace]));
    let (from_trace, _) = succeeded(&excite(&["explain", trace, "--json"]));
    let image = out.path().join("a-cat-and-a-frog-0.png");
    let (from_image, _) = succeeded(&excite(&["explain", image.to_str().unwrap(), "--json"]));
    assert_eq!(from_trace, from_image);
    let stderr = failed(&generate(out.path(), &[PROMPT, "--seeds", "0..2", "--trace", trace]), 2);
    assert!(stderr.contains("--trace takes one image, these are 2"), "{stderr}");
}

#[test]
fn an_image_is_explained_with_and_without_its_sidecar() {
    let out = folder();
    succeeded(&generate(out.path(), &[PROMPT]));
    let image = out.path().join("a-cat-and-a-frog-0.png");
    let image = image.to_str().unwrap();
    let (with, _) = succeeded(&excite(&["explain", image]));
    assert!(with.contains("weakest: cat at ") && with.contains("guided at 3 steps"), "{with}");
    let chart = out.path().join("chart.png");
    std::fs::remove_file(out.path().join("a-cat-and-a-frog-0.json")).unwrap();
    let (without, stderr) =
        succeeded(&excite(&["explain", image, "--chart", chart.to_str().unwrap()]));
    assert_eq!(with, without);
    assert!(stderr.contains("the same pixels came out"), "{stderr}");
    assert!(chart.exists());
}

#[test]
fn what_cannot_be_explained_is_said() {
    let out = folder();
    let broken = out.path().join("broken.png");
    std::fs::write(&broken, b"no png").unwrap();
    let stderr = failed(&excite(&["explain", broken.to_str().unwrap()]), 1);
    assert!(stderr.contains("broken.png"), "{stderr}");
    let stderr = failed(&excite(&["explain", "nowhere.png"]), 1);
    assert!(stderr.contains("cannot read nowhere.png"), "{stderr}");
    succeeded(&generate(out.path(), &["abstract mood"]));
    let plain = out.path().join("abstract-mood-0-none.png");
    let stderr = failed(&excite(&["explain", plain.to_str().unwrap()]), 1);
    assert!(stderr.contains("has no subjects"), "{stderr}");
}

#[test]
fn wrong_usage_says_what_to_do_and_makes_nothing() {
    let parent = folder();
    let out = parent.path().join("out");
    let jobs = parent.path().join("jobs.jsonl");
    std::fs::write(&jobs, "{\"prompt\": \"a cat\"}\n{\"promt\": \"a cat\"}\n{\"prompt\": \"\"}\n")
        .unwrap();
    let jobs = jobs.to_str().unwrap();
    #[rustfmt::skip]
    let table: [(&[&str], &[&str]); 21] = [
        (&[],                                          &["no prompt was given", "--file"]),
        (&[""],                                        &["`prompt` is empty", "Say what"]),
        (&[PROMPT, "--subjects", "dog"],               &["subject `dog` is not a word", "2 cat"]),
        (&[PROMPT, "--size", "100"],                   &["not a multiple of 16", "96 or 112"]),
        (&[PROMPT, "--size", "big"],                   &["128x192"]),
        (&[PROMPT, "--size", "8"],                     &["`width` is 8", "from 16 up to 2048"]),
        (&[PROMPT, "--scheduler", "heun"],             &["heun", "pndm, ddim, euler"]),
        (&[PROMPT, "--noise", "white"],                &["white", "torch_cpu, philox"]),
        (&[PROMPT, "--method", "magic"],               &["magic", "attend_and_excite, composable, none, structure, syngen"]),
        (&[PROMPT, "--method-params", "{"],            &["no JSON object"]),
        (&[PROMPT, "--method-params", "{\"gian\":1}"], &["method_params.gian", "gain"]),
        (&[PROMPT, "--seeds", "4..4"],                 &["range `4..4` is empty", "0..4"]),
        (&[PROMPT, "--seeds", "0..4294967296"],        &["more than"]),
        (&[PROMPT, "--guidance-scale", "nan"],         &["guidance_scale", "1 (off) to 100"]),
        (&[PROMPT, "--batch-size", "0"],               &["`auto`, or 1..=64"]),
        (&[PROMPT, "--batch-size", "65"],              &["'65' for '--batch-size <N>'", "1..=64"]),
        (&[PROMPT, "--threads", "0"],                  &["'0' for '--threads <N>'", "1..=1024"]),
        (&[PROMPT, "--threads", "4294967296"],         &["--threads <N>", "1..=1024"]),
        (&[PROMPT, "--threads", "two"],                &["'two' for '--threads <N>'"]),
        (&["--file", jobs],                            &["line 2: there is no field `promt`", "line 3: `prompt` is empty"]),
        (&[PROMPT, "--no-such-option"],                &["--no-such-option"]),
    ];
    for (args, wanted) in table {
        let stderr = failed(&generate(&out, args), 2);
        for want in wanted {
            assert!(stderr.contains(want), "{args:?}: {want}\n{stderr}");
        }
        assert!(!out.exists(), "{args:?}");
    }
    let steps = failed(&excite(&["generate", PROMPT, "--steps", "0"]), 2);
    assert!(steps.contains("`steps` is 0") && steps.contains("1 to 999"), "{steps}");
}

/// The environment says how to compute, so what it says must be possible.
#[test]
fn variables_that_cannot_be_meant_are_refused_by_name_before_anything_is_made() {
    let parent = folder();
    let out = parent.path().join("out");
    let run = |variable: &str, value: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_excite"));
        command.args(args).env(variable, value).stdin(Stdio::null()).output().unwrap()
    };
    let args = ["generate", PROMPT, "--steps", "1", "--out", out.to_str().unwrap()];
    for (variable, value, wanted) in [
        ("RAYON_NUM_THREADS", "two", "which is no number of threads"),
        ("RAYON_NUM_THREADS", "9999999", "1..=1024"),
        ("EXCITE_INSTRUCTIONS", "sse", "unset it for the best"),
        ("EXCITE_INSTRUCTIONS", "neon 2", "plain"),
    ] {
        for args in [&args[..], &["doctor", "--quick"]] {
            let stderr = failed(&run(variable, value, args), 2);
            let named = format!("{variable} is `{value}`, which");
            assert!(stderr.contains(&named) && stderr.contains(wanted), "{args:?}\n{stderr}");
        }
        assert!(!out.exists());
    }
    // What needs no threads does not care, and a flag goes before the environment.
    succeeded(&run("RAYON_NUM_THREADS", "two", &["model", "list"]));
    succeeded(&run("RAYON_NUM_THREADS", "0", &args));
    std::fs::remove_dir_all(&out).unwrap();
    succeeded(&run("RAYON_NUM_THREADS", "two", &[&args[..], &["--threads", "1"]].concat()));
}

#[test]
fn how_many_are_made_together_may_be_found_out() {
    let (two, auto) = (folder(), folder());
    let args = ["generate", PROMPT, "--seeds", "0..9", "--steps", "3", "--method", "none"];
    let made = |out: &TempDir, size: &str| {
        let out = ["--out", out.path().to_str().unwrap(), "--batch-size", size];
        succeeded(&excite(&[&args[..], &out].concat()))
    };
    made(&two, "2");
    let (_, stderr) = made(&auto, "auto");
    // Eight were measured first, and one was left.
    assert!(stderr.contains("128x128, up to 4 at a time: so many are still to be"), "{stderr}");
    for seed in 0..9 {
        let name = format!("a-cat-and-a-frog-{seed}-none.png");
        let [a, b] = [&two, &auto].map(|out| std::fs::read(out.path().join(&name)).unwrap());
        assert!(a == b, "{name}");
    }
}

#[test]
fn models_and_folders_that_cannot_be_used_are_named() {
    let parent = folder();
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    let stderr = failed(&generate(&file.join("out"), &[PROMPT]), 1);
    assert!(stderr.contains("cannot create the folder"), "{stderr}");
    let stderr = failed(&generate(parent.path(), &[PROMPT, "--model", "nowhere"]), 1);
    assert!(stderr.contains("there is no model `nowhere`"), "{stderr}");
    let stderr =
        failed(&generate(parent.path(), &[PROMPT, "--model", parent.path().to_str().unwrap()]), 1);
    assert!(stderr.contains("model_index.json"), "{stderr}");
    let stderr = failed(&generate(parent.path(), &["--file", "nowhere.txt"]), 1);
    assert!(stderr.contains("cannot read nowhere.txt"), "{stderr}");
    // With --json the error is an object too.
    let output = generate(parent.path(), &[PROMPT, "--model", "nowhere", "--json"]);
    assert_eq!(objects(&text(&output.stdout))[0]["error"]["code"], "model_not_found");
}

#[test]
fn the_bundled_model_is_the_folder_that_ships() {
    let out = folder();
    let model = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji"));
    let (bundled, loaded) = (out.path().join("bundled"), out.path().join("loaded"));
    succeeded(&generate(&bundled, &[PROMPT]));
    succeeded(&generate(&loaded, &[PROMPT, "--model", model.to_str().unwrap()]));
    let [a, b] =
        [bundled, loaded].map(|out| std::fs::read(out.join("a-cat-and-a-frog-0.png")).unwrap());
    assert!(a == b);
}

/// Ctrl-C in the middle of a long run: what is finished stays, the rest is made by a rerun.
#[cfg(unix)]
#[test]
fn an_interrupted_command_keeps_what_is_finished() {
    use std::io::BufRead;
    let out = folder();
    let args = ["generate", PROMPT, "--steps", "3", "--seeds", "0..40", "--batch-size", "2"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_excite"))
        .args(args)
        .args(["--out", out.path().to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let rest = lines.map(Result::unwrap).count();
    let stderr = failed(&child.wait_with_output().unwrap(), 130);
    assert!(stderr.contains("run the command again to go on"), "{stderr}");
    let made = files(out.path());
    assert!(made.len() == 2 * (rest + 1) && rest + 1 < 40, "{rest} {made:?}");
    assert!(made.iter().all(|name| name.ends_with(".png") || name.ends_with(".json")), "{made:?}");
}

/// The help of every command, so that a change of it is seen.
#[test]
fn every_command_has_help_with_an_example() {
    for (args, wanted) in [
        (&["--help"][..], &["generate", "explain"][..]),
        (&["generate", "--help"], &["Examples:", "--seeds", "Exit status"]),
        (&["explain", "--help"], &["Examples:", "--chart"]),
    ] {
        let (stdout, _) = succeeded(&excite(args));
        for want in wanted {
            assert!(stdout.contains(want), "{args:?}: {want}");
        }
    }
    failed(&excite(&[]), 2);
}
