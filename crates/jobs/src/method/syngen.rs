//! Options of SynGen.

use excite_prompt::{Encoding, Subject, find_subjects};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{in_range, merged};
use crate::error::LineError;
use crate::limits::ITERATIONS_MAX;
use crate::line::SubjectRequest;

/// Options of SynGen (Rassin et al., *Linguistic Binding in Diffusion Models*, NeurIPS 2023): the
/// maps of a noun and its modifiers are drawn together, and away from those of all other words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SynGen {
    /// Updates are made at steps before this one.
    pub max_iter_to_alter: u32,
    /// The step size, at every step.
    pub scale_factor: f64,
    /// Whether nouns without modifiers are kept away from the other words, too.
    pub include_entities: bool,
    /// Nouns with their modifiers; without any, the image is the plain one.
    pub sets: Vec<NounSet>,
}

/// A noun and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NounSet {
    /// The noun.
    pub noun: Subject,
    /// Its adjectives and colours.
    pub modifiers: Vec<Subject>,
}

/// A set as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    noun: SubjectRequest,
    #[serde(default)]
    modifiers: Vec<SubjectRequest>,
}

impl Default for SynGen {
    fn default() -> Self {
        Self { max_iter_to_alter: 25, scale_factor: 20., include_entities: false, sets: Vec::new() }
    }
}

impl SynGen {
    /// The sets that are named, or what is found in the prompt: of the subjects, if those are known,
    /// those that have modifiers, and with `include_entities` the others too.
    ///
    /// # Errors
    /// If an option is unknown or out of range, or a word is not in the prompt.
    pub fn from_options(
        options: &Map<String, Value>,
        encoding: &Encoding,
        subjects: &[Subject],
    ) -> Result<Self, LineError> {
        const FIELD: &str = "method_params.sets";
        let mut params: Self = merged(&Self::default(), options, &["sets"])?;
        in_range(
            "max_iter_to_alter",
            f64::from(params.max_iter_to_alter),
            0.,
            f64::from(ITERATIONS_MAX),
        )?;
        in_range("scale_factor", params.scale_factor, 0., 1e4)?;
        let find = |request: &SubjectRequest| {
            request.find(encoding).map_err(|source| LineError::Phrase { field: FIELD, source })
        };
        params.sets = match options.get("sets").filter(|value| !value.is_null()) {
            Some(value) => {
                let written: Vec<Written> = serde_path_to_error::deserialize(value)
                    .map_err(|e| LineError::from_path(FIELD, &e))?;
                let set = |written: &Written| {
                    let modifiers = written.modifiers.iter().map(find).collect::<Result<_, _>>()?;
                    Ok(NounSet { noun: find(&written.noun)?, modifiers })
                };
                written.iter().map(set).collect::<Result<_, LineError>>()?
            }
            None => sets(encoding, subjects),
        };
        let entities = params.include_entities;
        params.sets.retain(|set| entities || !set.modifiers.is_empty());
        Ok(params)
    }
}

/// Every subject with what the finder knows to be said of it.
fn sets(encoding: &Encoding, subjects: &[Subject]) -> Vec<NounSet> {
    let found = find_subjects(encoding).subjects;
    let of = |noun: &Subject| {
        let same = found.iter().find(|found| found.subject.indices == noun.indices);
        let modifiers = same.map(|found| found.attributes.clone()).unwrap_or_default();
        NounSet { noun: noun.clone(), modifiers }
    };
    subjects.iter().map(of).collect()
}
