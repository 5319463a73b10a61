//! Texts as the UNet sees them: which tokenizers and encoders, and which of their states.
//!
//! SD 1.x takes the last states of one encoder behind its final norm; SD 2.x ships an encoder that
//! is already cut to its penultimate layer, so the same code serves both. SDXL joins the
//! penultimate states of two encoders, without the final norm, and pools the second one's last.

mod encoder;

use candle_core::Tensor;
use excite_prompt::{Encoding, Tokenizer};

use crate::device::leave;
use crate::error::{Error, Result};
use crate::folder::Loader;
use encoder::Encoder;

/// What the UNet is told of a text, f32 on the CPU.
#[derive(Debug, Clone)]
pub struct TextStates {
    /// `[1, 77, d]`
    pub states: Tensor,
    /// `[1, p]`, for UNets that take it (SDXL).
    pub pooled: Option<Tensor>,
}

/// Tokenizers and text encoders of a model.
pub(crate) struct Text {
    tokenizer: Tokenizer,
    encoder: Encoder,
    second: Option<Second>,
}

/// What SDXL has besides.
struct Second {
    tokenizer: Tokenizer,
    encoder: Encoder,
    /// `force_zeros_for_empty_prompt`: no negative prompt is not the text "" but zeros.
    zeros_for_nothing: bool,
}

impl Text {
    /// One encoder, or two.
    pub(crate) fn load(loader: &mut Loader<'_>, second: Option<ZerosForNothing>) -> Result<Self> {
        let tokenizer = load_tokenizer(loader, "tokenizer")?;
        let encoder = Encoder::load(loader, "text_encoder")?;
        let second = second.map(|ZerosForNothing(zeros_for_nothing)| {
            let tokenizer = load_tokenizer(loader, "tokenizer_2")?;
            let encoder = Encoder::load(loader, "text_encoder_2")?;
            Ok::<_, Error>(Second { tokenizer, encoder, zeros_for_nothing })
        });
        Ok(Self { tokenizer, encoder, second: second.transpose()? })
    }

    /// The tokenizer by which words are found; positions are the same in both.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Whether a tokenizer pads with token 0 ("!"), as SD 2.x and SDXL do: such pads swamp the
    /// second softmax if they compete there.
    pub(crate) fn pads_with_zero(&self) -> bool {
        let second = self.second.as_ref().map(|second| second.tokenizer.pad());
        self.tokenizer.pad() == 0 || second == Some(0)
    }

    /// Channels of the states.
    pub(crate) fn width(&self) -> usize {
        self.encoder.width() + self.second.as_ref().map_or(0, |second| second.encoder.width())
    }

    /// Channels of the pooled state.
    pub(crate) fn pooled_width(&self) -> Option<usize> {
        self.second.as_ref().and_then(|second| second.encoder.pooled_width())
    }

    pub(crate) fn encode(&self, model: &str, text: &str) -> Result<Encoding> {
        tokenize(&self.tokenizer, model, text)
    }

    /// The states of a prompt.
    pub(crate) fn states(&self, model: &str, text: &str) -> Result<TextStates> {
        let encoding = self.encode(model, text)?;
        let first = self.encoder.states(&encoding.ids)?;
        let Some(Second { tokenizer, encoder, .. }) = &self.second else {
            return Ok(TextStates { states: leave(&first.last)?, pooled: None });
        };
        let encoding = tokenize(tokenizer, model, text)?;
        let second = encoder.states(&encoding.ids)?;
        // The pooled state is that of the first end-of-text token, even one written in the prompt.
        let end = encoding.ids[encoding.eot];
        let eot = encoding.ids.iter().position(|id| *id == end).unwrap_or(encoding.eot);
        Ok(TextStates {
            states: leave(&Tensor::cat(&[&first.penultimate, &second.penultimate], 2)?)?,
            pooled: Some(leave(&encoder.pooled(&second, eot)?)?),
        })
    }

    /// The states of a negative prompt; "" is none.
    pub(crate) fn negative_states(&self, model: &str, text: &str) -> Result<TextStates> {
        let states = self.states(model, text)?;
        let zeros = self.second.as_ref().is_some_and(|second| second.zeros_for_nothing);
        if !zeros || !text.is_empty() {
            return Ok(states);
        }
        let pooled = states.pooled.map(|pooled| pooled.zeros_like()).transpose()?;
        Ok(TextStates { states: states.states.zeros_like()?, pooled })
    }
}

/// Whether a pipeline with two encoders takes zeros where there is no negative prompt.
pub(crate) struct ZerosForNothing(pub(crate) bool);

fn tokenize(tokenizer: &Tokenizer, model: &str, text: &str) -> Result<Encoding> {
    let failed = |source| Error::Tokenizer { model: model.to_owned(), source };
    tokenizer.encode(text).map_err(failed)
}

pub(crate) fn load_tokenizer(loader: &mut Loader<'_>, folder: &str) -> Result<Tokenizer> {
    let special = format!("{folder}/special_tokens_map.json");
    let vocab = loader.bytes(&format!("{folder}/vocab.json"))?;
    let merges = loader.bytes(&format!("{folder}/merges.txt"))?;
    let special = loader.exists(&special).then(|| loader.bytes(&special)).transpose()?;
    Tokenizer::new(&vocab, &merges, special.as_deref())
        .map_err(|source| Error::Tokenizer { model: loader.model().to_owned(), source })
}
