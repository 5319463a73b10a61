//! The configurations that a single file lacks: what its family fixes, and sizes by its shapes.

use serde_json::{Value, json};

use super::Family;
use crate::error::{Error, Result};

/// What is asked of the file's tensors, by component and diffusers' keys.
pub(super) struct Shapes<'a> {
    /// A tensor's shape.
    pub(super) shape: &'a dyn Fn(&str, &str) -> Option<Vec<usize>>,
    /// How many numbers, from 0, stand behind a prefix of keys.
    pub(super) count: &'a dyn Fn(&str, &str) -> usize,
}

impl Shapes<'_> {
    fn size(&self, component: &str, key: &str, axis: usize) -> usize {
        let shape = (self.shape)(component, key);
        shape.and_then(|shape| shape.get(axis).copied()).unwrap_or(0)
    }

    fn has(&self, component: &str, key: &str) -> bool {
        (self.shape)(component, key).is_some()
    }
}

/// Every JSON file of the folder that the file stands for.
pub(super) fn all(
    family: Family,
    shapes: &Shapes<'_>,
    velocity: bool,
    file: &str,
) -> Result<Vec<(String, Value)>> {
    let class = match family {
        Family::Sd1 | Family::Sd2 => "StableDiffusionPipeline",
        Family::Sdxl => "StableDiffusionXLPipeline",
    };
    let pad = |token: &str| json!({"pad_token": token});
    let mut all = vec![
        (
            "model_index.json".to_owned(),
            json!({"_class_name": class, "force_zeros_for_empty_prompt": true}),
        ),
        ("unet/config.json".to_owned(), unet(family, shapes, velocity, file)?),
        ("vae/config.json".to_owned(), vae(family, shapes)),
        ("scheduler/scheduler_config.json".to_owned(), scheduler(family, velocity)),
        (
            "tokenizer/special_tokens_map.json".to_owned(),
            pad(if family == Family::Sd2 { "!" } else { "<|endoftext|>" }),
        ),
    ];
    match family {
        Family::Sd1 => all.push(text(shapes, "text_encoder", 12, "quick_gelu")),
        Family::Sd2 => all.push(text(shapes, "text_encoder", 16, "gelu")),
        Family::Sdxl => {
            all.push(text(shapes, "text_encoder", 12, "quick_gelu"));
            all.push(text(shapes, "text_encoder_2", 20, "gelu"));
            all.push(("tokenizer_2/special_tokens_map.json".to_owned(), pad("!")));
        }
    }
    Ok(all)
}

fn unet(family: Family, shapes: &Shapes<'_>, velocity: bool, file: &str) -> Result<Value> {
    let levels = (shapes.count)("unet", "down_blocks.");
    let channels: Vec<usize> = (0..levels)
        .map(|l| shapes.size("unet", &format!("down_blocks.{l}.resnets.0.conv1.weight"), 0))
        .collect();
    let transformer = |level: usize| format!("down_blocks.{level}.attentions.0.");
    let attention =
        |level: usize| shapes.has("unet", &format!("{}norm.weight", transformer(level)));
    let depths: Vec<usize> = (0..levels)
        .map(|level| {
            let prefix = format!("{}transformer_blocks.", transformer(level));
            (shapes.count)("unet", &prefix).max(1)
        })
        .collect();
    let block = |level: usize, direction: &str| match attention(level) {
        true => format!("CrossAttn{direction}Block2D"),
        false => format!("{direction}Block2D"),
    };
    let context = (0..levels)
        .map(|level| {
            let key = format!("{}transformer_blocks.0.attn2.to_k.weight", transformer(level));
            shapes.size("unet", &key, 1)
        })
        .max()
        .unwrap_or(0);
    let (heads, sample_size) = match (family, velocity) {
        (Family::Sd1, _) => (json!(8), 64),
        (Family::Sd2, true) => (json!([5, 10, 20, 20]), 96),
        (Family::Sd2, false) => (json!([5, 10, 20, 20]), 64),
        (Family::Sdxl, _) => (json!([5, 10, 20]), 128),
    };
    let mut config = json!({
        "in_channels": shapes.size("unet", "conv_in.weight", 1),
        "out_channels": shapes.size("unet", "conv_out.weight", 0),
        "sample_size": sample_size,
        "block_out_channels": channels,
        "down_block_types": (0..levels).map(|l| block(l, "Down")).collect::<Vec<_>>(),
        "up_block_types": (0..levels).rev().map(|l| block(l, "Up")).collect::<Vec<_>>(),
        "layers_per_block": 2,
        "attention_head_dim": heads,
        "transformer_layers_per_block": depths,
        "cross_attention_dim": context,
    });
    if family == Family::Sdxl {
        let input = shapes.size("unet", "add_embedding.linear_1.weight", 1);
        if input == 0 {
            return Err(Error::MissingTensor {
                file: file.to_owned(),
                key: "model.diffusion_model.label_emb.0.0.weight".into(),
                expected: vec![1280, 2816],
            });
        }
        config["addition_embed_type"] = json!("text_time");
        config["addition_time_embed_dim"] = json!(256);
        config["projection_class_embeddings_input_dim"] = json!(input);
    }
    Ok(config)
}

fn vae(family: Family, shapes: &Shapes<'_>) -> Value {
    let levels = (shapes.count)("vae", "encoder.down_blocks.");
    let channels: Vec<usize> = (0..levels)
        .map(|l| shapes.size("vae", &format!("encoder.down_blocks.{l}.resnets.0.conv1.weight"), 0))
        .collect();
    json!({
        "act_fn": "silu",
        "block_out_channels": channels,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": shapes.size("vae", "post_quant_conv.weight", 0),
        "layers_per_block": 2,
        "scaling_factor": if family == Family::Sdxl { 0.13025 } else { 0.18215 },
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
    })
}

fn text(shapes: &Shapes<'_>, component: &str, heads: usize, activation: &str) -> (String, Value) {
    let embeddings = "text_model.embeddings.token_embedding.weight";
    let fc1 = "text_model.encoder.layers.0.mlp.fc1.weight";
    let config = json!({
        "vocab_size": shapes.size(component, embeddings, 0),
        "hidden_size": shapes.size(component, embeddings, 1),
        "intermediate_size": shapes.size(component, fc1, 0),
        "num_hidden_layers": (shapes.count)(component, "text_model.encoder.layers."),
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "hidden_act": activation,
        "projection_dim": shapes.size(component, "text_projection.weight", 0),
    });
    (format!("{component}/config.json"), config)
}

/// As the families' own repositories ship it.
fn scheduler(family: Family, velocity: bool) -> Value {
    let class = match family {
        Family::Sd1 => "PNDMScheduler",
        Family::Sd2 => "DDIMScheduler",
        Family::Sdxl => "EulerDiscreteScheduler",
    };
    json!({
        "_class_name": class,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "steps_offset": 1,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "clip_sample": false,
        "timestep_spacing": "leading",
        "prediction_type": if velocity { "v_prediction" } else { "epsilon" },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Recipe {
        configs: BTreeMap<String, serde_json::Map<String, Value>>,
        tensors: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    }

    /// What is made from the shapes is what the folder of the same model says.
    #[test]
    fn configurations_are_those_of_the_folder() {
        for (family, name, velocity) in [
            (Family::Sd1, "sd14", false),
            (Family::Sd2, "sd21", true),
            (Family::Sdxl, "sdxl", false),
        ] {
            let path = format!("/../../tests/peers/golden/{name}.json");
            let text = std::fs::read(format!("{}{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let Recipe { configs, tensors } = serde_json::from_slice(&text).unwrap();
            let shape = |component: &str, key: &str| tensors[component].get(key).cloned();
            let count = |component: &str, prefix: &str| {
                let keys = tensors[component].keys().filter_map(|key| key.strip_prefix(prefix));
                let numbers = keys.filter_map(|rest| rest.split('.').next()?.parse::<usize>().ok());
                numbers.max().map_or(0, |last| last + 1)
            };
            let shapes = Shapes { shape: &shape, count: &count };
            for (file, made) in all(family, &shapes, velocity, name).unwrap() {
                let folder = &configs[&file];
                for (field, value) in made.as_object().unwrap() {
                    let Some(want) = folder.get(field) else { continue };
                    // One number for all levels is the same as that number for each.
                    let same = value == want
                        || value.as_array().is_some_and(|each| each.iter().all(|v| v == want));
                    // The small models have shorter size embeddings; projections that are not used
                    // are not in the file.
                    let small = ["addition_time_embed_dim", "projection_dim"];
                    assert!(
                        same || small.contains(&field.as_str()),
                        "{name} {file}: `{field}` is {value}, not {want}"
                    );
                }
            }
        }
    }
}
