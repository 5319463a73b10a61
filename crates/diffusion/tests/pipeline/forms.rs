//! One model in every form that its files can have: number formats, shards, names of other times,
//! one file in the original layout; and what is refused.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use excite_diffusion::{Error, Folder, Generator, Model};
use excite_jobs::Noise;
use tempfile::TempDir;

use crate::formula::{Form, Recipe, WHOLE};
use crate::project;

/// The model's prediction for one text and one noise.
fn prediction(model: &Model) -> Tensor {
    let text = model.text_states("a cat and a frog").unwrap();
    let conditioning = model.unet().condition(&text, (128, 128)).unwrap();
    let noise = Generator::new(Noise::TorchCpu, 1).normal(&[1, 4, 16, 16]).unwrap();
    let predicted = model.unet().noise(&noise, 400., &conditioning).unwrap();
    let decoded = model.vae().decode(&predicted.narrow(2, 0, 4).unwrap()).unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap();
    Tensor::cat(&[flat(&predicted), flat(&decoded)], 0).unwrap()
}

/// Largest difference relative to the largest value.
fn difference(a: &Tensor, b: &Tensor) -> f32 {
    let max = |t: &Tensor| t.abs().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    max(&(a - b).unwrap()) / max(b)
}

fn folder(form: Form) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    Recipe::read("sd14").write(folder.path(), form);
    folder
}

fn load(path: &Path) -> Result<Model, Error> {
    Model::load(&Folder::at(path.to_owned()))
}

fn refused(path: &Path) -> Error {
    load(path).err().expect("it was taken")
}

/// The model as one file in the original layout, edited.
fn single_file(edit: impl FnOnce(&mut HashMap<String, Tensor>)) -> (TempDir, PathBuf) {
    let recipe = Recipe::read("sd14");
    let table = project().join("tests/peers/golden/original_sd14.tsv");
    let table = std::fs::read_to_string(table).unwrap();
    let mut components = BTreeMap::new();
    let mut tensors: HashMap<String, Tensor> = table
        .lines()
        .map(|line| {
            let row: Vec<&str> = line.split('\t').collect();
            let (component, key) = row[1].split_once('/').unwrap();
            let all = components
                .entry(component.to_owned())
                .or_insert_with(|| recipe.component(component));
            let tensor = all[key].clone();
            let tensor = match row[2] {
                "conv1x1" => tensor.unsqueeze(2).unwrap().unsqueeze(3).unwrap(),
                _ => tensor,
            };
            (row[0].to_owned(), tensor)
        })
        .collect();
    let extra = Tensor::zeros(1000, DType::F32, &Device::Cpu).unwrap();
    tensors.insert("alphas_cumprod".into(), extra);
    edit(&mut tensors);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    (folder, path)
}

#[test]
fn every_form_of_file_is_the_same_model() {
    let plain = load(folder(WHOLE).path()).unwrap();
    let want = prediction(&plain);
    assert_eq!(plain.components()[0].1.formats, ["F32"]);
    #[rustfmt::skip]
    let forms = [
        // format     shards  variant  at most
        (DType::F32,  3,      "",      0.),
        (DType::F32,  1,      ".fp16", 0.),
        (DType::F16,  1,      ".fp16", 3e-3),
        (DType::F16,  2,      ".fp16", 3e-3),
        (DType::BF16, 1,      "",      3e-2),
    ];
    for (format, shards, variant, tolerance) in forms {
        let model = load(folder(Form { format, shards, variant }).path()).unwrap();
        let got = difference(&prediction(&model), &want);
        println!("{format:?} in {shards} files, \"{variant}\": {got:.1e} of {tolerance:.0e}");
        assert!(got <= tolerance, "{format:?} {shards} {variant}: {got:e}");
        assert_eq!(model.components().iter().map(|(_, c)| c.parameters).sum::<u64>(), {
            plain.components().iter().map(|(_, c)| c.parameters).sum::<u64>()
        });
    }

    // Full precision goes before half where both are there.
    let both = folder(WHOLE);
    let half = Form { format: DType::F16, shards: 1, variant: ".fp16" };
    Recipe::read("sd14").write(both.path(), half);
    assert_eq!(difference(&prediction(&load(both.path()).unwrap()), &want), 0.);

    // Names of other times: no prefix in the text encoder, other names in the autoencoder.
    let old = folder(WHOLE);
    rename(&old.path().join("text_encoder/model.safetensors"), &[("text_model.", "")]);
    rename(
        &old.path().join("vae/diffusion_pytorch_model.safetensors"),
        &[
            ("attentions.0.to_q.", "attentions.0.query."),
            ("attentions.0.to_k.", "attentions.0.key."),
            ("attentions.0.to_v.", "attentions.0.value."),
            ("attentions.0.to_out.0.", "attentions.0.proj_attn."),
        ],
    );
    assert_eq!(difference(&prediction(&load(old.path()).unwrap()), &want), 0.);

    let (_folder, path) = single_file(|_| ());
    let single = load(&path).unwrap();
    assert_eq!(difference(&prediction(&single), &want), 0.);
    assert_eq!(single.facts().scheduler, plain.facts().scheduler);
    assert!(single.name().starts_with("model@"), "{}", single.name());
    let ids = |model: &Model| model.encode("a cat, a frog").unwrap().ids;
    assert_eq!(ids(&single), ids(&plain));
}

fn rename(path: &Path, names: &[(&str, &str)]) {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let renamed = |key: &str| names.iter().fold(key.to_owned(), |key, (a, b)| key.replace(a, b));
    let tensors: HashMap<String, Tensor> =
        tensors.into_iter().map(|(key, tensor)| (renamed(&key), tensor)).collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

#[test]
fn shards_that_do_not_fit_their_index_are_named() {
    let sharded = Form { shards: 2, ..WHOLE };
    let index = "unet/diffusion_pytorch_model.safetensors.index.json";
    let shard = "unet/diffusion_pytorch_model-00002-of-00002.safetensors";
    let missing = folder(sharded);
    std::fs::remove_file(missing.path().join(shard)).unwrap();
    let error = refused(missing.path());
    assert!(error.to_string().contains(shard), "{error}");

    let cut = folder(sharded);
    let bytes = std::fs::read(cut.path().join(shard)).unwrap();
    std::fs::write(cut.path().join(shard), &bytes[..bytes.len() / 2]).unwrap();
    let error = refused(cut.path());
    assert!(error.to_string().contains("the download was cut off"), "{error}");

    for (from, to, want) in [
        ("conv_in.weight", "conv_in.other", "`conv_in.other` is not in"),
        ("diffusion_pytorch_model-00001", "../model-00001", "is no file of this folder"),
    ] {
        let other = folder(sharded);
        let path = other.path().join(index);
        let text = std::fs::read_to_string(&path).unwrap().replace(from, to);
        std::fs::write(&path, text).unwrap();
        let error = refused(other.path());
        assert!(error.to_string().contains(want), "{from}: {error}");
    }
}

#[test]
fn pickles_are_refused_unopened() {
    let only = folder(WHOLE);
    let unet = only.path().join("unet");
    let (weights, pickle) = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin");
    std::fs::rename(unet.join(weights), unet.join(pickle)).unwrap();
    let error = refused(only.path());
    assert_eq!(
        error.to_string(),
        format!("`unet/{pickle}` is a pickle, which can run any program when it is opened")
    );
    assert!(error.advice().1.contains("safetensors"));
    for (name, bytes) in [("model.ckpt", &b"PK\x03\x04zipped"[..]), ("old.pt", b"\x80\x02pickle..")]
    {
        let path = only.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = refused(&path);
        assert!(matches!(error, Error::Pickle { .. }), "{name}: {error}");
    }
}

/// A configuration that knows less than its weights have would make other pictures unnoticed.
#[test]
fn a_configuration_that_contradicts_its_weights_is_refused() {
    let shallow = folder(WHOLE);
    let path = shallow.path().join("text_encoder/config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let edited = text.replace("\"num_hidden_layers\":12", "\"num_hidden_layers\":11");
    assert_ne!(text, edited);
    std::fs::write(&path, edited).unwrap();
    let error = refused(shallow.path());
    assert!(matches!(error, Error::UnusedTensors { count: 16, .. }), "{error}");
    assert!(error.to_string().contains("text_model.encoder.layers.11."), "{error}");
}

#[test]
fn single_files_of_other_families_are_named() {
    let marker = || Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    for (key, want) in [
        ("model.diffusion_model.joint_blocks.0.x", "`family` is Stable Diffusion 3"),
        ("double_blocks.0.img_attn.qkv.weight", "`family` is FLUX"),
        ("lora_unet_down_blocks_0.lora_up.weight", "`family` is LoRA"),
        ("control_model.zero_convs.0.0.weight", "`family` is ControlNet"),
        ("conditioner.embedders.0.model.ln_final.bias", "`family` is SDXL refiner"),
        ("something.else", "`family` is unknown"),
    ] {
        let (_folder, path) = single_file(|tensors| {
            tensors.clear();
            tensors.insert(key.into(), marker());
        });
        let error = refused(&path);
        assert!(error.to_string().contains(want), "{key}: {error}");
        assert!(!error.advice().1.is_empty());
    }
    for (prefix, want) in [
        ("first_stage_model.", "a UNet without autoencoder"),
        ("cond_stage_model.", "a UNet without text encoder"),
        ("model.diffusion_model.", "no UNet was found"),
    ] {
        let (_folder, path) =
            single_file(|tensors| tensors.retain(|key, _| !key.starts_with(prefix)));
        let error = refused(&path);
        assert!(error.to_string().contains(want), "{prefix}: {error}");
    }
    let (_folder, path) = single_file(|tensors| drop(tensors.insert("ztsnr".into(), marker())));
    assert!(refused(&path).to_string().contains("zero terminal SNR"));
    let (_folder, path) = single_file(|tensors| drop(tensors.insert("v_pred".into(), marker())));
    assert!(load(&path).unwrap().schedulers().predicts_velocity());
}
