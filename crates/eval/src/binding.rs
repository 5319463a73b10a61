//! Attribute binding: is the colour that a prompt gives a subject on that subject?
//!
//! For pictures of the bundled model: sprites on a pale ground, 128 by 128. [`things`] finds the
//! regions of a picture, without the method's attention maps, names the subject of each from the
//! judge's feature of its crop (`emoji-clip`) and its colour from its pixels; [`findings`] compares
//! that with a prompt. What is not clear is undecided and is counted as such: a share of right
//! verdicts means nothing without the share that was decided. The error of each verdict stands in
//! `docs/evaluation.md`, measured on pictures of known content (`tests/peers/eval_composites.py`).
//!
//! Not here: the CLIP itself (`clip`), pictures of other models, which have no plain ground.

mod colour;
mod crop;
mod heads;
mod mask;
mod regions;

use excite_diffusion::picture::Picture;
use serde::{Deserialize, Serialize};

pub use colour::Colour;
pub use mask::Bounds;

use crate::clip::Embedding;
use heads::{HEADS, likeliest};
use mask::Mask;
use regions::Scene;

/// A subject is named above this probability, and a cut taken if both halves are. Chosen on the
/// pictures that the readings were fitted on: below, more subjects are called absent that are there.
const CERTAIN: f32 = 0.7;
/// A subject is absent if every thing is named as something else above this probability. Stricter
/// than [`CERTAIN`]: a thing in an odd shape or colour is named wrongly rather than not at all, and
/// then what it is would be taken for absent.
const ABSENT_CERTAIN: f32 = 0.9;
/// A smaller region is not cut.
const CUT_AREA_MIN: usize = 300;
/// Cuts looked at closely, of all that are tried.
const CUTS_KEPT: usize = 3;
/// Things in one region, at most: one cut leaves two, a second one three.
const CUTS_DEEP: u8 = 2;

/// Why a picture cannot be measured, or a prompt not be compared.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// The constants here are pixels of the bundled model's pictures.
    #[error("the picture is {width}x{height}, not 128x128; measure pictures of the emoji model")]
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The features are not those of the judge that the readings were fitted for.
    #[error("the judge gave {found} features of {width} values; use `emoji-clip`")]
    Judge {
        /// How many.
        found: usize,
        /// Length of the first that is wrong, or of the first.
        width: usize,
    },
    /// A subject or colour that is not one of the paper's.
    #[error("`{field}` is `{value}`, not one of {words}")]
    Word {
        /// `subject` or `colour`.
        field: &'static str,
        /// What was asked for.
        value: String,
        /// What is known.
        words: String,
    },
    /// The judge failed.
    #[error(transparent)]
    Clip(#[from] crate::Error),
}

/// A thing that a picture shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Thing {
    /// Where.
    pub region: Bounds,
    /// One of the paper's twelve animals and twelve objects; `None` if that is not clear.
    pub subject: Option<String>,
    /// Probability of the likeliest subject, 0..1; 0 where it rather is a part of a thing, or several.
    pub certainty: f32,
    /// Its colour.
    pub colour: Colour,
}

/// A subject of a prompt, with the colour that the prompt gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    subject: String,
    colour: Option<String>,
}

/// What a picture makes of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is there; the prompt gives it no colour.
    Shown,
    /// It is there in its colour.
    Right,
    /// It has the colour of another subject of the prompt.
    Swapped,
    /// It has a colour that the prompt gives to nothing.
    Wrong,
    /// It has several colours.
    Mixed,
    /// It is not there.
    Absent,
    /// It cannot be told.
    Undecided,
}

/// The verdict on a subject, and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// As asked for.
    pub subject: String,
    /// As asked for.
    pub colour: Option<String>,
    /// The thing that decided: the one that is right, or else the first of this subject.
    pub thing: Option<Thing>,
    /// What it means.
    pub verdict: Verdict,
}

impl Asked {
    /// A subject, with or without a colour.
    ///
    /// # Errors
    /// [`BindingError::Word`] if the paper's prompts have no such word.
    pub fn new(subject: &str, colour: Option<&str>) -> Result<Self, BindingError> {
        let subjects = &HEADS.subject.names[..HEADS.subject.names.len() - 1];
        known("subject", subject, subjects)?;
        if let Some(colour) = colour {
            known("colour", colour, &HEADS.colour.names)?;
        }
        Ok(Self { subject: subject.to_owned(), colour: colour.map(str::to_owned) })
    }
}

fn known(field: &'static str, value: &str, words: &[String]) -> Result<(), BindingError> {
    if words.iter().any(|word| word == value) {
        return Ok(());
    }
    Err(BindingError::Word { field, value: value.to_owned(), words: words.join(", ") })
}

/// A region and the probabilities of what it shows.
type Named = (Mask, Vec<f32>);

/// The things in a picture, the largest regions first.
///
/// `embed` is the judge: unit features of pictures 128 by 128, in their order
/// ([`crate::clip::Clip::images`] of `emoji-clip`). It is asked for 4 crops a region, and for about
/// 70 where a region has to be cut.
///
/// # Errors
/// If the picture has another size, or if the judge fails or is another one.
pub fn things<E>(picture: &Picture, embed: E) -> Result<Vec<Thing>, BindingError>
where
    E: Fn(&[Picture]) -> crate::Result<Vec<Embedding>>,
{
    let (width, height) = (picture.width(), picture.height());
    if (width as usize, height as usize) != (crop::SIZE, crop::SIZE) {
        return Err(BindingError::Size { width, height });
    }
    let look = Look { picture, scene: Scene::of(picture), embed };
    let mut named = vec![];
    let regions = look.scene.regions.clone();
    let read = look.read(&regions, &crop::SHIFTS)?;
    for region in regions.into_iter().zip(read) {
        named.extend(look.settled(region, CUTS_DEEP)?);
    }
    let thing = |(mask, read): Named| Thing {
        region: mask.bounds(),
        subject: is_certain(&read).then(|| HEADS.subject.names[likeliest(&read).0].clone()),
        certainty: if likeliest(&read).0 < read.len() - 1 { one_thing(&read) } else { 0. },
        colour: colour::colour(&look.scene.lab, &mask),
    };
    Ok(named.into_iter().map(thing).collect())
}

/// Probability that a region shows one thing, the likeliest.
fn one_thing(read: &[f32]) -> f32 {
    likeliest(&read[..read.len() - 1]).1
}

fn is_certain(read: &[f32]) -> bool {
    one_thing(read) >= CERTAIN
}

/// One picture under the judge's eye.
struct Look<'a, E> {
    picture: &'a Picture,
    scene: Scene,
    embed: E,
}

impl<E> Look<'_, E>
where
    E: Fn(&[Picture]) -> crate::Result<Vec<Embedding>>,
{
    /// Probabilities of the subjects for each region, from the mean feature over the shifts.
    fn read(&self, regions: &[Mask], shifts: &[(i32, i32)]) -> Result<Vec<Vec<f32>>, BindingError> {
        let crops: Vec<Picture> = regions
            .iter()
            .flat_map(|region| crop::crops(self.picture, &self.scene, region, shifts))
            .collect();
        let features = (self.embed)(&crops)?;
        let width = HEADS.subject.width();
        let strange = features.iter().map(|f| f.values().len()).find(|len| *len != width);
        if features.len() != crops.len() || strange.is_some() {
            let width = strange.unwrap_or(width);
            return Err(BindingError::Judge { found: features.len(), width });
        }
        let means = features.chunks_exact(shifts.len()).map(Embedding::mean);
        means.map(|mean| Ok(HEADS.subject.read(mean?.values()))).collect()
    }

    /// The region itself if it clearly is one thing, else its parts if a cut makes them clear, else
    /// itself, unclear.
    fn settled(&self, region: Named, deep: u8) -> Result<Vec<Named>, BindingError> {
        if is_certain(&region.1) || deep == 0 || region.0.area() < CUT_AREA_MIN {
            return Ok(vec![region]);
        }
        let cuts = region.0.cuts();
        let halves: Vec<Mask> = cuts.iter().flatten().cloned().collect();
        let read = self.read(&halves, &crop::SHIFTS[..1])?;
        let glances: Vec<[f32; 2]> =
            read.chunks_exact(2).map(|pair| [one_thing(&pair[0]), one_thing(&pair[1])]).collect();

        let both = self.closely(&cuts, &glances, |[one, other]| one.min(*other))?;
        if let Some(pair) = both.into_iter().next().filter(|p| p.iter().all(|h| is_certain(&h.1))) {
            return Ok(pair.into());
        }
        if deep == CUTS_DEEP {
            // One thing is clear on one side: the rest may be two.
            for [one, other] in self.closely(&cuts, &glances, |[one, other]| one.max(*other))? {
                let (clear, rest) = if one_thing(&one.1) >= one_thing(&other.1) {
                    (one, other)
                } else {
                    (other, one)
                };
                if !is_certain(&clear.1) || rest.0.area() < CUT_AREA_MIN {
                    continue;
                }
                let mut parts = self.settled(rest, deep - 1)?;
                if parts.iter().all(|part| is_certain(&part.1)) {
                    parts.insert(0, clear);
                    return Ok(parts);
                }
            }
        }
        Ok(vec![region])
    }

    /// The best cuts by what a glance at them is worth, read with all shifts, the best first.
    fn closely(
        &self,
        cuts: &[[Mask; 2]],
        glances: &[[f32; 2]],
        worth: impl Fn(&[f32; 2]) -> f32,
    ) -> Result<Vec<[Named; 2]>, BindingError> {
        let mut order: Vec<usize> = (0..cuts.len()).collect();
        order.sort_by(|a, b| worth(&glances[*b]).total_cmp(&worth(&glances[*a])));
        let mut pairs = vec![];
        for cut in order.into_iter().take(CUTS_KEPT) {
            let [one, other] = &cuts[cut];
            let read = self.read(&cuts[cut], &crop::SHIFTS)?;
            let value = worth(&[one_thing(&read[0]), one_thing(&read[1])]);
            let pair = [(one.clone(), read[0].clone()), (other.clone(), read[1].clone())];
            pairs.push((value, pair));
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(pairs.into_iter().map(|(_, pair)| pair).collect())
    }
}

/// What the things in a picture make of a prompt's subjects, in their order.
///
/// Of several things of one subject, one that is right is enough. A subject is absent only if every
/// thing in the picture clearly is something else.
pub fn findings(things: &[Thing], asked: &[Asked]) -> Vec<Finding> {
    let finding = |at: usize| {
        let Asked { subject, colour } = &asked[at];
        let mine: Vec<&Thing> =
            things.iter().filter(|thing| thing.subject.as_ref() == Some(subject)).collect();
        let others: Vec<&String> = asked
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != at)
            .filter_map(|(_, a)| a.colour.as_ref())
            .collect();
        let verdict = |thing: &Thing| match (colour, &thing.colour) {
            (None, _) => Verdict::Shown,
            (Some(asked), Colour::One(seen)) if asked == seen => Verdict::Right,
            (Some(_), Colour::One(seen)) if others.contains(&seen) => Verdict::Swapped,
            (Some(_), Colour::One(_)) => Verdict::Wrong,
            (Some(_), Colour::Mixed) => Verdict::Mixed,
            (Some(_), Colour::Unclear) => Verdict::Undecided,
        };
        // One that is right is enough; else one that is unclear may be right.
        let rank = |thing: &&&Thing| match verdict(thing) {
            Verdict::Shown | Verdict::Right => 0,
            Verdict::Undecided => 1,
            Verdict::Swapped => 2,
            Verdict::Wrong | Verdict::Mixed | Verdict::Absent => 3,
        };
        let chosen = mine.iter().min_by_key(rank);
        let clear = things.iter().all(|thing| thing.certainty >= ABSENT_CERTAIN);
        let missing = if clear { Verdict::Absent } else { Verdict::Undecided };
        Finding {
            subject: subject.clone(),
            colour: colour.clone(),
            thing: chosen.map(|thing| (*thing).clone()),
            verdict: chosen.map_or(missing, |thing| verdict(thing)),
        }
    };
    (0..asked.len()).map(finding).collect()
}

#[cfg(test)]
mod tests;
