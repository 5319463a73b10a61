//! Writes a diffusers folder of the size of SD 1.4 with random weights in f16, 2.1 GB: for measuring
//! time and memory where the real one is not at hand. Its pictures are noise.
//!
//! The loader refuses a tensor that is missing, left over or of a wrong shape, so this list of them
//! cannot differ from what is computed.

#![expect(clippy::print_stdout, reason = "a program that is read in a terminal")]

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use clap::Parser;
use excite_prompt::{CLIP_MERGES, CLIP_VOCAB};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Channels of the UNet's levels, from the top.
const LEVELS: [usize; 4] = [320, 640, 1280, 1280];
/// Of the time embedding.
const TIME: usize = 4 * LEVELS[0];
/// Channels of the text's states.
const CONTEXT: usize = 768;
const TEXT_LAYERS: usize = 12;
const VOCABULARY: usize = 49_408;
/// Tokens of a prompt.
const TOKENS: usize = 77;
/// Channels of the autoencoder's levels, from the top.
const VAE_LEVELS: [usize; 4] = [128, 256, 512, 512];
/// The UNet predicts little, so that latents stay small through all steps.
const LAST: f32 = 0.1;

/// Write a model of the size of SD 1.4 with random weights
#[derive(Debug, Parser)]
struct Args {
    /// Where
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

fn main() -> Result<()> {
    let Args { folder } = Args::parse();
    for (path, content) in configs() {
        write(&folder.join(path), content.to_string().as_bytes())?;
    }
    write(&folder.join("tokenizer/vocab.json"), CLIP_VOCAB)?;
    write(&folder.join("tokenizer/merges.txt"), CLIP_MERGES)?;
    for (path, fill) in [
        ("unet/diffusion_pytorch_model.safetensors", unet as fn(&mut Tensors) -> Result<()>),
        ("vae/diffusion_pytorch_model.safetensors", vae),
        ("text_encoder/model.safetensors", text_encoder),
    ] {
        let mut tensors = Tensors { made: HashMap::new(), state: 1 };
        fill(&mut tensors)?;
        candle_core::safetensors::save(&tensors.made, folder.join(path))?;
        println!("{}: {} tensors", folder.join(path).display(), tensors.made.len());
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(path, content)?)
}

fn configs() -> [(&'static str, Value); 6] {
    let token = |content: &str| {
        json!({ "content": content, "lstrip": false, "normalized": true, "rstrip": false,
            "single_word": false })
    };
    let (begin, end) = (token("<|startoftext|>"), token("<|endoftext|>"));
    [
        (
            "model_index.json",
            json!({
                "_class_name": "StableDiffusionPipeline",
                "scheduler": ["diffusers", "PNDMScheduler"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
            }),
        ),
        (
            "scheduler/scheduler_config.json",
            json!({
                "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
                "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": false,
                "skip_prk_steps": true, "steps_offset": 1,
            }),
        ),
        (
            "unet/config.json",
            json!({
                "_class_name": "UNet2DConditionModel", "attention_head_dim": 8,
                "block_out_channels": LEVELS, "cross_attention_dim": CONTEXT,
                "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                    "CrossAttnDownBlock2D", "DownBlock2D"],
                "in_channels": 4, "layers_per_block": 2, "out_channels": 4, "sample_size": 64,
                "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
                    "CrossAttnUpBlock2D"],
            }),
        ),
        (
            "vae/config.json",
            json!({
                "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": VAE_LEVELS,
                "down_block_types": vec!["DownEncoderBlock2D"; 4], "in_channels": 3,
                "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32,
                "out_channels": 3, "sample_size": 512, "up_block_types": vec!["UpDecoderBlock2D"; 4],
            }),
        ),
        (
            "text_encoder/config.json",
            json!({
                "architectures": ["CLIPTextModel"], "eos_token_id": 2, "hidden_act": "quick_gelu",
                "hidden_size": CONTEXT, "intermediate_size": 4 * CONTEXT, "layer_norm_eps": 1e-5,
                "max_position_embeddings": TOKENS, "model_type": "clip_text_model",
                "num_attention_heads": 12, "num_hidden_layers": TEXT_LAYERS,
                "projection_dim": CONTEXT, "vocab_size": VOCABULARY,
            }),
        ),
        (
            "tokenizer/special_tokens_map.json",
            json!({ "bos_token": begin, "eos_token": end, "pad_token": end, "unk_token": end }),
        ),
    ]
}

/// Tensors by key.
struct Tensors {
    made: HashMap<String, Tensor>,
    state: u64,
}

impl Tensors {
    /// Random values that keep the size of what they are multiplied with.
    fn weight(&mut self, key: &str, shape: &[usize], scale: f32) -> Result<()> {
        let fan_in: usize = shape[1..].iter().product();
        let bound = scale * (3. / fan_in as f32).sqrt();
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                // Knuth's generator; the upper bits are the good ones.
                self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bound * ((self.state >> 40) as f32 / (1 << 23) as f32 - 1.)
            })
            .collect();
        self.put(key, Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    fn put(&mut self, key: &str, tensor: Tensor) -> Result<()> {
        self.made.insert(key.to_owned(), tensor.to_dtype(DType::F16)?);
        Ok(())
    }

    fn constant(&mut self, key: &str, value: f32, count: usize) -> Result<()> {
        self.put(key, Tensor::full(value, count, &Device::Cpu)?)
    }

    fn norm(&mut self, key: &str, channels: usize) -> Result<()> {
        self.constant(&format!("{key}.weight"), 1., channels)?;
        self.constant(&format!("{key}.bias"), 0., channels)
    }

    /// A layer without a bias.
    fn plain(&mut self, key: &str, shape: &[usize]) -> Result<()> {
        self.weight(&format!("{key}.weight"), shape, 1.)
    }

    /// A linear layer or convolution with a bias.
    fn layer(&mut self, key: &str, shape: &[usize]) -> Result<()> {
        self.plain(key, shape)?;
        self.constant(&format!("{key}.bias"), 0., shape[0])
    }

    fn resnet(&mut self, key: &str, cin: usize, cout: usize, time: Option<usize>) -> Result<()> {
        self.norm(&format!("{key}.norm1"), cin)?;
        self.layer(&format!("{key}.conv1"), &[cout, cin, 3, 3])?;
        if let Some(time) = time {
            self.layer(&format!("{key}.time_emb_proj"), &[cout, time])?;
        }
        self.norm(&format!("{key}.norm2"), cout)?;
        self.layer(&format!("{key}.conv2"), &[cout, cout, 3, 3])?;
        if cin != cout {
            self.layer(&format!("{key}.conv_shortcut"), &[cout, cin, 1, 1])?;
        }
        Ok(())
    }

    fn transformer(&mut self, key: &str, c: usize) -> Result<()> {
        self.norm(&format!("{key}.norm"), c)?;
        self.layer(&format!("{key}.proj_in"), &[c, c, 1, 1])?;
        let block = format!("{key}.transformer_blocks.0");
        for (attention, context) in [("attn1", c), ("attn2", CONTEXT)] {
            self.plain(&format!("{block}.{attention}.to_q"), &[c, c])?;
            self.plain(&format!("{block}.{attention}.to_k"), &[c, context])?;
            self.plain(&format!("{block}.{attention}.to_v"), &[c, context])?;
            self.layer(&format!("{block}.{attention}.to_out.0"), &[c, c])?;
        }
        for norm in ["norm1", "norm2", "norm3"] {
            self.norm(&format!("{block}.{norm}"), c)?;
        }
        self.layer(&format!("{block}.ff.net.0.proj"), &[8 * c, c])?;
        self.layer(&format!("{block}.ff.net.2"), &[c, 4 * c])?;
        self.layer(&format!("{key}.proj_out"), &[c, c, 1, 1])
    }
}

fn unet(t: &mut Tensors) -> Result<()> {
    let (first, last) = (LEVELS[0], LEVELS[3]);
    t.layer("conv_in", &[first, 4, 3, 3])?;
    t.layer("time_embedding.linear_1", &[TIME, first])?;
    t.layer("time_embedding.linear_2", &[TIME, TIME])?;
    // What the up blocks take, last in first out.
    let mut skips = vec![first];
    let mut channels = first;
    for (level, c) in LEVELS.into_iter().enumerate() {
        let block = format!("down_blocks.{level}");
        for j in 0..2 {
            t.resnet(&format!("{block}.resnets.{j}"), channels, c, Some(TIME))?;
            if level < 3 {
                t.transformer(&format!("{block}.attentions.{j}"), c)?;
            }
            channels = c;
            skips.push(c);
        }
        if level < 3 {
            t.layer(&format!("{block}.downsamplers.0.conv"), &[c, c, 3, 3])?;
            skips.push(c);
        }
    }
    t.resnet("mid_block.resnets.0", last, last, Some(TIME))?;
    t.transformer("mid_block.attentions.0", last)?;
    t.resnet("mid_block.resnets.1", last, last, Some(TIME))?;
    for (i, level) in (0..4).rev().enumerate() {
        let (block, c) = (format!("up_blocks.{i}"), LEVELS[level]);
        for j in 0..3 {
            let skip = skips.pop().ok_or("no skip is left")?;
            t.resnet(&format!("{block}.resnets.{j}"), channels + skip, c, Some(TIME))?;
            if level < 3 {
                t.transformer(&format!("{block}.attentions.{j}"), c)?;
            }
            channels = c;
        }
        if level > 0 {
            t.layer(&format!("{block}.upsamplers.0.conv"), &[c, c, 3, 3])?;
        }
    }
    t.norm("conv_norm_out", first)?;
    t.weight("conv_out.weight", &[4, first, 3, 3], LAST)?;
    t.constant("conv_out.bias", 0., 4)
}

fn vae(t: &mut Tensors) -> Result<()> {
    let last = VAE_LEVELS[3];
    t.layer("quant_conv", &[8, 8, 1, 1])?;
    t.layer("post_quant_conv", &[4, 4, 1, 1])?;
    for (part, ends) in [("encoder", (3, VAE_LEVELS[0], last, 8)), ("decoder", (4, last, 128, 3))] {
        let (input, first, end, output) = ends;
        t.layer(&format!("{part}.conv_in"), &[first, input, 3, 3])?;
        for j in 0..2 {
            t.resnet(&format!("{part}.mid_block.resnets.{j}"), last, last, None)?;
        }
        let attention = format!("{part}.mid_block.attentions.0");
        t.norm(&format!("{attention}.group_norm"), last)?;
        for layer in ["to_q", "to_k", "to_v", "to_out.0"] {
            t.layer(&format!("{attention}.{layer}"), &[last, last])?;
        }
        let down = part == "encoder";
        let (blocks, resnets, sampler) =
            if down { ("down", 2, "downsamplers") } else { ("up", 3, "upsamplers") };
        let mut channels = first;
        for i in 0..4 {
            let c = VAE_LEVELS[if down { i } else { 3 - i }];
            let block = format!("{part}.{blocks}_blocks.{i}");
            for j in 0..resnets {
                t.resnet(&format!("{block}.resnets.{j}"), channels, c, None)?;
                channels = c;
            }
            if i < 3 {
                t.layer(&format!("{block}.{sampler}.0.conv"), &[c, c, 3, 3])?;
            }
        }
        t.norm(&format!("{part}.conv_norm_out"), end)?;
        t.layer(&format!("{part}.conv_out"), &[output, end, 3, 3])?;
    }
    Ok(())
}

fn text_encoder(t: &mut Tensors) -> Result<()> {
    let d = CONTEXT;
    t.plain("text_model.embeddings.token_embedding", &[VOCABULARY, d])?;
    t.plain("text_model.embeddings.position_embedding", &[TOKENS, d])?;
    for i in 0..TEXT_LAYERS {
        let layer = format!("text_model.encoder.layers.{i}");
        for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            t.layer(&format!("{layer}.self_attn.{projection}"), &[d, d])?;
        }
        t.norm(&format!("{layer}.layer_norm1"), d)?;
        t.norm(&format!("{layer}.layer_norm2"), d)?;
        t.layer(&format!("{layer}.mlp.fc1"), &[4 * d, d])?;
        t.layer(&format!("{layer}.mlp.fc2"), &[d, 4 * d])?;
    }
    t.norm("text_model.final_layer_norm", d)
}
