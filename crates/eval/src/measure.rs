//! Measures images: similarity to the prompt and its parts, captions, presence of the subjects.
//!
//! Which of these depends on the models: any CLIP compares, one with a judge's line also says what is
//! there, a BLIP describes. Texts are embedded once, however many images share them. Not here: which
//! images, and what the figures come to (`report`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::path::{Path, PathBuf};

use excite_diffusion::picture::Picture;
use rayon::prelude::*;

use crate::binding::{Asked, BindingError, findings, things};
use crate::blip::Blip;
use crate::clip::{self, Clip, Embedding, Judge, Phrase};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::images::{Entry, ImagesError, Subject, read};
use crate::scores::{Binding, Bound, Presence, Score};
use crate::templates::split;

/// Of what is measured, raised by hand when the same models would give other figures.
const VERSION: u32 = 2;

/// Where the models are.
#[derive(Debug, Clone, Default)]
pub struct Models {
    /// Folder of a CLIP; the judge of the bundled model if there is none.
    pub clip: Option<PathBuf>,
    /// Folder of a BLIP; no captions if there is none.
    pub blip: Option<PathBuf>,
}

/// A CLIP that only compares, or one that also judges.
enum Eye {
    Compares(Clip),
    Judges(Judge),
}

/// The models of a measurement, and the texts they know already.
pub struct Meter {
    eye: Eye,
    blip: Option<Blip>,
    /// Whether it is the judge that attribute binding is measured with.
    binds: bool,
    measure: String,
    prompts: BTreeMap<String, Embedding>,
    phrases: BTreeMap<String, Phrase>,
}

impl Meter {
    /// Loads the models.
    ///
    /// # Errors
    /// If one cannot be loaded, or is of another architecture.
    pub fn load(models: &Models) -> Result<Self> {
        let folder = models.clip.as_deref().map_or_else(clip::bundled, Folder::at);
        let digest = folder.digest()?;
        let binds = digest == clip::bundled().digest()?;
        let mut measure = format!("v{VERSION} clip {digest}");
        let eye = match folder.has(clip::JUDGE) {
            true => Eye::Judges(Judge::of(&folder)?),
            false => Eye::Compares(Clip::of(&folder)?),
        };
        let blip = models.blip.as_deref().map(|path: &Path| {
            let folder = Folder::at(path);
            measure.push_str(&format!(" blip {}", folder.digest()?));
            Blip::of(&folder)
        });
        let blip = blip.transpose()?;
        Ok(Self { eye, blip, binds, measure, prompts: BTreeMap::new(), phrases: BTreeMap::new() })
    }

    /// What the figures are of: version, and digests of the models.
    pub fn measure(&self) -> &str {
        &self.measure
    }

    fn clip(&self) -> &Clip {
        match &self.eye {
            Eye::Compares(clip) => clip,
            Eye::Judges(judge) => judge.clip(),
        }
    }

    /// Embeds the texts that an image is compared with, if they are not known yet.
    ///
    /// # Errors
    /// If a text cannot be encoded.
    pub fn prepare(&mut self, entry: &Entry) -> Result<()> {
        let parts = split(&entry.prompt).into_iter().flatten();
        for text in std::iter::once(entry.prompt.clone()).chain(parts) {
            if !self.prompts.contains_key(&text) {
                let embedding = self.clip().prompt(&text)?;
                self.prompts.insert(text, embedding);
            }
        }
        let Eye::Judges(judge) = &self.eye else { return Ok(()) };
        for subject in &entry.subjects {
            if let Slot::Vacant(slot) = self.phrases.entry(phrase_of(&subject.word)) {
                let texts = judge.phrase(slot.key())?;
                slot.insert(texts);
            }
        }
        Ok(())
    }

    /// Measures an image whose texts are [prepared](Meter::prepare). The minimum object similarity
    /// is left out where nothing splits the prompt, that of the caption where it is empty.
    ///
    /// # Errors
    /// If a model fails.
    pub fn score(&self, entry: &Entry, picture: &Picture) -> Result<Score> {
        let mut score = Score::new(entry, &self.measure);
        let seen = self.clip().image(picture)?;
        let cosine = |text: &str| self.prompts.get(text).map(|text| seen.cosine(text));
        score.full = cosine(&entry.prompt);
        score.min_object = split(&entry.prompt)
            .and_then(|[first, second]| Some(cosine(&first)?.min(cosine(&second)?)));
        if let Eye::Judges(judge) = &self.eye {
            for subject in &entry.subjects {
                let Some(phrase) = self.phrases.get(&phrase_of(&subject.word)) else { continue };
                let logit = judge.presence(&seen, phrase);
                let word = subject.word.clone();
                score.presence.push(Presence { word, logit, present: logit > 0. });
            }
            if self.binds {
                score.binding = binding(judge, entry, picture)?;
            }
        }
        if let Some(blip) = &self.blip {
            let captions = blip.caption(std::slice::from_ref(picture))?;
            let caption = captions.into_iter().next().unwrap_or_default();
            // What says nothing has no similarity; the other figures of the image stand.
            if !caption.trim().is_empty() {
                let said = self.clip().caption(&caption)?;
                score.text_text = self.prompts.get(&entry.prompt).map(|prompt| said.cosine(prompt));
            }
            score.caption = Some(caption);
        }
        Ok(score)
    }

    /// Reads and measures images, on all cores; one result an image, in their order.
    pub fn scores(&mut self, entries: &[&Entry]) -> Vec<Result<Score, MeasureError>> {
        let prepared: Vec<Result<()>> = entries.iter().map(|entry| self.prepare(entry)).collect();
        let meter = &*self;
        let score = |(entry, prepared): (&&Entry, Result<()>)| {
            prepared?;
            let image = read(&entry.path)?;
            if image.sha256 != entry.sha256 {
                return Err(MeasureError::Changed(entry.name.clone()));
            }
            Ok(meter.score(entry, &image.picture)?)
        };
        entries.par_iter().zip(prepared).map(score).collect()
    }
}

/// `None` where the prompt has other words, or the picture another size, than it is measured for.
fn binding(judge: &Judge, entry: &Entry, picture: &Picture) -> Result<Option<Binding>> {
    let asked = |subject: &Subject| Asked::new(&subject.word, subject.colour.as_deref());
    let asked: Result<Vec<Asked>, _> = entry.subjects.iter().map(asked).collect();
    let Ok(asked) = asked else { return Ok(None) };
    let things = match things(picture, |crops| judge.clip().images(crops)) {
        Ok(things) => things,
        Err(BindingError::Clip(error)) => return Err(error),
        Err(BindingError::Size { .. } | BindingError::Judge { .. } | BindingError::Word { .. }) => {
            return Ok(None);
        }
    };
    let subjects = findings(&things, &asked).into_iter().map(|finding| Bound {
        word: finding.subject,
        colour: finding.colour,
        verdict: finding.verdict,
    });
    let subjects = subjects.collect();
    Ok(Some(Binding { subjects, things: things.into_iter().map(|thing| thing.subject).collect() }))
}

/// Why an image was not measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// It cannot be read.
    #[error(transparent)]
    Image(#[from] ImagesError),
    /// A model failed.
    #[error(transparent)]
    Model(#[from] Error),
    /// It is not the image that was found.
    #[error("`{0}` was changed meanwhile: run the evaluation again")]
    Changed(String),
}

/// In the paper's wording, which the bundled judge was trained with: the article is always "a".
fn phrase_of(word: &str) -> String {
    format!("a {word}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use excite_diffusion::picture::Picture;

    use super::*;

    fn entry(prompt: &str, words: &[&str]) -> Entry {
        let subject = |word: &&str| Subject { word: (*word).to_owned(), colour: None };
        Entry {
            path: "x.png".into(),
            name: "x.png".into(),
            sha256: "0".into(),
            prompt: prompt.into(),
            method: "none".into(),
            seed: Some(0),
            subset: None,
            labels: BTreeMap::new(),
            seconds: None,
            tries: 1,
            subjects: words.iter().map(subject).collect(),
            attended: None,
        }
    }

    #[test]
    fn the_bundled_judge_measures_what_applies() {
        let mut meter = Meter::load(&Models::default()).unwrap();
        assert!(meter.measure().starts_with("v2 clip "), "{}", meter.measure());
        let picture = Picture::filled(128, 128, [250, 250, 240]);
        let two = entry("a cat and a red car", &["cat", "car"]);
        meter.prepare(&two).unwrap();
        let score = meter.score(&two, &picture).unwrap();
        let words: Vec<_> = score.presence.iter().map(|p| (p.word.as_str(), p.present)).collect();
        assert_eq!(words, [("cat", false), ("car", false)], "nothing is on an empty ground");
        assert!(score.full.is_some() && score.min_object.is_some() && score.caption.is_none());
        let one = entry("a cat", &["cat"]);
        meter.prepare(&one).unwrap();
        assert_eq!(meter.score(&one, &picture).unwrap().min_object, None);
        // The same folder on disk is the same measure.
        let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji-clip");
        let on_disk = Meter::load(&Models { clip: Some(clip), blip: None }).unwrap();
        assert_eq!(on_disk.measure(), meter.measure());
    }
}
