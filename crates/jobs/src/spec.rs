//! A spec: everything that decides the pixels of one image.

use std::fmt;

use excite_prompt::Subject;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::method::Method;

/// Version of the numbers: raised by hand when the same spec would give other pixels.
pub const ENGINE: u32 = 1;

/// What an image is. Two equal specs on one kind of machine give equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Spec {
    /// The text, as given.
    pub prompt: String,
    /// What to steer away from; empty for nothing.
    pub negative_prompt: String,
    /// Words that must appear, in the order of the prompt or of the request.
    pub subjects: Vec<Subject>,
    /// Decides the noise.
    pub seed: u32,
    /// Which generator draws the noise.
    pub noise: Noise,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Denoising steps asked for (PNDM makes one more).
    pub steps: u32,
    /// Weight of classifier-free guidance; 1 is off.
    pub guidance_scale: f64,
    /// How noise predictions become latents.
    pub scheduler: SchedulerName,
    /// What is done for the subjects, with all its options (`method`, `method_params`).
    #[serde(flatten)]
    pub method: Method,
    /// `name@digest`.
    pub model: String,
    /// [`ENGINE`] of the program that wrote it.
    pub engine: u32,
}

impl Spec {
    /// The one JSON form of this spec (RFC 8785): equal specs, equal bytes.
    ///
    /// # Errors
    /// If a number is not finite, which a checked spec does not have.
    pub fn canonical_json(&self) -> serde_json::Result<String> {
        serde_json_canonicalizer::to_string(self)
    }

    /// SHA-256 of the canonical JSON of spec and kind of machine, in hexadecimal: what is equal
    /// here has equal bytes.
    ///
    /// # Errors
    /// As [`Spec::canonical_json`].
    pub fn fingerprint(&self, kind: &str) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Identity<'a> {
            kind: &'a str,
            spec: &'a Spec,
        }
        let identity = serde_json_canonicalizer::to_vec(&Identity { kind, spec: self })?;
        Ok(format!("{:x}", Sha256::digest(&identity)))
    }

    /// The first field in which two specs differ, with both values; `None` if they are equal.
    pub fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let fields = |spec: &Self| match serde_json::to_value(spec) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        let (mine, theirs) = (fields(self), fields(other));
        let keys = mine.keys().chain(theirs.keys().filter(|key| !mine.contains_key(*key)));
        let show = |value: Option<&serde_json::Value>| {
            value.map_or_else(|| "absent".to_owned(), ToString::to_string)
        };
        keys.filter(|key| mine.get(*key) != theirs.get(*key))
            .map(|key| (key.clone(), show(mine.get(key)), show(theirs.get(key))))
            .next()
    }
}

/// A name that is none of those known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// The names there are.
    pub known: String,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "use one of: {}", self.known)
    }
}

impl std::error::Error for UnknownName {}

/// Names that are the same in code, JSON and on the command line.
macro_rules! names {
    ($type:ty { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// All names.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::UnknownName;

            fn from_str(name: &str) -> Result<Self, $crate::UnknownName> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownName { known: Self::NAMES.join(", ") }),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use names;

/// A generator of noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// As `torch.randn` draws it with a CPU generator: a seed means what it means in diffusers.
    #[default]
    TorchCpu,
    /// As it draws it with a CUDA generator, on a GPU with at least one thread a value.
    Philox,
}

names!(Noise { TorchCpu = "torch_cpu", Philox = "philox" });

/// A scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerName {
    /// Pseudo linear multistep, the default of SD 1.x.
    Pndm,
    /// Denoising diffusion implicit models, the default of SD 2.1.
    Ddim,
    /// Euler's method in sigma space, the default of SDXL.
    Euler,
    /// The same at the noise levels of Karras et al. 2022.
    EulerKarras,
    /// Euler's method with fresh noise in each step.
    EulerAncestral,
    /// DPM-Solver++, second order, multistep.
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// The same at the noise levels of Karras et al. 2022.
    #[serde(rename = "dpmpp_2m_karras")]
    Dpmpp2mKarras,
}

names!(SchedulerName {
    Pndm = "pndm",
    Ddim = "ddim",
    Euler = "euler",
    EulerKarras = "euler_karras",
    EulerAncestral = "euler_ancestral",
    Dpmpp2m = "dpmpp_2m",
    Dpmpp2mKarras = "dpmpp_2m_karras",
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::AttendAndExcite;

    fn spec() -> Spec {
        Spec {
            prompt: "a cat".into(),
            negative_prompt: String::new(),
            subjects: vec![Subject { word: "cat".into(), indices: vec![2] }],
            seed: 7,
            noise: Noise::TorchCpu,
            width: 128,
            height: 128,
            steps: 50,
            guidance_scale: 7.5,
            scheduler: SchedulerName::Pndm,
            method: Method::AttendAndExcite(AttendAndExcite::official()),
            model: "emoji@0".into(),
            engine: ENGINE,
        }
    }

    /// The written form is a contract: images carry it, and later versions must read it.
    #[test]
    fn the_written_form_does_not_change_unnoticed() {
        let want = concat!(
            r#"{"engine":1,"guidance_scale":7.5,"height":128,"method":"attend_and_excite","#,
            r#""method_params":{"gain":100,"max_iter_to_alter":25,"max_refinement_steps":20,"#,
            r#""pieces":"strongest","refinement":"official","scale_factor":20,"#,
            r#""scale_range":[1,0.5],"scale_thresholds":false,"#,
            r#""smoothing":{"kernel_size":3,"sigma":0.5,"textbook":false},"#,
            r#""thresholds":{"0":0.05,"10":0.5,"20":0.8},"tokens":"content"},"#,
            r#""model":"emoji@0","negative_prompt":"","noise":"torch_cpu","prompt":"a cat","#,
            r#""scheduler":"pndm","seed":7,"steps":50,"#,
            r#""subjects":[{"indices":[2],"word":"cat"}],"width":128}"#
        );
        assert_eq!(spec().canonical_json().unwrap(), want);
        assert_eq!(serde_json::from_str::<Spec>(want).unwrap(), spec());
        let plain = Spec { method: Method::None, ..spec() };
        let json = plain.canonical_json().unwrap();
        assert!(json.contains(r#""method":"none""#) && !json.contains("method_params"), "{json}");
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), plain);
    }

    #[test]
    fn a_fingerprint_covers_spec_and_kind() {
        let of = |spec: &Spec, kind| spec.fingerprint(kind).unwrap();
        let one = of(&spec(), "cpu");
        assert_eq!((one.len(), &one), (64, &of(&spec(), "cpu")));
        assert_ne!(one, of(&spec(), "gpu"));
        assert_ne!(one, of(&Spec { seed: 8, ..spec() }, "cpu"));
    }

    #[test]
    fn a_difference_names_the_field() {
        assert_eq!(spec().difference(&spec()), None);
        let other = Spec { steps: 20, ..spec() };
        assert_eq!(spec().difference(&other), Some(("steps".into(), "50".into(), "20".into())));
        let (field, _, theirs) =
            spec().difference(&Spec { method: Method::None, ..spec() }).unwrap();
        assert_eq!((field.as_str(), theirs.as_str()), ("method", "\"none\""));
    }

    #[test]
    fn names_are_the_same_everywhere() {
        for name in SchedulerName::NAMES {
            let parsed: SchedulerName = name.parse().unwrap();
            assert_eq!(serde_json::to_string(&parsed).unwrap(), format!("\"{name}\""));
        }
        for name in Noise::NAMES {
            let parsed: Noise = name.parse().unwrap();
            assert_eq!(serde_json::to_string(&parsed).unwrap(), format!("\"{name}\""));
        }
        let error = "heun".parse::<SchedulerName>().unwrap_err();
        let known = "pndm, ddim, euler, euler_karras, euler_ancestral, dpmpp_2m, dpmpp_2m_karras";
        assert_eq!(error.to_string(), format!("use one of: {known}"));
    }
}
