//! Methods of guidance and their options: a file a method.

mod attend_and_excite;
mod composable;
mod structure;
mod syngen;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::LineError;
use crate::spec::names;

pub use attend_and_excite::{AttendAndExcite, Pieces, Refinement, Smoothing, TokenRange};
pub use composable::{Composable, WeightedPhrase};
pub use structure::{NounPhrase, Structure};
pub use syngen::{NounSet, SynGen};

/// What is done so that the image shows what its prompt says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "method", content = "method_params", rename_all = "snake_case")]
pub enum Method {
    /// Attend-and-Excite (Chefer et al., SIGGRAPH 2023).
    AttendAndExcite(AttendAndExcite),
    /// Composable Diffusion (Liu et al., ECCV 2022): a prediction a phrase, added up.
    Composable(Composable),
    /// Nothing: plain Stable Diffusion, without a gradient pass.
    None,
    /// StructureDiffusion (Feng et al., ICLR 2023): the values of noun phrases on their own.
    Structure(Structure),
    /// SynGen (Rassin et al., NeurIPS 2023): attributes are looked for where their nouns are.
    #[serde(rename = "syngen")]
    SynGen(SynGen),
}

impl Method {
    /// The method without its options.
    pub fn name(&self) -> MethodName {
        match self {
            Self::AttendAndExcite(_) => MethodName::AttendAndExcite,
            Self::Composable(_) => MethodName::Composable,
            Self::None => MethodName::None,
            Self::Structure(_) => MethodName::Structure,
            Self::SynGen(_) => MethodName::SynGen,
        }
    }

    /// It moves the latents before steps below this one, if it moves them at all.
    pub fn max_iter_to_alter(&self) -> Option<u32> {
        match self {
            Self::AttendAndExcite(params) => Some(params.max_iter_to_alter),
            Self::SynGen(params) if !params.sets.is_empty() => Some(params.max_iter_to_alter),
            Self::Composable(_) | Self::None | Self::Structure(_) | Self::SynGen(_) => None,
        }
    }

    /// Passes through the UNet that one denoising step makes for an image, the unconditional one
    /// included and gradient passes not.
    pub fn passes(&self) -> usize {
        match self {
            Self::Composable(params) => params.phrases.len() + 1,
            Self::AttendAndExcite(_) | Self::None | Self::Structure(_) | Self::SynGen(_) => 2,
        }
    }
}

/// A method's name.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// [`Method::AttendAndExcite`].
    #[default]
    AttendAndExcite,
    /// [`Method::Composable`].
    Composable,
    /// [`Method::None`].
    None,
    /// [`Method::Structure`].
    Structure,
    /// [`Method::SynGen`].
    #[serde(rename = "syngen")]
    SynGen,
}

names!(MethodName {
    AttendAndExcite = "attend_and_excite",
    Composable = "composable",
    None = "none",
    Structure = "structure",
    SynGen = "syngen",
});

impl MethodName {
    /// Several, as people write them: `none,composable`; the same one twice counts once.
    ///
    /// # Errors
    /// If one is none of them, or there is none.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let mut methods: Vec<Self> = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let method = name.parse().map_err(|error| format!("`{name}` is no method; {error}"))?;
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        if methods.is_empty() {
            return Err(format!("name one or more of: {}", Self::NAMES.join(", ")));
        }
        Ok(methods)
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::AttendAndExcite => "Attend-and-Excite",
            Self::Composable => "Composable Diffusion",
            Self::None => "plain",
            Self::Structure => "StructureDiffusion",
            Self::SynGen => "SynGen",
        }
    }
}

/// `base` with what `options` say otherwise; those of `own` are the caller's to read.
fn merged<T: Serialize + DeserializeOwned>(
    base: &T,
    options: &Map<String, Value>,
    own: &[&str],
) -> Result<T, LineError> {
    let broken = |e: serde_json::Error| LineError::Value {
        field: "method_params".into(),
        message: e.to_string(),
    };
    let mut merged = serde_json::to_value(base).map_err(broken)?;
    for (name, value) in options.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
        let Some(slot) = merged.get_mut(name) else {
            let known = merged.as_object().into_iter().flat_map(|map| map.keys());
            let known = known.map(String::as_str).filter(|name| !own.contains(name));
            let known = own.iter().copied().chain(known);
            return Err(LineError::UnknownField {
                field: format!("method_params.{name}"),
                known: known.collect::<Vec<_>>().join(", "),
            });
        };
        match (slot, value) {
            // Part of the smoothing may be left out; the thresholds are replaced as a whole.
            (Value::Object(slot), Value::Object(value)) if name == "smoothing" => {
                slot.extend(value.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
            (slot, value) => *slot = value.clone(),
        }
    }
    serde_path_to_error::deserialize(merged).map_err(|e| LineError::from_path("method_params", &e))
}

/// Refuses a number outside `least..=most`.
fn in_range(field: &str, value: f64, least: f64, most: f64) -> Result<(), LineError> {
    if value.is_finite() && (least..=most).contains(&value) {
        return Ok(());
    }
    Err(LineError::OutOfRange {
        field: format!("method_params.{field}"),
        value: value.to_string(),
        range: format!("{least} to {most}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_listed_with_commas() {
        use MethodName::{Composable, None, SynGen};
        assert_eq!(MethodName::list("none, composable,,none"), Ok(vec![None, Composable]));
        assert_eq!(MethodName::list("syngen"), Ok(vec![SynGen]));
        assert!(MethodName::list("none,compose").unwrap_err().contains("`compose`"));
        assert!(MethodName::list(" ,").unwrap_err().contains("attend_and_excite"));
    }

    #[test]
    fn names_are_the_same_everywhere() {
        for name in MethodName::NAMES {
            let parsed: MethodName = name.parse().unwrap();
            assert_eq!(serde_json::to_string(&parsed).unwrap(), format!("\"{name}\""));
        }
    }
}
