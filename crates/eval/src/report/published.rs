//! What the paper's methods were published with, to compare the order of methods with.
//!
//! The values are of Stable Diffusion 1.4 and OpenAI's CLIP ViT-B/16 and BLIP: of another model or
//! judge the sizes are not comparable, the order is.

use serde::{Deserialize, Serialize};

use super::{Method, Metric};

/// What must be said where the values are shown.
pub(super) const NOTE: &str = "Published: Stable Diffusion 1.4, judged by OpenAI's CLIP ViT-B/16 \
     and BLIP. Comparable in order, not in size.";

/// Published values of a method on one of the paper's sets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Published {
    /// As excite calls it, if it has it.
    pub method: &'static str,
    /// As the paper calls it.
    pub title: &'static str,
    /// `animals`, `animals_objects` or `objects`.
    pub subset: &'static str,
    /// Similarity of image and prompt.
    pub full: f64,
    /// Similarity of the image and that half of the prompt that fits less.
    pub min_object: f64,
    /// Similarity of the image's caption and the prompt.
    pub text_text: f64,
}

impl Published {
    fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Full => Some(self.full),
            Metric::MinObject => Some(self.min_object),
            Metric::TextText => Some(self.text_text),
            Metric::AllPresent | Metric::ColourRight | Metric::Seconds | Metric::GoodPerHour => {
                None
            }
        }
    }
}

type Values = (f64, f64, f64);

/// Method, title, and for each set full prompt, minimum object, text-text. As later papers quote
/// them (EBAMA, three decimals); Prompt-to-Prompt and SynGen are of those, not of the paper itself.
#[rustfmt::skip]
const VALUES: [(&str, &str, Option<Values>, Values, Values); 6] = [
    ("none", "Stable Diffusion",
        Some((0.311, 0.213, 0.767)), (0.340, 0.246, 0.793), (0.335, 0.235, 0.765)),
    ("composable", "Composable Diffusion",
        Some((0.284, 0.232, 0.692)), (0.336, 0.252, 0.769), (0.349, 0.265, 0.759)),
    ("structure", "StructureDiffusion",
        Some((0.306, 0.210, 0.761)), (0.336, 0.242, 0.781), (0.332, 0.234, 0.762)),
    ("prompt_to_prompt", "Prompt-to-Prompt",
        Some((0.300, 0.216, 0.771)), (0.349, 0.252, 0.809), (0.341, 0.245, 0.782)),
    ("syngen", "SynGen",
        None,                        (0.355, 0.264, 0.830), (0.355, 0.262, 0.811)),
    ("attend_and_excite", "Attend-and-Excite",
        Some((0.332, 0.248, 0.806)), (0.353, 0.265, 0.830), (0.360, 0.270, 0.811)),
];

/// All published values.
pub fn published() -> impl Iterator<Item = Published> {
    VALUES.into_iter().flat_map(|(method, title, animals, mixed, objects)| {
        let sets =
            [("animals", animals), ("animals_objects", Some(mixed)), ("objects", Some(objects))];
        sets.into_iter().filter_map(move |(subset, values)| {
            let (full, min_object, text_text) = values?;
            Some(Published { method, title, subset, full, min_object, text_text })
        })
    })
}

/// The published values of a method, by its name or title however it is written.
pub(super) fn of(subset: &str, method: &str) -> Option<Published> {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let wanted = plain(method);
    let is_it = |p: &Published| plain(p.method) == wanted || plain(p.title) == wanted;
    published().filter(|p| p.subset == subset).find(is_it)
}

/// Whether methods come in the published order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// By which they are ordered.
    pub metric: Metric,
    /// Pairs of methods that were published with different values and are measured here.
    pub pairs: usize,
    /// The pairs that come the other way round: the better one as published, then the other.
    pub swapped: Vec<[String; 2]>,
    /// Kendall's tau: 1 is the same order, -1 the reverse.
    pub tau: f64,
}

/// For each metric with at least one pair.
pub(super) fn agreement(subset: &str, methods: &[Method]) -> Vec<Agreement> {
    Metric::ALL.into_iter().filter_map(|metric| order(subset, methods, metric)).collect()
}

fn order(subset: &str, methods: &[Method], metric: Metric) -> Option<Agreement> {
    let known: Vec<(&str, f64, f64)> = methods
        .iter()
        .filter_map(|method| {
            let theirs = of(subset, &method.name)?.get(metric)?;
            Some((&*method.name, theirs, method.metrics.get(&metric)?.interval.value))
        })
        .collect();
    let (mut pairs, mut sum, mut swapped) = (0_usize, 0_f64, Vec::new());
    for (i, one) in known.iter().enumerate() {
        for other in &known[..i] {
            let (better, worse) = if one.1 > other.1 { (one, other) } else { (other, one) };
            if better.1 == worse.1 {
                continue;
            }
            pairs += 1;
            // Equal here: neither the same order nor the other.
            if better.2 > worse.2 {
                sum += 1.;
            } else if better.2 < worse.2 {
                sum -= 1.;
                swapped.push([better.0.to_owned(), worse.0.to_owned()]);
            }
        }
    }
    swapped.sort();
    (pairs > 0).then(|| Agreement { metric, pairs, swapped, tau: sum / pairs as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attend_and_excite_was_published_above_plain_on_all_nine() {
        assert_eq!(published().count(), 17);
        for subset in ["animals", "animals_objects", "objects"] {
            let (plain, guided) = (of(subset, "none"), of(subset, "attend_and_excite"));
            for metric in [Metric::Full, Metric::MinObject, Metric::TextText] {
                let get = |p: Option<Published>| p.unwrap().get(metric).unwrap();
                assert!(get(guided) > get(plain), "{subset} {metric:?}");
            }
        }
        assert_eq!(of("animals", "SynGen"), None);
        assert_eq!(of("objects", "Stable Diffusion"), of("objects", "none"));
        assert_eq!(of("objects", "StructureDiffusion"), of("objects", "structure"));
        // Whatever can be made here is found by the name it has here.
        for name in excite_jobs::MethodName::NAMES.iter().copied() {
            assert_eq!(of("objects", name).map(|p| p.method), Some(name));
        }
        assert_eq!(
            of("objects", "attend_and_excite+accept"),
            of("objects", "attendandexciteaccept")
        );
        assert_eq!(of("objects", "attend_and_excite+accept"), None);
    }
}
