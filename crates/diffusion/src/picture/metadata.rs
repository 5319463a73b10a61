//! The two texts in every image: `parameters`, the line that image browsers read, and `excite`,
//! the spec from which the image can be made again.
//!
//! Nothing about how the image came to be: its bytes must not change with a retry.

use excite_jobs::{Method, SchedulerName, Spec};

use super::{Picture, Read};
use crate::error::{Error, Result};

const PARAMETERS: &str = "parameters";
const SPEC: &str = "excite";

impl Picture {
    /// The image of `spec` as a PNG.
    ///
    /// # Errors
    /// If the spec holds a number that is not finite.
    pub fn to_png_of(&self, spec: &Spec) -> Result<Vec<u8>> {
        let broken =
            |e: serde_json::Error| Error::Png { path: "PNG".into(), message: e.to_string() };
        let json = spec.canonical_json().map_err(broken)?;
        self.to_png(&[(PARAMETERS, &parameters(spec)), (SPEC, &json)])
    }
}

impl Read {
    /// The spec that the image was made from.
    ///
    /// # Errors
    /// If it has none, or one of another form.
    pub fn spec(&self) -> std::result::Result<Spec, String> {
        let text = self.text(SPEC).ok_or("it has no `excite` text, so excite did not make it")?;
        serde_json::from_str(text).map_err(|e| format!("its `excite` text is no spec: {e}"))
    }
}

/// The convention that image browsers read: prompt, negative prompt, then one line of settings.
fn parameters(spec: &Spec) -> String {
    let mut text = spec.prompt.clone();
    if !spec.negative_prompt.is_empty() {
        text.push_str("\nNegative prompt: ");
        text.push_str(&spec.negative_prompt);
    }
    let (model, digest) = spec.model.split_once('@').unwrap_or((&spec.model, ""));
    let subjects: Vec<&str> = spec.subjects.iter().map(|s| s.word.as_str()).collect();
    let sampler = sampler(spec.scheduler);
    text.push_str(&format!(
        "\nSteps: {}, Sampler: {sampler}, CFG scale: {}, Seed: {}, Size: {}x{}, Model hash: {}, Model: {model}, Method: {}",
        spec.steps,
        spec.guidance_scale,
        spec.seed,
        spec.width,
        spec.height,
        digest.get(..10).unwrap_or(digest),
        spec.method.name(),
    ));
    if matches!(spec.method, Method::AttendAndExcite(_)) {
        // Commas separate the settings, so a list has to be quoted.
        text.push_str(&format!(", Subjects: \"{}\"", subjects.join(", ")));
    }
    text
}

/// Schedulers by the names that image browsers know.
fn sampler(scheduler: SchedulerName) -> &'static str {
    match scheduler {
        SchedulerName::Pndm => "PNDM",
        SchedulerName::Ddim => "DDIM",
        SchedulerName::Euler => "Euler",
        SchedulerName::EulerKarras => "Euler Karras",
        SchedulerName::EulerAncestral => "Euler a",
        SchedulerName::Dpmpp2m => "DPM++ 2M",
        SchedulerName::Dpmpp2mKarras => "DPM++ 2M Karras",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{"engine":1,"guidance_scale":7.5,"height":128,
        "method":"attend_and_excite","method_params":{"gain":100,"max_iter_to_alter":25,
        "max_refinement_steps":20,"pieces":"strongest","refinement":"official","scale_factor":20,
        "scale_range":[1,0.5],"scale_thresholds":false,"smoothing":{"kernel_size":3,"sigma":0.5,
        "textbook":false},"thresholds":{"0":0.05},"tokens":"content"},"model":"emoji@0123456789ab",
        "negative_prompt":"blur","noise":"torch_cpu","prompt":"a cat\nand a frog",
        "scheduler":"pndm","seed":8,"steps":50,"subjects":[{"indices":[2],"word":"cat"},
        {"indices":[5],"word":"frog"}],"width":64}"#;

    #[test]
    fn an_image_carries_its_spec() {
        let spec: Spec = serde_json::from_str(SPEC).unwrap();
        let bytes = Picture::filled(4, 4, [9, 9, 9]).to_png_of(&spec).unwrap();
        let read = Read::bytes(&bytes).unwrap();
        assert_eq!(read.spec(), Ok(spec));
        assert_eq!(
            read.text("parameters"),
            Some(
                "a cat\nand a frog\nNegative prompt: blur\nSteps: 50, Sampler: PNDM, CFG scale: \
                 7.5, Seed: 8, Size: 64x128, Model hash: 0123456789, Model: emoji, Method: \
                 attend_and_excite, Subjects: \"cat, frog\""
            )
        );
        let foreign = Picture::filled(4, 4, [9, 9, 9]).to_png(&[]).unwrap();
        let message = Read::bytes(&foreign).unwrap().spec().unwrap_err();
        assert!(message.contains("did not make it"), "{message}");
    }
}
