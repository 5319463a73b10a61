//! Real small PNGs and JPEGs in a folder.

use excite_diffusion::picture::Picture;
use excite_jobs::{
    AttendAndExcite, Attention, Method, Noise, SchedulerName, Sidecar, Spec, StepLine, Try, VERSION,
};
use excite_prompt::Subject as Word;

use super::read::sha256_of;
use super::*;

const RED: [u8; 3] = [200, 30, 30];

fn spec(prompt: &str, seed: u32, guided: bool) -> Spec {
    let method =
        if guided { Method::AttendAndExcite(AttendAndExcite::official()) } else { Method::None };
    Spec {
        prompt: prompt.into(),
        negative_prompt: String::new(),
        subjects: vec![Word { word: "frog".into(), indices: vec![2] }],
        seed,
        noise: Noise::TorchCpu,
        width: 8,
        height: 4,
        steps: 50,
        guidance_scale: 7.5,
        scheduler: SchedulerName::Pndm,
        method,
        model: "emoji@0".into(),
        engine: 1,
    }
}

fn sidecar(spec: Spec, png: &[u8]) -> Sidecar {
    Sidecar {
        v: VERSION,
        sha256: sha256_of(png),
        kind: "cpu".into(),
        seconds: 2.5,
        custom_id: None,
        labels: BTreeMap::from([("run".into(), "1".into())]),
        spec,
        tries: Vec::new(),
        adopted: false,
        attention: Default::default(),
        steps: Vec::new(),
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// A PNG that is unlike those of other names.
    fn png(&self, name: &str) -> Vec<u8> {
        let mut picture = Picture::filled(8, 4, RED);
        name.bytes().zip(0..).for_each(|(byte, x)| picture.set(x % 8, x / 8, [byte, 0, 0]));
        let png = picture.to_png(&[]).unwrap();
        self.write(name, &png);
        png
    }

    fn json(&self, name: &str, sidecar: &Sidecar) {
        self.write(name, &serde_json::to_vec(sidecar).unwrap());
    }

    fn made(&self, stem: &str, spec: Spec) -> Vec<u8> {
        let png = self.png(&format!("{stem}.png"));
        self.json(&format!("{stem}.json"), &sidecar(spec, &png));
        png
    }

    fn find(&self) -> Found {
        find(self.root(), None, None).unwrap()
    }
}

fn told(found: &Found) -> Vec<String> {
    found.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_layout_of_the_paper_is_a_folder_a_prompt() {
    let folder = Folder::new();
    let third = "a cat and a dog/lion.png";
    for name in ["a cat and a dog/10.png", "a cat and a dog/9.png", third, "a red thing/0.png"] {
        folder.png(name);
    }
    let mut jpeg = Vec::new();
    image::RgbImage::from_pixel(8, 8, image::Rgb(RED))
        .write_to(&mut std::io::Cursor::new(&mut jpeg), image::ImageFormat::Jpeg)
        .unwrap();
    folder.write("a red thing/last.JPG", &jpeg);
    folder.write("a red thing/first.jpeg", &jpeg);
    folder.write("a red thing/notes.txt", b"no image");
    let found = find(folder.root(), None, Some("mine")).unwrap();
    assert_eq!(found.problems, []);
    let seen: Vec<_> = found.entries.iter().map(|e| (e.name.as_str(), e.seed)).collect();
    #[rustfmt::skip]
    assert_eq!(seen, [
        ("a cat and a dog/lion.png", None),
        ("a cat and a dog/9.png", Some(9)), ("a cat and a dog/10.png", Some(10)),
        ("a red thing/first.jpeg", None), ("a red thing/last.JPG", None),
        ("a red thing/0.png", Some(0)),
    ]);
    let first = &found.entries[1];
    assert_eq!((first.prompt.as_str(), first.method.as_str()), ("a cat and a dog", "mine"));
    assert_eq!(first.subset.as_deref(), Some("animals"));
    let words: Vec<_> = first.subjects.iter().map(|s| (s.word.as_str(), &s.colour)).collect();
    assert_eq!(words, [("cat", &None), ("dog", &None)]);
    assert_eq!((first.seconds, first.tries, &first.attended), (None, 1, &None));
    assert_eq!((&found.entries[4].subset, found.entries[4].subjects.len()), (&None, 0));
    let read = read(&found.entries[4].path).unwrap();
    assert_eq!((read.picture.width(), read.picture.height()), (8, 8));
    assert!(read.picture.get(4, 4)[0] > 180 && read.picture.get(4, 4)[1] < 50, "red");
    assert_eq!(read.sha256, found.entries[4].sha256);

    let named = found.entries.iter().all(|e| e.method == "mine");
    let root = folder.root().file_name().unwrap().to_string_lossy().into_owned();
    assert!(named && folder.find().entries.iter().all(|e| e.method == root));
}

#[test]
fn a_level_above_are_methods() {
    let folder = Folder::new();
    for method in ["plain", "guided"] {
        for prompt in ["a lion with a crown", "a cat and a blue backpack"] {
            folder.png(&format!("{method}/{prompt}/0.png"));
        }
    }
    // What the folder says is stronger: it may hold a variant of a method.
    folder.made("guided/a lion with a crown/1", spec("a lion with a crown", 1, false));
    folder.png("guided/a cat and a blue backpack/1.png");
    let found = folder.find();
    assert_eq!(found.problems, []);
    let seen: Vec<_> = found.entries.iter().map(|e| (&*e.method, &*e.prompt, e.seed)).collect();
    #[rustfmt::skip]
    assert_eq!(seen, [
        ("guided", "a cat and a blue backpack", Some(0)),
        ("guided", "a cat and a blue backpack", Some(1)),
        ("guided", "a lion with a crown", Some(0)), ("guided", "a lion with a crown", Some(1)),
        ("plain", "a cat and a blue backpack", Some(0)),
        ("plain", "a lion with a crown", Some(0)),
    ]);
    assert_eq!(found.entries[0].subjects[1].colour.as_deref(), Some("blue"));
    assert_eq!(found.entries[0].subset.as_deref(), Some("animals_objects"));
}

#[test]
fn a_sidecar_says_what_its_image_is() {
    let folder = Folder::new();
    folder.made("a-frog-3", spec("a frog, alone", 3, true));
    let plain = folder.png("a-frog-3-none.png");
    let steps = (0..21).map(|step| StepLine {
        timestep: 0.,
        step_size: None,
        loss: None,
        // What was not known at a step is not a score.
        scores: vec![Some(0.5), (step != 10).then_some(0.25)],
        refinements: 0,
    });
    let scores = vec![Some(0.75), Some(0.5)];
    let attention = Attention { measured_at_step: 24, scores, ..Attention::default() };
    let png = std::fs::read(folder.root().join("a-frog-3.png")).unwrap();
    let watched = Sidecar {
        steps: steps.collect(),
        attention,
        ..sidecar(spec("a frog, alone", 3, true), &png)
    };
    folder.json("a-frog-3.json", &watched);
    let plain = Sidecar { seconds: 1.5, ..sidecar(spec("a frog, alone", 3, false), &plain) };
    folder.json("a-frog-3-none.json", &plain);
    let png = folder.png("a-frog-4.png");
    let tries = [(4, 0.1), (77, 0.6)].map(|(seed, score)| Try { seed, score: Some(score) });
    let tried = Sidecar { tries: tries.to_vec(), ..sidecar(spec("a frog, alone", 77, true), &png) };
    folder.json("a-frog-4.json", &tried);
    folder.png("a-frog-compare.png");
    folder.png("a-frog-3-attention-2.png");
    folder.write("summary.json", b"{}");
    let found = folder.find();
    assert_eq!(found.problems, []);
    let seen: Vec<_> = found.entries.iter().map(|e| (&*e.method, e.seed, e.tries)).collect();
    #[rustfmt::skip]
    assert_eq!(seen, [
        ("attend_and_excite", Some(3), 1),
        ("attend_and_excite+accept", Some(4), 2), // the first of the tries, not the kept one
        ("none", Some(3), 1),
    ]);
    let first = &found.entries[0];
    assert_eq!(
        (first.seconds, first.labels["run"].as_str(), &found.entries[1].attended),
        (Some(2.5), "1", &None)
    );
    let attended = Attended { judged: 0.5, steps: [(0, 0.25), (20, 0.25)].into() };
    assert_eq!(first.attended, Some(attended));
    assert_eq!((&*first.prompt, &*first.subjects[0].word), ("a frog, alone", "frog"));
}

#[test]
fn without_sidecars_the_text_in_the_image_tells() {
    let folder = Folder::new();
    for (name, guided) in [("0.png", true), ("0-none.png", false)] {
        let png = Picture::filled(8, 4, RED).to_png_of(&spec("is it? a frog", 0, guided)).unwrap();
        folder.write(&format!("is it- a frog/{name}"), &png);
    }
    folder.write("is it- a frog/0.json", b"{");
    let found = folder.find();
    assert!(matches!(&found.problems[..], [Problem::Sidecar { .. }]), "{:?}", found.problems);
    let seen: Vec<_> = found.entries.iter().map(|e| (&*e.method, &*e.prompt, e.seed)).collect();
    let prompt = "is it? a frog";
    assert_eq!(seen, [("attend_and_excite", prompt, Some(0)), ("none", prompt, Some(0))]);
    assert!(found.entries.iter().all(|entry| entry.attended.is_none()));
}

#[test]
fn what_is_missing_or_broken_is_told_and_stops_nothing() {
    let folder = Folder::new();
    let png = folder.made("good", spec("a frog", 1, true));
    folder.json("gone.json", &sidecar(spec("a frog", 2, true), &png));
    folder.write("not.png", b"GIF89a");
    folder.write("none.png", b"");
    folder.png("other.png");
    folder.json("other.json", &sidecar(spec("a frog", 4, true), &png));
    folder.png("unread.png");
    folder.write("unread.json", b"{");
    let later = Sidecar { v: 9, ..sidecar(spec("a frog", 5, true), &folder.png("later.png")) };
    folder.json("later.json", &later);
    folder.made("same", spec("a frog", 1, true));
    folder.made("another", spec("a cat", 1, true));
    folder.made("another-2", spec("a cat", 2, true));
    let found = folder.find();
    let names: Vec<_> = found.entries.iter().map(|e| &*e.name).collect();
    assert_eq!(names, ["another.png", "another-2.png", "good.png"]);
    let told = told(&found);
    for start in [
        "`later.json` is not used: it is of version 9",
        "`later.png` is left out: no JSON beside it",
        "`none.png` is left out: ",
        "`not.png` is left out: ",
        "`other.json` is not used: it is of another image",
        "`other.png` is left out: no JSON",
        "`unread.json` is not used: EOF",
        "`unread.png` is left out: no JSON",
        "`gone.json` has no image beside it",
        "`same.png` is left out: `good.png` is of the same",
        "the prompts of `attend_and_excite` have unequally many images: 1 have 2, 1 have 1",
    ] {
        assert_eq!(
            told.iter().filter(|told| told.starts_with(start)).count(),
            1,
            "{start}: {told:#?}"
        );
    }
    assert_eq!(told.len(), 11, "{told:#?}");
}

#[test]
fn times_that_were_shared_are_told() {
    let folder = Folder::new();
    for seed in 0..2 {
        folder.made(&format!("{seed}"), spec("a frog", seed, true));
        folder.made(&format!("{seed}-none"), spec("a frog", seed, false));
    }
    let found = folder.find();
    let start = "2 images of `attend_and_excite` and `none` were made together";
    assert!(told(&found)[0].starts_with(start) && found.problems.len() == 1, "{:?}", told(&found));
}

#[test]
fn damage_further_on_shows_when_it_is_read() {
    let folder = Folder::new();
    let png = folder.png("a/0.png");
    folder.write("a/0.png", &png[..png.len() - 30]);
    folder.write("b/notes.txt", b"");
    let found = folder.find();
    assert_eq!(told(&found), ["`b` has no images"]);
    let error = read(&found.entries[0].path).unwrap_err();
    assert!(matches!(error, ImagesError::Decode { .. }), "{error}");
    let missing = read(&folder.root().join("c.png")).unwrap_err();
    assert!(matches!(missing, ImagesError::Io { .. }), "{missing}");
}

#[test]
fn too_large_an_image_is_not_decoded() {
    let folder = Folder::new();
    let wide = Picture::filled(20_000, 1, RED).to_png(&[]).unwrap();
    folder.write("a/0.png", &wide);
    let found = folder.find();
    assert!(matches!(&found.problems[..], [Problem::Broken { .. }]), "{:?}", found.problems);
    assert!(read(&folder.root().join("a/0.png")).is_err());
}

#[test]
fn nothing_to_evaluate_is_an_error_that_says_what_is_expected() {
    let folder = Folder::new();
    let error = find(folder.root(), None, None).unwrap_err();
    assert!(matches!(error, ImagesError::Nothing { .. }), "{error}");
    let error = find(&folder.root().join("gone"), None, None).unwrap_err();
    assert!(matches!(error, ImagesError::Io { .. }), "{error}");
}

#[test]
fn transparency_is_dropped_and_grey_has_three_channels() {
    let folder = Folder::new();
    let path = folder.root().join("a.png");
    image::RgbaImage::from_pixel(2, 2, image::Rgba([9, 8, 7, 0])).save(&path).unwrap();
    assert_eq!(read(&path).unwrap().picture.get(0, 0), [9, 8, 7]);
    image::GrayImage::from_pixel(2, 2, image::Luma([5])).save(&path).unwrap();
    assert_eq!(read(&path).unwrap().picture.get(1, 1), [5, 5, 5]);
}
