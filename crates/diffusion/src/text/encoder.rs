//! One CLIP text encoder: 77 token ids to 77 states.
//!
//! There is no padding mask: pads go through the encoder (causal mask only) and are attended to
//! later. Which of its states a model uses is not decided here (`text`).

use candle_core::{Device, Result, Tensor};
use excite_prompt::CONTEXT;
use serde::Deserialize;

use crate::error::Error;
use crate::folder::Loader;
use crate::layers::{LayerNorm, Linear, softmax};
use crate::weights::Scope;

#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    #[serde(default = "default_eps")]
    layer_norm_eps: f64,
    #[serde(default)]
    projection_dim: Option<usize>,
}

fn default_eps() -> f64 {
    1e-5
}

/// A text encoder.
pub(super) struct Encoder {
    /// `[vocab, d]`
    tokens: Tensor,
    /// `[77, d]`
    positions: Tensor,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    /// To the pooled state, if it has one.
    projection: Option<Linear>,
    /// `[77, 77]`: 0 on and below the diagonal, minus infinity above.
    causal: Tensor,
}

#[derive(Clone, Copy)]
enum Activation {
    QuickGelu,
    Gelu,
}

struct Layer {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
}

/// What an encoder gives for a text.
pub(super) struct States {
    /// Behind the last layer and the final norm, `[1, 77, d]`.
    pub(super) last: Tensor,
    /// In front of the last layer, `[1, 77, d]`.
    pub(super) penultimate: Tensor,
}

impl Encoder {
    /// Loads the component `folder` ("text_encoder", "text_encoder_2").
    pub(super) fn load(loader: &mut Loader<'_>, folder: &str) -> crate::Result<Self> {
        let file = format!("{folder}/config.json");
        let config: Config = loader.json(&file)?;
        let activation = match config.hidden_act.as_str() {
            "quick_gelu" => Activation::QuickGelu,
            "gelu" => Activation::Gelu,
            other => {
                return Err(Error::Unsupported {
                    file,
                    field: "hidden_act".into(),
                    value: format!("`{other}`"),
                    remedy: "Use a text encoder with `quick_gelu` or `gelu`.".into(),
                });
            }
        };
        let wrong = |message: String| Error::Config { file: file.clone(), message };
        if config.max_position_embeddings != CONTEXT {
            let found = config.max_position_embeddings;
            return Err(wrong(format!("`max_position_embeddings` is {found}, not {CONTEXT}")));
        }
        let (d, heads) = (config.hidden_size, config.num_attention_heads);
        if heads == 0 || !d.is_multiple_of(heads) {
            return Err(wrong(format!("{heads} attention heads do not divide {d} channels")));
        }
        if config.num_hidden_layers == 0 {
            return Err(wrong("`num_hidden_layers` is 0".into()));
        }
        let weights = loader.weights(folder, "model")?;
        let compute = loader.compute();
        let projection = weights.root().has("text_projection").then(|| {
            let pooled = config.projection_dim.unwrap_or(d);
            Linear::load(&weights.root().at("text_projection"), (d, pooled))
        });
        let root = weights.root();
        let root = if root.has("text_model") { root.at("text_model") } else { root };
        let layer = |i| Layer::load(&root.at(&format!("encoder.layers.{i}")), &config, activation);
        let mask: Vec<f32> = (0..CONTEXT * CONTEXT)
            .map(|i| if i % CONTEXT > i / CONTEXT { f32::NEG_INFINITY } else { 0. })
            .collect();
        let encoder = Self {
            tokens: root.get("embeddings.token_embedding.weight", &[config.vocab_size, d])?,
            positions: root.get("embeddings.position_embedding.weight", &[CONTEXT, d])?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<crate::Result<_>>()?,
            final_norm: LayerNorm::load(&root.at("final_layer_norm"), d, config.layer_norm_eps)?,
            projection: projection.transpose()?,
            causal: compute.enter(&Tensor::from_vec(mask, (CONTEXT, CONTEXT), &Device::Cpu)?)?,
        };
        weights.require_all_used()?;
        Ok(encoder)
    }

    /// Channels of the states.
    pub(super) fn width(&self) -> usize {
        self.tokens.dims()[1]
    }

    /// Channels of the pooled state, if the encoder projects one.
    pub(super) fn pooled_width(&self) -> Option<usize> {
        self.projection.as_ref().map(Linear::width)
    }

    /// The states of token ids.
    ///
    /// # Errors
    /// If an id is not in the vocabulary.
    pub(super) fn states(&self, ids: &[u32; CONTEXT]) -> crate::Result<States> {
        let ids = Tensor::from_slice(ids, CONTEXT, self.tokens.device())?;
        let embedded = (self.tokens.index_select(&ids, 0)? + &self.positions)?;
        let mut last = embedded.unsqueeze(0)?;
        let mut penultimate = last.clone();
        for layer in &self.layers {
            penultimate = last;
            last = layer.forward(&penultimate, &self.causal)?;
        }
        Ok(States { last: self.final_norm.forward(&last)?, penultimate })
    }

    /// The pooled state `[1, p]`: that of the end-of-text token at position `eot`, projected.
    ///
    /// # Errors
    /// If the encoder has no projection.
    pub(super) fn pooled(&self, states: &States, eot: usize) -> crate::Result<Tensor> {
        let Some(projection) = &self.projection else {
            return Err(Error::Spec("this text encoder has no pooled state".into()));
        };
        Ok(projection.forward(&states.last.narrow(1, eot, 1)?)?.squeeze(1)?)
    }
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &Config, activation: Activation) -> crate::Result<Self> {
        let (d, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let projection = |name: &str| Linear::load(&scope.at("self_attn").at(name), (d, d));
        Ok(Self {
            norm1: LayerNorm::load(&scope.at("layer_norm1"), d, eps)?,
            query: projection("q_proj")?,
            key: projection("k_proj")?,
            value: projection("v_proj")?,
            out: projection("out_proj")?,
            norm2: LayerNorm::load(&scope.at("layer_norm2"), d, eps)?,
            fc1: Linear::load(&scope.at("mlp.fc1"), (d, inner))?,
            fc2: Linear::load(&scope.at("mlp.fc2"), (inner, d))?,
            heads: config.num_attention_heads,
            activation,
        })
    }

    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let x = (x + self.attend(&self.norm1.forward(x)?, mask)?)?;
        let h = self.fc1.forward(&self.norm2.forward(&x)?)?;
        let h = match self.activation {
            Activation::QuickGelu => (&h * candle_nn::ops::sigmoid(&(&h * 1.702)?)?)?,
            Activation::Gelu => h.gelu_erf()?,
        };
        x + self.fc2.forward(&h)?
    }

    fn attend(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (b, n, d) = x.dims3()?;
        let heads = |t: Tensor| {
            t.reshape((b, n, self.heads, d / self.heads))?.transpose(1, 2)?.contiguous()
        };
        let query = (heads(self.query.forward(x)?)? / ((d / self.heads) as f64).sqrt())?;
        let (key, value) = (heads(self.key.forward(x)?)?, heads(self.value.forward(x)?)?);
        let probabilities = softmax(&query.matmul(&key.t()?)?.broadcast_add(mask)?)?;
        let probabilities = probabilities.to_dtype(value.dtype())?;
        let out = probabilities.matmul(&value)?.transpose(1, 2)?.reshape((b, n, d))?;
        self.out.forward(&out)
    }
}
