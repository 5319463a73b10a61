//! Texts as the UNet is told them, each encoded once, however many images of a run share it.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use excite_jobs::NounPhrase;

use crate::error::Result;
use crate::guidance::structure::value_states;
use crate::model::Model;
use crate::text::TextStates;
use crate::unet::Conditioning;

/// The texts of a run.
pub(super) struct Texts<'m> {
    pub(super) model: &'m Model,
    /// Height and width of the images in pixels.
    size: (usize, usize),
    /// By text and whether it is a negative prompt.
    seen: HashMap<(String, bool), (TextStates, Arc<Conditioning>)>,
    /// By text and its phrases.
    structured: HashMap<(String, Vec<NounPhrase>), Arc<Conditioning>>,
}

impl<'m> Texts<'m> {
    pub(super) fn new(model: &'m Model, size: (usize, usize)) -> Self {
        Self { model, size, seen: HashMap::new(), structured: HashMap::new() }
    }

    /// The states `[77, d]` of a prompt and what the UNet is told.
    pub(super) fn prompt(&mut self, text: &str) -> Result<(Tensor, Arc<Conditioning>)> {
        let (text, conditioning) = self.get(text, false)?;
        Ok((text.states.squeeze(0)?, conditioning))
    }

    /// What the UNet is told of a negative prompt.
    pub(super) fn negative(&mut self, text: &str) -> Result<Arc<Conditioning>> {
        Ok(self.get(text, true)?.1)
    }

    /// What the UNet is told of a prompt whose values have its phrases encoded on their own.
    pub(super) fn structured(
        &mut self,
        text: &str,
        phrases: &[NounPhrase],
    ) -> Result<Arc<Conditioning>> {
        let key = (text.to_owned(), phrases.to_vec());
        if let Some(known) = self.structured.get(&key) {
            return Ok(known.clone());
        }
        let (prompt, plain) = self.get(text, false)?;
        let states = |phrase: &NounPhrase| Ok(self.model.text_states(&phrase.text)?.states);
        let own = phrases.iter().map(states).collect::<Result<Vec<_>>>()?;
        let own: Vec<_> = phrases.iter().zip(own).collect();
        let values = TextStates { states: value_states(&prompt.states, &own)?, ..prompt };
        let values = self.model.unet().condition(&values, self.size)?;
        let conditioning = Arc::new(plain.with_values_of(&values));
        self.structured.insert(key, conditioning.clone());
        Ok(conditioning)
    }

    fn get(&mut self, text: &str, negative: bool) -> Result<(TextStates, Arc<Conditioning>)> {
        let key = (text.to_owned(), negative);
        if let Some(known) = self.seen.get(&key) {
            return Ok(known.clone());
        }
        let states = match negative {
            true => self.model.negative_text_states(text)?,
            false => self.model.text_states(text)?,
        };
        let conditioning = Arc::new(self.model.unet().condition(&states, self.size)?);
        let entry = (states, conditioning);
        self.seen.insert(key, entry.clone());
        Ok(entry)
    }
}
