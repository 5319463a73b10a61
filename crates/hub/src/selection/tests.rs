//! What is taken of repositories as they are found, by the names of their files.

use super::*;

const INDEX: &str = r#"{"_class_name":"StableDiffusionPipeline","_diffusers_version":"0.6.0",
    "feature_extractor":["transformers","CLIPImageProcessor"],
    "safety_checker":["stable_diffusion","StableDiffusionSafetyChecker"],
    "scheduler":["diffusers","PNDMScheduler"],"text_encoder":["transformers","CLIPTextModel"],
    "tokenizer":["transformers","CLIPTokenizer"],"unet":["diffusers","UNet2DConditionModel"],
    "vae":["diffusers","AutoencoderKL"],"text_encoder_2":[null,null]}"#;

/// What a complete pipeline has besides weights.
const FRAME: &[&str] = &[
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
];

const FULL: &[&str] = &[
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
];

const HALF: &[&str] = &[
    "text_encoder/model.fp16.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
];

/// What no one needs.
const NOISE: &[&str] = &[
    "README.md",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "image.png",
    "unet/model.onnx",
    "unet/diffusion_flax_model.msgpack",
    "unet/openvino_model.bin",
    "unet/openvino_model.xml",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.bin",
    "safety_checker/model.safetensors",
    "safety_checker/config.json",
    "feature_extractor/preprocessor_config.json",
    "tokenizer/tokenizer.json",
    "text_encoder_2/model.safetensors",
    "text_encoder_2/config.json",
    "sub/model_index.json",
];

fn snapshot(groups: &[&[&str]]) -> Snapshot {
    let mut paths: Vec<&str> = groups.concat();
    paths.sort_unstable();
    let file =
        |path: &&str| RemoteFile { path: (*path).to_owned(), bytes: 1, sha256: None, blob: None };
    Snapshot {
        repository: "a/b".into(),
        revision: "main".into(),
        commit: "0".repeat(40),
        licence: None,
        gated: false,
        files: paths.iter().map(file).collect(),
    }
}

fn selected(groups: &[&[&str]], index: &str, precision: Precision) -> Result<Vec<String>> {
    let files = snapshot(groups).selection(index.as_bytes(), precision)?;
    let mut paths: Vec<String> = files.into_iter().map(|file| file.path).collect();
    paths.sort_unstable();
    Ok(paths)
}

#[track_caller]
fn assert_selects(groups: &[&[&str]], precision: Precision, weights: &[&str]) {
    let mut want: Vec<&str> = [FRAME, weights].concat();
    want.sort_unstable();
    assert_eq!(selected(groups, INDEX, precision).unwrap(), want);
}

#[test]
fn the_preferred_precision_is_taken_and_nothing_else() {
    let both = [FRAME, FULL, HALF, NOISE];
    assert_selects(&both, Precision::F32, FULL);
    assert_selects(&both, Precision::F16, HALF);
}

#[test]
fn the_other_precision_does_where_there_is_only_one() {
    assert_selects(&[FRAME, HALF, NOISE], Precision::F32, HALF);
    assert_selects(&[FRAME, FULL, NOISE], Precision::F16, FULL);
}

#[test]
fn shards_are_taken_with_their_index() {
    let rest = &["text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"][..];
    for (precision, unet) in [
        (
            Precision::F32,
            &[
                "unet/diffusion_pytorch_model.safetensors.index.json",
                "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
                "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            ][..],
        ),
        (
            Precision::F16,
            &[
                "unet/diffusion_pytorch_model.fp16.safetensors.index.json",
                "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
                "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
            ],
        ),
        (
            Precision::F16,
            &[
                "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
                "unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
                "unet/diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
            ],
        ),
    ] {
        let weights = [rest, unet].concat();
        assert_selects(&[FRAME, rest, unet, NOISE], precision, &weights);
        let short = &unet[..2];
        let incomplete = selected(&[FRAME, rest, short], INDEX, precision);
        assert!(
            matches!(incomplete, Err(Error::Shards { expected: 2, found: 1, .. })),
            "{incomplete:?}"
        );
    }
    let index = &["unet/diffusion_pytorch_model.safetensors.index.json"][..];
    let none = selected(&[FRAME, rest, index], INDEX, Precision::F32);
    assert!(matches!(none, Err(Error::Shards { found: 0, .. })), "{none:?}");
}

#[test]
fn a_second_text_encoder_is_taken_where_the_index_names_one() {
    let index = INDEX.replace("[null,null]", r#"["transformers","CLIPTextModelWithProjection"]"#);
    let paths = selected(&[FRAME, FULL, NOISE], &index, Precision::F32).unwrap();
    assert!(paths.iter().any(|path| path == "text_encoder_2/model.safetensors"), "{paths:?}");
}

#[test]
fn pickles_are_refused_by_name() {
    let weights = &["text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"];
    let refused = selected(&[FRAME, weights, NOISE], INDEX, Precision::F32).unwrap_err();
    let (code, remedy) = refused.advice();
    assert_eq!(code, "only_pickles");
    assert!(refused.to_string().contains("unet/diffusion_pytorch_model.bin"), "{refused}");
    assert!(remedy.contains("runs code"), "{remedy}");
}

#[test]
fn what_is_no_stable_diffusion_pipeline_is_refused() {
    let no_index = selected(&[&FRAME[1..], FULL, NOISE], INDEX, Precision::F32).unwrap_err();
    assert!(matches!(no_index, Error::NoModelIndex { .. }), "{no_index:?}");
    assert!(no_index.advice().1.contains("`v1-5-pruned.safetensors`"), "{:?}", no_index.advice());

    let flux = r#"{"_class_name":"FluxPipeline","vae":["diffusers","AutoencoderKL"],
        "scheduler":["a","b"],"text_encoder":["a","b"],"tokenizer":["a","b"]}"#;
    let other = selected(&[FRAME, FULL], flux, Precision::F32).unwrap_err();
    assert!(other.to_string().contains("`FluxPipeline` without `unet`"), "{other}");

    for index in ["", "[]", "null", "3"] {
        assert!(selected(&[FRAME, FULL], index, Precision::F32).is_err(), "{index}");
    }
}

#[test]
fn an_incomplete_component_is_named() {
    for file in FRAME.iter().chain(FULL) {
        let there = |path: &&&str| *path != file;
        let frame: Vec<&str> = FRAME.iter().filter(there).copied().collect();
        let full: Vec<&str> = FULL.iter().filter(there).copied().collect();
        let selected = selected(&[&frame, &full], INDEX, Precision::F32);
        if file.ends_with("special_tokens_map.json") || file.ends_with("tokenizer_config.json") {
            selected.unwrap();
        } else if *file != MODEL_INDEX {
            let message = selected.unwrap_err().to_string();
            assert!(message.contains(file), "{file}: {message}");
        }
    }
}

#[test]
fn files_are_selected_by_name() {
    let snapshot = snapshot(&[FRAME, NOISE]);
    let files = snapshot.selection_of(&["v1-5-pruned.safetensors"]).unwrap();
    assert_eq!(files.len(), 1);
    let missing = snapshot.selection_of(&["README.md", "nothing"]).unwrap_err();
    assert!(missing.to_string().contains("`nothing`"), "{missing}");
}
