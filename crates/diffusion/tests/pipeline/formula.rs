//! Models whose weights follow from their tensors' names, so that they need not be stored:
//! `tests/peers/formula.py` makes the same bits.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::Value;

use crate::project;

/// A model with the topology of a family and few channels: what is in its folder.
#[derive(Deserialize)]
pub(crate) struct Recipe {
    configs: BTreeMap<String, Value>,
    /// Component to key to shape.
    tensors: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
}

/// How the weights of each component are written.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) format: DType,
    /// Files a component.
    pub(crate) shards: usize,
    /// Between stem and ending of the files.
    pub(crate) variant: &'static str,
}

pub(crate) const WHOLE: Form = Form { format: DType::F32, shards: 1, variant: "" };

impl Recipe {
    pub(crate) fn read(family: &str) -> Self {
        let path = project().join(format!("tests/peers/golden/{family}.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The tensors of a component, f32.
    pub(crate) fn component(&self, component: &str) -> BTreeMap<String, Tensor> {
        let tensor = |(key, shape): (&String, &Vec<usize>)| {
            let values = weights(component, key, shape);
            (key.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap())
        };
        self.tensors[component].iter().map(tensor).collect()
    }

    /// Writes the folder.
    pub(crate) fn write(&self, folder: &Path, form: Form) {
        let put = |file: &str, bytes: &[u8]| {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        for (file, config) in &self.configs {
            put(file, config.to_string().as_bytes());
        }
        for tokenizer in ["tokenizer", "tokenizer_2"] {
            if self.configs.contains_key(&format!("{tokenizer}/special_tokens_map.json")) {
                put(&format!("{tokenizer}/vocab.json"), excite_prompt::CLIP_VOCAB);
                put(&format!("{tokenizer}/merges.txt"), excite_prompt::CLIP_MERGES);
            }
        }
        for component in self.tensors.keys() {
            let stem = match component.starts_with("text") {
                true => format!("model{}", form.variant),
                false => format!("diffusion_pytorch_model{}", form.variant),
            };
            std::fs::create_dir_all(folder.join(component)).unwrap();
            let tensors = self.component(component);
            let tensors: Vec<(String, Tensor)> = tensors
                .into_iter()
                .map(|(key, tensor)| (key, tensor.to_dtype(form.format).unwrap()))
                .collect();
            let save = |name: &str, part: &[(String, Tensor)]| {
                let part: std::collections::HashMap<_, _> = part.iter().cloned().collect();
                let path = folder.join(component).join(name);
                candle_core::safetensors::save(&part, path).unwrap();
            };
            if form.shards == 1 {
                save(&format!("{stem}.safetensors"), &tensors);
                continue;
            }
            let mut map = BTreeMap::new();
            let size = tensors.len().div_ceil(form.shards);
            for (i, part) in tensors.chunks(size).enumerate() {
                let name = format!("{stem}-{:05}-of-{:05}.safetensors", i + 1, form.shards);
                save(&name, part);
                map.extend(part.iter().map(|(key, _)| (key.clone(), name.clone())));
            }
            let index = serde_json::json!({"metadata": {}, "weight_map": map});
            let file = format!("{component}/{stem}.safetensors.index.json");
            put(&file, index.to_string().as_bytes());
        }
    }
}

fn weights(component: &str, key: &str, shape: &[usize]) -> Vec<f32> {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let seed = format!("{component}/{key}").bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let has = |names: &[&str]| names.iter().any(|name| key.contains(name));
    let fan_in: usize = shape[1..].iter().product();
    let scale = (3. / fan_in as f64).sqrt() as f32;
    let weight = |v: f32| match shape.len() {
        _ if key.ends_with("bias") => 0.05 * v,
        1 => 1. + 0.1 * v,
        _ if key.contains("embedding") => 0.1 * v,
        _ if has(&["attn2.to_q", "attn2.to_k"]) => 3. * (scale * v),
        _ if has(&["self_attn.out_proj", "mlp.fc2"]) => 0.25 * (scale * v),
        _ => scale * v,
    };
    (1..=shape.iter().product::<usize>() as u64).map(|i| weight(uniform(seed, i))).collect()
}

/// Number `i` of the SplitMix64 stream of a seed, in -1..1 with 24 bits.
fn uniform(seed: u64, i: u64) -> f32 {
    let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    2. * ((z >> 40) as f32 / 16_777_216.) - 1.
}
