//! What an evaluation comes to, from the rows of its images: for each set of prompts and method the
//! paper's metrics with their intervals, differences from a baseline, and what it cost.
//!
//! The same rows give the same report. Not here: measuring, and pictures of it (`plots`).

mod compute;
mod csv;
mod foretell;
mod further;
mod published;
mod table;

use std::collections::BTreeMap;

use excite_jobs::MethodName;
use serde::{Deserialize, Serialize};

use crate::images::Problem;
use crate::scores::Score;
use crate::statistics::{Interval, Mending, Paired};

pub use foretell::Foretold;
pub use further::{Further, Kept};
pub use published::{Agreement, Published, published};
pub use table::Style;

/// Share of the verdicts on colours that are wrong on generated pictures, at most
/// (`docs/evaluation.md`). Smaller differences between methods are left out.
pub const COLOUR_ERROR: f64 = 0.13;
/// Of the report's JSON.
pub const VERSION: u32 = 1;
/// The set of prompts that are none of the paper's.
pub const OTHER: &str = "other";
/// All images, whatever set their prompts are of.
pub const ALL: &str = "all";

/// What is reported on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// One an image.
    pub rows: &'a [&'a Score],
    /// What was not as it should be.
    pub problems: &'a [Problem],
    /// The method that the others are compared with.
    pub baseline: &'a str,
    /// [`crate::statistics::RESAMPLES`], or fewer where time matters.
    pub resamples: usize,
}

/// What an evaluation comes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub v: u32,
    /// The method that the others are compared with.
    pub baseline: String,
    /// What the intervals are made with.
    pub resamples: usize,
    /// What the scores were measured with; more than one means that they are not comparable.
    pub measures: Vec<String>,
    /// The paper's sets first; `all` last if there are several.
    pub subsets: Vec<Subset>,
    /// Whether the attention to the weakest subject foretells that all are shown, by method and step.
    #[serde(default)]
    pub foretold: Vec<Foretold>,
    /// What trying further seeds would give, by method and number of seeds.
    #[serde(default)]
    pub further: Vec<Further>,
    /// What was not as it should be.
    pub problems: Vec<Problem>,
}

/// The images of a set of prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subset {
    /// `animals`, `animals_objects`, `objects`, [`OTHER`] or [`ALL`].
    pub name: String,
    /// Different prompts.
    pub prompts: usize,
    /// Prompts without " and " and " with ", which the minimum over objects leaves out.
    pub prompts_skipped: usize,
    /// The baseline first, then by name.
    pub methods: Vec<Method>,
    /// Whether the methods come in the order that the paper published.
    pub agreement: Vec<Agreement>,
}

/// The images of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// Those with a row.
    pub images: usize,
    /// Different prompts.
    pub prompts: usize,
    /// What was measured.
    pub metrics: BTreeMap<Metric, Estimate>,
    /// How much it is above the baseline on the same prompts and seeds; empty for the baseline.
    pub differences: BTreeMap<Metric, Paired>,
    /// What it mends and loses against the baseline, where subjects were looked for.
    pub mending: Option<Mending>,
}

/// A number of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Similarity of image and prompt.
    Full,
    /// Similarity of the image and that half of the prompt that fits less.
    MinObject,
    /// Similarity of the image's caption and the prompt.
    TextText,
    /// Share of images in which every subject is seen.
    AllPresent,
    /// Share of the coloured subjects that have their colour, of those that are there and clear.
    ColourRight,
    /// That an image took.
    Seconds,
    /// Images in which every subject is seen, by hour of computing.
    GoodPerHour,
}

/// A metric of a method's images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Images it is of.
    pub n: usize,
    /// Over all of them, with its interval over prompts.
    #[serde(flatten)]
    pub interval: Interval,
    /// From image to image, where that means something.
    pub deviation: Option<f64>,
}

impl Metric {
    /// In the order of the columns.
    pub const ALL: [Self; 7] = [
        Self::Full,
        Self::MinObject,
        Self::TextText,
        Self::AllPresent,
        Self::ColourRight,
        Self::Seconds,
        Self::GoodPerHour,
    ];

    /// Its name in JSON and CSV.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::MinObject => "min_object",
            Self::TextText => "text_text",
            Self::AllPresent => "all_present",
            Self::ColourRight => "colour_right",
            Self::Seconds => "seconds",
            Self::GoodPerHour => "good_per_hour",
        }
    }

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Full => "full prompt",
            Self::MinObject => "minimum object",
            Self::TextText => "text-text",
            Self::AllPresent => "all subjects",
            Self::ColourRight => "own colour",
            Self::Seconds => "s/image",
            Self::GoodPerHour => "good/hour",
        }
    }

    /// What one image contributes; `None` where it was not measured or does not apply.
    fn of(self, row: &Score) -> Option<f64> {
        match self {
            Self::Full => row.full.map(f64::from),
            Self::MinObject => row.min_object.map(f64::from),
            Self::TextText => row.text_text.map(f64::from),
            Self::AllPresent => row.shows_all().map(|all| f64::from(u8::from(all))),
            Self::ColourRight => {
                let (right, clear) = row.binding.as_ref()?.right();
                (clear > 0).then(|| right as f64 / clear as f64)
            }
            Self::Seconds => row.seconds,
            // Of the sums, not of images.
            Self::GoodPerHour => None,
        }
    }
}

impl Report {
    /// The report on these rows.
    pub fn new(input: Input<'_>) -> Self {
        compute::report(input)
    }

    /// Long form: `subset,method,metric,n,value,low,high`, differences as `full_minus_BASELINE`.
    pub fn csv(&self) -> String {
        csv::long(self)
    }

    /// Tables for people.
    pub fn table(&self, style: Style) -> String {
        table::tables(self, style)
    }

    /// A set by its name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }
}

impl Subset {
    /// Its name for pictures: the paper's.
    pub(crate) fn title(&self) -> &str {
        match self.name.as_str() {
            "animals" => "animal-animal",
            "animals_objects" => "animal-object",
            "objects" => "object-object",
            other => other,
        }
    }

    /// A number of one of its methods.
    pub fn estimate(&self, method: &str, metric: Metric) -> Option<&Estimate> {
        self.methods.iter().find(|m| m.name == method)?.metrics.get(&metric)
    }
}

/// A method's name for pictures.
pub(crate) fn label(method: &str) -> String {
    match method.parse::<MethodName>() {
        Ok(known) => known.title().to_owned(),
        // Legends and columns are narrow.
        Err(_) => method.replace("attend_and_excite", "A&E"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
