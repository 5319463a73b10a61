//! Models that are missing, damaged or of another kind: refused with file, key and shapes.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use excite_diffusion::{Error, Folder, Model, Outputs, Run};
use excite_jobs::Spec;
use tempfile::TempDir;

use crate::{never, project, specs};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// A copy of the bundled model to break.
fn copy() -> TempDir {
    let directory = TempDir::new().unwrap();
    let source = project().join("models/emoji");
    for part in ["scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
        let target = directory.path().join(part);
        std::fs::create_dir(&target).unwrap();
        for file in std::fs::read_dir(source.join(part)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    std::fs::copy(source.join("model_index.json"), directory.path().join("model_index.json"))
        .unwrap();
    directory
}

fn load(path: &Path) -> Result<Model, Error> {
    Model::load(&Folder::Directory(path.to_owned()))
}

fn broken(change: impl FnOnce(&Path)) -> Error {
    let directory = copy();
    change(directory.path());
    load(directory.path()).err().expect("the broken model was taken")
}

/// Changes the tensors of a file.
fn edit(path: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let mut tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, path).unwrap();
}

fn edit_json(path: &Path, field: &str, value: serde_json::Value) {
    let mut json: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    json.insert(field.into(), value);
    std::fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}

#[test]
fn a_file_that_is_missing_is_named() {
    let nowhere = load(Path::new("/nonexistent/model")).err().unwrap();
    assert!(nowhere.to_string().contains("model_index.json"), "{nowhere}");
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "unet/config.json",
        UNET,
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        let error = broken(|folder| std::fs::remove_file(folder.join(file)).unwrap());
        assert!(error.to_string().contains(file), "{file}: {error}");
        assert!(!error.advice().1.is_empty());
    }
}

#[test]
fn a_file_that_is_damaged_is_named() {
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [(&str, Damage); 5] = [
        ("empty", |_| Vec::new()),
        ("cut in the header", |bytes| bytes[..200].to_vec()),
        ("cut in a tensor", |bytes| bytes[..bytes.len() - 10].to_vec()),
        ("too long", |bytes| [bytes, vec![0; 8]].concat()),
        ("a header of 2^62 bytes", |mut bytes| {
            bytes[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
            bytes
        }),
    ];
    for (damage, apply) in damages {
        let error = broken(|folder| {
            let bytes = std::fs::read(folder.join(UNET)).unwrap();
            std::fs::write(folder.join(UNET), apply(bytes)).unwrap();
        });
        assert!(matches!(&error, Error::Corrupt { file, .. } if file == UNET), "{damage}: {error}");
    }
    for file in ["unet/config.json", "model_index.json", "tokenizer/vocab.json"] {
        let error = broken(|folder| std::fs::write(folder.join(file), "{").unwrap());
        assert!(matches!(error, Error::Config { .. } | Error::Tokenizer { .. }), "{file}: {error}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named_with_their_shapes() {
    let key = "conv_in.weight";
    let missing = broken(|folder| edit(&folder.join(UNET), |tensors| drop(tensors.remove(key))));
    assert_eq!(
        missing.to_string(),
        format!("`{UNET}` has no tensor `{key}` (expected shape [64, 4, 3, 3])")
    );
    let shape = broken(|folder| {
        edit(&folder.join(UNET), |tensors| {
            let cut = tensors[key].narrow(1, 0, 3).unwrap().contiguous().unwrap();
            tensors.insert(key.into(), cut);
        });
    });
    assert_eq!(
        shape.to_string(),
        format!("`{UNET}`: tensor `{key}` has shape [64, 3, 3, 3], expected [64, 4, 3, 3]")
    );
    let nan = broken(|folder| {
        edit(&folder.join(UNET), |tensors| {
            let all = (&tensors[key] * f64::NAN).unwrap();
            tensors.insert(key.into(), all);
        });
    });
    assert!(matches!(&nan, Error::NonFiniteWeights { key: found, .. } if found == key), "{nan}");
}

#[test]
fn another_kind_of_model_is_refused_with_its_remedy() {
    for (file, field, value) in [
        ("model_index.json", "_class_name", "FluxPipeline"),
        ("model_index.json", "_class_name", "StableDiffusion3Pipeline"),
        ("scheduler/scheduler_config.json", "prediction_type", "sample"),
        ("text_encoder/config.json", "hidden_act", "relu"),
        ("unet/config.json", "mid_block_type", "UNetMidBlock2D"),
        ("vae/config.json", "act_fn", "relu"),
    ] {
        let error = broken(|folder| edit_json(&folder.join(file), field, value.into()));
        assert!(matches!(error, Error::Unsupported { .. }), "{file}: {error}");
        assert!(error.to_string().contains(field), "{file}: {error}");
    }
    let width = broken(|folder| {
        edit_json(&folder.join("unet/config.json"), "cross_attention_dim", 32.into());
    });
    assert!(width.to_string().contains("attn2.to_k.weight` has shape [64, 64]"), "{width}");
}

/// Weights that are finite but overflow on the way: the value is named, nothing is painted.
#[test]
fn a_value_that_is_not_finite_stops_the_image() {
    let query = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q";
    let first = format!("; `{query}` is the first layer");
    for (key, want, layer) in [
        (&format!("{query}.weight")[..], "the loss", &first[..]),
        // The layer's own output is finite: it is too much times the guidance scale.
        ("conv_out.bias", "the noise prediction", ""),
    ] {
        let directory = copy();
        edit(&directory.path().join(UNET), |tensors| {
            let huge = tensors[key].ones_like().unwrap();
            let huge = (huge.to_dtype(candle_core::DType::F32).unwrap() * 3e38).unwrap();
            tensors.insert(key.into(), huge);
        });
        let model = load(directory.path()).unwrap();
        let spec = specs(r#"{"prompt": "a cat and a frog", "seed": 5, "steps": 2}"#).remove(0);
        let spec = Spec { model: model.name().to_owned(), ..spec };
        let mut run = Run::start(&model, &[spec], Outputs::default()).unwrap();
        let error = run.step(&never).unwrap_err();
        let want = format!("{want} is not finite at step 0 (row 0, seed 5){layer}");
        assert_eq!(error.to_string(), want);
    }
}

/// The digest covers what was loaded: another weight, another model.
/// Weights so large that what the layer gives overflows, in each network and in each kind of layer.
#[test]
fn a_layer_that_overflows_is_named_by_its_path() {
    const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
    let block = "down_blocks.0.attentions.0.transformer_blocks.0";
    let guided = r#"{"prompt": "a cat and a frog", "seeds": "0..2", "steps": 1}"#;
    let plain = r#"{"prompt": "a cat", "seeds": "0..2", "steps": 1, "method": "none"}"#;
    #[rustfmt::skip]
    let table = [
        (UNET, "conv_in".to_owned(),                         "conv_in".to_owned(),       guided, "the loss"),
        (UNET, "down_blocks.0.resnets.0.conv2".into(),       "down_blocks.0.resnets.0.conv2".into(), guided, "the loss"),
        (UNET, format!("{block}.attn1.to_v"),                format!("{block}.attn1"),   guided, "the loss"),
        (UNET, format!("{block}.attn2.to_k"),                format!("{block}.attn2.to_k"), plain, "the noise prediction"),
        (UNET, format!("{block}.ff.net.2"),                  format!("{block}.ff.net.2"), plain, "the noise prediction"),
        (UNET, "up_blocks.0.upsamplers.0.conv".into(),       "up_blocks.0.upsamplers.0.conv".into(), plain, "the noise prediction"),
        (UNET, "time_embedding.linear_2".into(),             "time_embedding.linear_2".into(), plain, "the noise prediction"),
        (VAE,  "decoder.conv_in".into(),                     "decoder.conv_in".into(),   plain, "the picture"),
        (VAE,  "decoder.up_blocks.1.resnets.0.conv1".into(), "decoder.up_blocks.1.resnets.0.conv1".into(), plain, "the picture"),
    ];
    for (file, tensor, layer, line, what) in table {
        let directory = copy();
        edit(&directory.path().join(file), |tensors| {
            let weights = tensors.get_mut(&format!("{tensor}.weight")).unwrap();
            let full = weights.to_dtype(candle_core::DType::F32).unwrap();
            let most = full.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            let most = f64::from(most.to_scalar::<f32>().unwrap());
            *weights = ((full / most).unwrap() * 3e38).unwrap();
        });
        let model = load(directory.path()).unwrap();
        let specs: Vec<Spec> = specs(line)
            .into_iter()
            .map(|spec| Spec { model: model.name().to_owned(), ..spec })
            .collect();
        let run = Run::start(&model, &specs, Outputs::default()).unwrap();
        let error = run.complete(&never, |_| ()).err().unwrap();
        let said = error.to_string();
        assert!(said.ends_with(&format!("; `{layer}` is the first layer")), "{tensor}: {said}");
        match error {
            Error::NonFinite { what: found, row, .. } => {
                assert_eq!((found, row), (what, 0), "{said}")
            }
            other => panic!("{tensor}: {other}"),
        }
    }
}

#[test]
fn the_digest_is_that_of_the_files() {
    let directory = copy();
    let same = load(directory.path()).unwrap();
    let digest = |model: &Model| model.name().rsplit_once('@').unwrap().1.to_owned();
    assert_eq!(digest(&same), digest(crate::emoji()));
    edit_json(&directory.path().join("scheduler/scheduler_config.json"), "note", "x".into());
    assert_ne!(digest(&load(directory.path()).unwrap()), digest(crate::emoji()));
}
