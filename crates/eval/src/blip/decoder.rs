//! BLIP's text decoder: BERT with a causal mask that also reads the picture's states.
//!
//! Keys and values of what was read are kept for each beam, so a step costs one token a beam; the
//! picture's keys and values are made once. Norms stand behind each sum here, unlike in the vision
//! tower.

use std::path::PathBuf;

use candle_core::{Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module};
use serde::Deserialize;

use crate::error::Error;
use crate::folder::Scope;
use crate::transformer::{Activation, Sizes, attention, causal, layer_norm, linear};

/// `text_config`, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    pub(super) max_position_embeddings: usize,
    hidden_act: Activation,
    layer_norm_eps: f64,
    /// Begins a caption.
    pub(super) bos_token_id: u32,
    /// Ends a caption; `eos_token_id` is not used.
    pub(super) sep_token_id: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30524,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            bos_token_id: 30522,
            sep_token_id: 102,
        }
    }
}

pub(super) struct Decoder {
    /// `[vocab, d]`
    words: Tensor,
    /// `[positions, d]`
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    transform: Linear,
    transform_norm: LayerNorm,
    /// To the vocabulary.
    head: Linear,
    sizes: Sizes,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    own: Residual,
    cross_query: Linear,
    cross_key: Linear,
    cross_value: Linear,
    cross: Residual,
    inner: Linear,
    outer: Residual,
}

/// A projection whose result is added to what went in and normalised.
struct Residual {
    dense: Linear,
    norm: LayerNorm,
}

/// What a decoder has read for the beams of one picture: first the prompt, then one token a time.
pub(super) struct Memory {
    /// Of each layer: the picture's keys and values, `[heads, patches, size]`.
    picture: Vec<(Tensor, Tensor)>,
    /// Of each layer: keys and values of the tokens so far, `[beams, heads, tokens, size]`.
    read: Vec<(Tensor, Tensor)>,
    tokens: usize,
}

impl Decoder {
    /// `seen`: channels of the picture's states.
    pub(super) fn load(
        scope: &Scope<'_>,
        config: &Config,
        seen: usize,
        path: PathBuf,
    ) -> crate::Result<Self> {
        let (d, vocab, eps) = (config.hidden_size, config.vocab_size, config.layer_norm_eps);
        let sizes = Sizes {
            width: d,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            eps,
            activation: config.hidden_act,
        };
        sizes.check(path.clone(), "text_config")?;
        for (field, id) in
            [("bos_token_id", config.bos_token_id), ("sep_token_id", config.sep_token_id)]
        {
            if id as usize >= vocab {
                let message = format!("`{field}` is {id}, but `vocab_size` is {vocab}");
                return Err(Error::Malformed { path, message });
            }
        }
        let (bert, head) = (scope.at("bert"), scope.at("cls.predictions"));
        let embeddings = bert.at("embeddings");
        let words = embeddings.get("word_embeddings.weight", &[vocab, d])?;
        // Tied to the embeddings; whether a copy stands in the file is up to who wrote it.
        let decoder = match head.has("decoder.weight") {
            true => head.get("decoder.weight", &[vocab, d])?,
            false => words.clone(),
        };
        let mut bias = None;
        for name in ["decoder.bias", "bias"].into_iter().filter(|name| head.has(name)) {
            bias = Some(head.get(name, &[vocab])?);
        }
        let layer = |i| Layer::load(&bert.at(&format!("encoder.layer.{i}")), &sizes, seen);
        let positions = [config.max_position_embeddings, d];
        Ok(Self {
            positions: embeddings.get("position_embeddings.weight", &positions)?,
            norm: layer_norm(&embeddings.at("LayerNorm"), d, eps)?,
            layers: (0..sizes.layers).map(layer).collect::<crate::Result<_>>()?,
            transform: linear(&head.at("transform.dense"), d, d)?,
            transform_norm: layer_norm(&head.at("transform.LayerNorm"), d, eps)?,
            head: Linear::new(decoder, bias),
            words,
            sizes,
        })
    }

    /// The memory of a picture with states `[patches, seen]` before anything was read.
    pub(super) fn look(&self, states: &Tensor) -> Result<Memory> {
        let heads = |x: Tensor| {
            let n = x.dims2()?.0;
            x.reshape((n, self.sizes.heads, self.size()))?.transpose(0, 1)?.contiguous()
        };
        let picture = self.layers.iter().map(|layer| {
            let (key, value) =
                (layer.cross_key.forward(states)?, layer.cross_value.forward(states)?);
            Ok((heads(key)?, heads(value)?))
        });
        let picture = picture.collect::<Result<_>>()?;
        Ok(Memory { picture, read: Vec::new(), tokens: 0 })
    }

    /// Reads the same number of tokens for each beam, the beams coming one after the other in
    /// `tokens`, each continuing what beam `parents[i]` had read. Returns the logits of the token
    /// that follows, `[beams, vocab]`.
    pub(super) fn read(
        &self,
        memory: &mut Memory,
        tokens: &[u32],
        parents: &[u32],
    ) -> Result<Tensor> {
        let device = self.words.device();
        let (beams, n) = (parents.len(), tokens.len() / parents.len());
        let follows = Tensor::from_slice(parents, beams, device)?;
        let ids = Tensor::from_slice(tokens, tokens.len(), device)?;
        let positions = self.positions.narrow(0, memory.tokens, n)?.repeat((beams, 1))?;
        let mut x = self.norm.forward(&(self.words.index_select(&ids, 0)? + positions)?)?;
        let mut read = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let mut key = self.own(&layer.key, &x, beams)?;
            let mut value = self.own(&layer.value, &x, beams)?;
            if let Some((old_key, old_value)) = memory.read.get(i) {
                key = Tensor::cat(&[old_key.index_select(&follows, 0)?, key], 2)?;
                value = Tensor::cat(&[old_value.index_select(&follows, 0)?, value], 2)?;
            }
            let query = self.own(&layer.query, &x, beams)?;
            x = layer.own.add(&x, &self.attend(&query, &key, &value)?)?;
            x = layer
                .cross
                .add(&x, &self.attend_to(&memory.picture[i], &layer.cross_query, &x)?)?;
            let inner = self.sizes.activation.forward(&layer.inner.forward(&x)?)?;
            x = layer.outer.add(&x, &inner)?;
            read.push((key, value));
        }
        memory.read = read;
        memory.tokens += n;
        let last = x.reshape((beams, n, self.sizes.width))?.narrow(1, n - 1, 1)?.squeeze(1)?;
        let last = self.sizes.activation.forward(&self.transform.forward(&last.contiguous()?)?)?;
        self.head.forward(&self.transform_norm.forward(&last)?)
    }

    /// Channels of a head.
    fn size(&self) -> usize {
        self.sizes.width / self.sizes.heads
    }

    fn scaled(&self, query: &Tensor) -> Result<Tensor> {
        query / (self.size() as f64).sqrt()
    }

    /// `[beams * n, d]` through `layer` to `[beams, heads, n, size]`.
    fn own(&self, layer: &Linear, x: &Tensor, beams: usize) -> Result<Tensor> {
        let n = x.dims2()?.0 / beams;
        let heads = layer.forward(x)?.reshape((beams, n, self.sizes.heads, self.size()))?;
        heads.transpose(1, 2)?.contiguous()
    }

    /// What each beam reads from its own tokens, `[beams * n, d]`.
    fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let (beams, _, n, _) = query.dims4()?;
        let mut scores = self.scaled(query)?.matmul(&key.t()?)?;
        // Several tokens are read at once only at the start.
        if n > 1 {
            scores = scores.broadcast_add(&causal(n, query.device())?)?;
        }
        let read = candle_nn::ops::softmax_last_dim(&scores)?.matmul(value)?;
        read.transpose(1, 2)?.reshape((beams * n, self.sizes.width))
    }

    /// What `[rows, d]` read from keys and values of a picture, `[rows, d]`.
    fn attend_to(
        &self,
        (key, value): &(Tensor, Tensor),
        query: &Linear,
        x: &Tensor,
    ) -> Result<Tensor> {
        let query = self.scaled(&query.forward(x)?)?;
        let query = query.reshape((x.dims2()?.0, self.sizes.heads, self.size()))?;
        attention(&query.transpose(0, 1)?.contiguous()?, key, value, None)
    }
}

impl Layer {
    fn load(scope: &Scope<'_>, sizes: &Sizes, seen: usize) -> crate::Result<Self> {
        let (d, inner) = (sizes.width, sizes.inner);
        let (own, cross) = (scope.at("attention.self"), scope.at("crossattention.self"));
        let residual = |name: &str, from| Residual::load(&scope.at(name), from, sizes);
        Ok(Self {
            query: linear(&own.at("query"), d, d)?,
            key: linear(&own.at("key"), d, d)?,
            value: linear(&own.at("value"), d, d)?,
            own: residual("attention.output", d)?,
            cross_query: linear(&cross.at("query"), d, d)?,
            cross_key: linear(&cross.at("key"), seen, d)?,
            cross_value: linear(&cross.at("value"), seen, d)?,
            cross: residual("crossattention.output", d)?,
            inner: linear(&scope.at("intermediate.dense"), d, inner)?,
            outer: residual("output", inner)?,
        })
    }
}

impl Residual {
    fn load(scope: &Scope<'_>, from: usize, sizes: &Sizes) -> crate::Result<Self> {
        let dense = linear(&scope.at("dense"), from, sizes.width)?;
        Ok(Self { dense, norm: layer_norm(&scope.at("LayerNorm"), sizes.width, sizes.eps)? })
    }

    fn add(&self, x: &Tensor, change: &Tensor) -> Result<Tensor> {
        self.norm.forward(&(self.dense.forward(change)? + x)?)
    }
}
