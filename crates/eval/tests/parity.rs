//! The models of this crate against transformers: small ones with random weights, and the judge.
//!
//! `tests/peers/eval_models.py` writes the models and what transformers computes with them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use excite_diffusion::picture::Picture;
use excite_eval::blip::Blip;
use excite_eval::clip::{Clip, Embedding, Judge};
use excite_eval::preprocess::{Class, Preprocess};
use serde_json::Value;

/// Largest difference of a coordinate, cosine or logit.
const TOLERANCE: f32 = 1e-4;

fn project() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn data() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"))
}

/// What transformers computed.
struct Expected {
    tensors: HashMap<String, Tensor>,
    words: Value,
}

impl Expected {
    fn load() -> Self {
        let path = data().join("expected.safetensors");
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let words = std::fs::read(data().join("expected.json")).unwrap();
        Self { tensors, words: serde_json::from_slice(&words).unwrap() }
    }

    fn strings(&self, key: &str) -> Vec<String> {
        serde_json::from_value(self.words[key].clone()).unwrap()
    }

    fn rows(&self, key: &str) -> Vec<Vec<f32>> {
        self.tensors[key].to_vec2().unwrap()
    }

    fn pictures(&self) -> Vec<Picture> {
        let of = |i| self.tensors.get(&format!("picture.{i}")).map(picture);
        (0..).map_while(of).collect()
    }
}

/// From `[h, w, 3]` of bytes.
fn picture(bytes: &Tensor) -> Picture {
    let (height, width, _) = bytes.dims3().unwrap();
    let rows: Vec<u8> = bytes.flatten_all().unwrap().to_vec1().unwrap();
    let mut picture = Picture::filled(width as u32, height as u32, [0; 3]);
    for (i, pixel) in rows.chunks(3).enumerate() {
        picture.set((i % width) as u32, (i / width) as u32, pixel.try_into().unwrap());
    }
    picture
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
    assert!(difference < TOLERANCE, "{what} differs by {difference}");
}

fn assert_embeddings(found: &[Embedding], expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_close(found.values(), expected, &format!("{what} {i}"));
    }
}

#[test]
fn pixels_are_those_of_the_image_processors_to_the_bit() {
    let expected = Expected::load();
    let pictures = expected.pictures();
    let folder = tempfile::tempdir().unwrap();
    let processes = expected.words["processes"].as_array().unwrap();
    for (i, process) in processes.iter().enumerate() {
        let config = process["config"].to_string();
        std::fs::write(folder.path().join("preprocessor_config.json"), &config).unwrap();
        let class = if process["class"] == "clip" { Class::Clip } else { Class::Blip };
        let picture = &pictures[process["picture"].as_u64().unwrap() as usize];
        let pixels = Preprocess::load(folder.path(), class).unwrap().pixels(picture).unwrap();
        let wanted = &expected.tensors[&format!("process.{i}")];
        assert_eq!(pixels.dims(), wanted.dims(), "{config}");
        let bits = |t: &Tensor| {
            let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert!(bits(&pixels) == bits(wanted), "{config}");
    }
}

#[test]
fn clip_embeds_as_transformers_does() {
    let expected = Expected::load();
    for name in ["clip", "clip-gelu"] {
        let clip = Clip::load(&data().join(name)).unwrap();
        let images = clip.images(&expected.pictures()).unwrap();
        assert_embeddings(&images, &expected.rows(&format!("{name}.images")), name);
        let texts = clip.texts(&expected.strings("texts")).unwrap();
        assert_embeddings(&texts, &expected.rows(&format!("{name}.texts")), name);
        let scale: Vec<f32> = expected.tensors[&format!("{name}.scale")].to_vec1().unwrap();
        assert_close(&[clip.logit_scale()], &scale, name);
    }
}

#[test]
fn an_embedding_has_the_same_bits_alone_and_in_company() {
    let expected = Expected::load();
    let clip = Clip::load(&data().join("clip")).unwrap();
    let (pictures, texts) = (expected.pictures(), expected.strings("texts"));
    assert_eq!(clip.texts(&[]).unwrap(), []);
    let together = (clip.images(&pictures).unwrap(), clip.texts(&texts).unwrap());
    for (picture, embedding) in pictures.iter().zip(together.0) {
        assert_eq!(clip.images(std::slice::from_ref(picture)).unwrap(), [embedding]);
    }
    for (text, embedding) in texts.iter().zip(together.1) {
        assert_eq!(clip.texts(std::slice::from_ref(text)).unwrap(), [embedding]);
    }
}

#[test]
fn the_judge_sees_what_transformers_sees() {
    let expected = Expected::load();
    let judge = Judge::load(&project().join("models/emoji-clip")).unwrap();
    let golden = |name: &String| {
        let path = project().join(format!("golden/{name}.safetensors"));
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        Picture::from_tensor(&tensors["image"].to_dtype(DType::F32).unwrap()).unwrap()
    };
    let pictures: Vec<Picture> = expected.strings("golden").iter().map(golden).collect();
    let images = judge.clip().images(&pictures).unwrap();
    assert_embeddings(&images, &expected.rows("judge.images"), "judge");
    let phrases = expected.strings("phrases");
    let texts: Vec<String> = phrases
        .iter()
        .flat_map(|p| {
            [p.clone(), format!("a photo of {p}."), format!("a picture of {p}."), format!("{p}.")]
        })
        .collect();
    assert_embeddings(&judge.clip().texts(&texts).unwrap(), &expected.rows("judge.texts"), "judge");
    for (image, logits) in images.iter().zip(expected.rows("judge.logits")) {
        let presence = |p: &String| judge.presence(image, &judge.phrase(p).unwrap());
        let found: Vec<f32> = phrases.iter().map(presence).collect();
        assert_close(&found, &logits, "logits");
    }
}

#[test]
fn captions_are_those_of_transformers_token_for_token() {
    let expected = Expected::load();
    let pictures = expected.pictures();
    for (name, captions) in expected.words["captions"].as_object().unwrap() {
        let blip = Blip::load(&data().join(name)).unwrap();
        let texts = blip.caption(&pictures).unwrap();
        let captions = captions.as_array().unwrap();
        assert_eq!(texts.len(), captions.len());
        for ((picture, text), caption) in pictures.iter().zip(texts).zip(captions) {
            let tokens: Vec<u32> = serde_json::from_value(caption["tokens"].clone()).unwrap();
            assert_eq!(blip.tokens(picture).unwrap(), tokens, "{name}: {}", caption["text"]);
            assert_eq!(text, caption["text"].as_str().unwrap(), "{name}");
        }
    }
}

/// A copy of a folder of the test data in which a file's bytes were exchanged.
fn broken(folder: &str, file: &str, with: Option<&[u8]>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data().join(folder)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join(file);
    match with {
        Some(bytes) => std::fs::write(path, bytes).unwrap(),
        None => std::fs::remove_file(path).unwrap(),
    }
    copy
}

fn config(folder: &str, change: impl Fn(&mut Value)) -> Vec<u8> {
    let bytes = std::fs::read(data().join(folder).join("config.json")).unwrap();
    let mut config = serde_json::from_slice(&bytes).unwrap();
    change(&mut config);
    serde_json::to_vec(&config).unwrap()
}

fn refuses(error: excite_eval::Error, code: &str, parts: &[&str]) {
    assert_eq!(error.advice().0, code, "{error:?}");
    assert!(!error.advice().1.is_empty());
    for part in parts {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
}

#[test]
fn a_clip_that_cannot_be_right_is_refused() {
    let load = |folder: &Path| Clip::load(folder).err().unwrap();
    for file in
        ["config.json", "model.safetensors", "preprocessor_config.json", "vocab.json", "merges.txt"]
    {
        refuses(load(broken("clip", file, None).path()), "model_unreadable", &[file]);
    }
    let other = |change: &dyn Fn(&mut Value), code, parts: &[&str]| {
        let folder = broken("clip", "config.json", Some(&config("clip", change)));
        refuses(load(folder.path()), code, parts);
    };
    other(&|c| c["model_type"] = "siglip".into(), "unsupported", &["model_type", "siglip"]);
    other(&|c| c["text_config"]["hidden_act"] = "relu".into(), "model_config", &["relu"]);
    other(&|c| c["text_config"]["num_attention_heads"] = 5.into(), "model_config", &["5", "24"]);
    other(&|c| c["vision_config"]["patch_size"] = 7.into(), "model_config", &["7", "32"]);
    other(
        &|c| c["vision_config"]["num_hidden_layers"] = 1.into(),
        "weights_mismatch",
        &["layers.1"],
    );
    other(&|c| c["text_config"]["num_hidden_layers"] = 3.into(), "weights_mismatch", &["layers.2"]);
    other(&|c| c["projection_dim"] = 21.into(), "weights_mismatch", &["21", "20"]);
    other(&|c| c["text_config"]["eos_token_id"] = 7.into(), "model_config", &["573"]);
    let folder = broken("clip", "model.safetensors", Some(b"not weights"));
    refuses(load(folder.path()), "model_config", &["model.safetensors"]);
    let folder = broken("clip", "preprocessor_config.json", Some(b"{\"crop_size\": 24}"));
    let clip = Clip::load(folder.path()).unwrap();
    let error = clip.image(&Picture::filled(40, 40, [9; 3])).unwrap_err();
    refuses(error, "picture_size", &["40 x 40", "24 x 24", "32 x 32"]);
    refuses(clip.caption(" \n").unwrap_err(), "empty_caption", &[]);
    refuses(Judge::load(&data().join("clip")).err().unwrap(), "model_unreadable", &["judge.json"]);
}

#[test]
fn a_blip_that_cannot_be_right_is_refused() {
    let load = |folder: &Path| Blip::load(folder).err().unwrap();
    for file in ["config.json", "model.safetensors", "preprocessor_config.json", "vocab.txt"] {
        refuses(load(broken("blip", file, None).path()), "model_unreadable", &[file]);
    }
    let other = |change: &dyn Fn(&mut Value), code, parts: &[&str]| {
        let folder = broken("blip", "config.json", Some(&config("blip", change)));
        refuses(load(folder.path()), code, parts);
    };
    let vqa = "BlipForQuestionAnswering";
    other(&|c| c["architectures"] = vec![vqa].into(), "unsupported", &["architectures", vqa]);
    other(&|c| c["text_config"]["max_position_embeddings"] = 29.into(), "model_config", &["29"]);
    other(&|c| c["text_config"]["sep_token_id"] = 99.into(), "model_config", &["99"]);
    other(&|c| c["vision_config"]["image_size"] = 20.into(), "model_config", &["20", "8"]);
    other(&|c| c["text_config"]["num_hidden_layers"] = 1.into(), "weights_mismatch", &["layer.1"]);
    // Words that know neither the prompt nor the special tokens.
    let folder = broken("blip", "vocab.txt", Some(b"cat\n"));
    refuses(load(folder.path()), "model_config", &["tokenizer"]);
    refuses(load(&data().join("clip")), "unsupported", &["`clip`"]);
}
