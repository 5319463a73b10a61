//! From a picture to what a vision tower takes, by `preprocessor_config.json`: resize, crop the
//! centre, rescale, normalise.
//!
//! The same values as transformers' image processors on Pillow, bit for bit. Old files give sizes
//! as one number and leave out steps; they mean the defaults of their class. Not here: reading image files (`excite_diffusion::picture`).

pub(crate) mod resample;

use std::path::Path;

use candle_core::{Device, Tensor};
use excite_diffusion::picture::Picture;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::folder::Folder;
use resample::{Bytes, Filter};

const FILE: &str = "preprocessor_config.json";
/// A picture that would be resized to more pixels than this is refused.
const PIXELS_MAX: usize = 1 << 26;

/// Whose defaults hold where the file is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `CLIPImageProcessor`: shortest edge to 224, centre of 224 x 224.
    Clip,
    /// `BlipImageProcessor`: to 384 x 384 whatever the shape, no crop.
    Blip,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default = "yes")]
    do_resize: bool,
    size: Option<Size>,
    #[serde(default = "bicubic")]
    resample: u32,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "one_255th")]
    rescale_factor: f64,
    #[serde(default = "yes")]
    do_normalize: bool,
    #[serde(default = "clip_mean")]
    image_mean: [f32; 3],
    #[serde(default = "clip_std")]
    image_std: [f32; 3],
    #[serde(default)]
    do_pad: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Edges(Edges),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edges {
    height: Option<usize>,
    width: Option<usize>,
    shortest_edge: Option<usize>,
    /// Some files hold it as null.
    longest_edge: Option<usize>,
}

fn yes() -> bool {
    true
}

fn bicubic() -> u32 {
    3
}

fn one_255th() -> f64 {
    1. / 255.
}

fn clip_mean() -> [f32; 3] {
    [0.48145466, 0.4578275, 0.40821073]
}

fn clip_std() -> [f32; 3] {
    [0.26862954, 0.261_302_6, 0.275_777_1]
}

/// Where a resize ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The other edge keeps the shape, rounded down.
    ShortestEdge(usize),
    Fixed {
        width: usize,
        height: usize,
    },
}

impl Size {
    /// `None` if it is no size.
    fn target(self, class: Class) -> Option<Target> {
        match self {
            Self::Side(0) => None,
            Self::Side(side) if class == Class::Clip => Some(Target::ShortestEdge(side)),
            Self::Side(side) => Some(Target::Fixed { width: side, height: side }),
            Self::Edges(Edges { longest_edge: Some(_), .. }) => None,
            Self::Edges(edges) => match (edges.shortest_edge, edges.width, edges.height) {
                (Some(edge @ 1..), None, None) => Some(Target::ShortestEdge(edge)),
                (None, Some(width @ 1..), Some(height @ 1..)) => {
                    Some(Target::Fixed { width, height })
                }
                _ => None,
            },
        }
    }
}

/// The steps in front of a vision tower.
#[derive(Debug)]
pub struct Preprocess {
    resize: Option<(Target, Filter)>,
    /// Width and height of the part from the centre; what lies outside the picture is black.
    crop: Option<(usize, usize)>,
    rescale: Option<f64>,
    /// Mean and standard deviation of each channel.
    normalise: Option<([f32; 3], [f32; 3])>,
}

impl Preprocess {
    /// From a model's folder.
    ///
    /// # Errors
    /// If the file is missing, is malformed or asks for a step that is not done here.
    pub fn load(folder: &Path, class: Class) -> Result<Self> {
        Self::of(&Folder::at(folder), class)
    }

    pub(crate) fn of(folder: &Folder, class: Class) -> Result<Self> {
        let config: Config = folder.json(FILE)?;
        let unsupported = |field: &str, value: String, remedy: &str| Error::Unsupported {
            path: folder.file(FILE),
            field: field.into(),
            value,
            remedy: remedy.into(),
        };
        let filter = match config.resample {
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            other => {
                let remedy = "Set it to 2 (bilinear) or 3 (bicubic).";
                return Err(unsupported("resample", other.to_string(), remedy));
            }
        };
        if config.do_pad == Some(true) {
            return Err(unsupported("do_pad", "true".into(), "Set it to false."));
        }
        let no_size = |field| {
            let remedy = "Give `shortest_edge`, or `height` and `width`, each at least 1.";
            unsupported(field, "neither an edge nor a height and width".into(), remedy)
        };
        let resize = match (config.do_resize, config.size) {
            (false, _) => None,
            (true, None) if class == Class::Clip => Some(Target::ShortestEdge(224)),
            (true, None) => Some(Target::Fixed { width: 384, height: 384 }),
            (true, Some(size)) => Some(size.target(class).ok_or_else(|| no_size("size"))?),
        };
        let crop = match config.do_center_crop.unwrap_or(class == Class::Clip) {
            // One number means a square here, whatever the class.
            true => match config.crop_size.unwrap_or(Size::Side(224)).target(Class::Blip) {
                Some(Target::Fixed { width, height }) => Some((width, height)),
                Some(Target::ShortestEdge(edge)) => {
                    let value = format!("a shortest edge of {edge}");
                    return Err(unsupported("crop_size", value, "Give `height` and `width`."));
                }
                None => return Err(no_size("crop_size")),
            },
            false => None,
        };
        if config.do_normalize && config.image_std.contains(&0.) {
            return Err(unsupported("image_std", "0".into(), "Fetch the file again."));
        }
        Ok(Self {
            resize: resize.map(|target| (target, filter)),
            crop,
            rescale: config.do_rescale.then_some(config.rescale_factor),
            normalise: config.do_normalize.then_some((config.image_mean, config.image_std)),
        })
    }

    /// Channels first, `[3, height, width]`.
    ///
    /// # Errors
    /// If the picture has no pixels or would become too large.
    pub fn pixels(&self, picture: &Picture) -> Result<Tensor> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let wrong = |wrong: &str| Error::Picture { width, height, wrong: wrong.into() };
        if width == 0 || height == 0 {
            return Err(wrong("none at all"));
        }
        let mut bytes = Bytes { width, height, rgb: picture.pixels().to_vec() };
        if let Some((target, filter)) = self.resize {
            let (width, height) = match target {
                Target::Fixed { width, height } => (width, height),
                Target::ShortestEdge(edge) if width <= height => (edge, edge * height / width),
                Target::ShortestEdge(edge) => (edge * width / height, edge),
            };
            // Between the two passes there may be more pixels than at both ends.
            if width.saturating_mul(height.max(bytes.height)) > PIXELS_MAX {
                return Err(wrong("too long a strip to resize"));
            }
            bytes = bytes.resized(width, height, filter);
        }
        if let Some((width, height)) = self.crop {
            bytes = cropped(&bytes, width, height);
        }
        let mut values = vec![0f32; bytes.rgb.len()];
        let plane = bytes.width * bytes.height;
        for (channel, values) in values.chunks_exact_mut(plane).enumerate() {
            for (value, pixel) in values.iter_mut().zip(bytes.rgb.chunks_exact(3)) {
                *value = self.value(channel, pixel[channel]);
            }
        }
        Ok(Tensor::from_vec(values, (3, bytes.height, bytes.width), &Device::Cpu)?)
    }

    /// [`Preprocess::pixels`] for a tower that takes squares of this side only.
    ///
    /// # Errors
    /// If another size comes out.
    pub(crate) fn square(&self, picture: &Picture, side: usize) -> Result<Tensor> {
        let pixels = self.pixels(picture)?;
        if pixels.dims()[1..] != [side, side] {
            let (width, height) = (picture.width() as usize, picture.height() as usize);
            let (w, h) = (pixels.dims()[2], pixels.dims()[1]);
            let wrong = format!("{w} x {h} behind `{FILE}`; the model takes {side} x {side}");
            return Err(Error::Picture { width, height, wrong });
        }
        Ok(pixels)
    }

    /// Rescaled in f64 and normalised in f32, as numpy does it there.
    fn value(&self, channel: usize, byte: u8) -> f32 {
        let value = match self.rescale {
            Some(factor) => (f64::from(byte) * factor) as f32,
            None => f32::from(byte),
        };
        match self.normalise {
            Some((mean, std)) => (value - mean[channel]) / std[channel],
            None => value,
        }
    }
}

fn cropped(bytes: &Bytes, width: usize, height: usize) -> Bytes {
    // Of an odd rest the larger half is cut below and right, and padded above and left.
    let first = |has: usize, wants: usize| (has as isize - wants as isize).div_euclid(2);
    let (left, top) = (first(bytes.width, width), first(bytes.height, height));
    let mut rgb = vec![0; 3 * width * height];
    for (y, row) in rgb.chunks_exact_mut(3 * width).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let from = |at: usize, first: isize, side: usize| {
                at.checked_add_signed(first).filter(|at| *at < side)
            };
            if let (Some(x), Some(y)) = (from(x, left, bytes.width), from(y, top, bytes.height)) {
                let at = 3 * (y * bytes.width + x);
                pixel.copy_from_slice(&bytes.rgb[at..at + 3]);
            }
        }
    }
    Bytes { width, height, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &str, class: Class) -> Result<Preprocess> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), config).unwrap();
        Preprocess::load(folder.path(), class)
    }

    #[test]
    fn old_files_mean_the_defaults_of_their_class() {
        let edge = |edge| Some((Target::ShortestEdge(edge), Filter::Bicubic));
        let square = |side| Some((Target::Fixed { width: side, height: side }, Filter::Bicubic));
        let clip = parse(r#"{"size": 224, "crop_size": 224, "resample": 3}"#, Class::Clip).unwrap();
        assert_eq!((clip.resize, clip.crop), (edge(224), Some((224, 224))));
        assert_eq!(clip.rescale, Some(1. / 255.));
        let clip = parse("{}", Class::Clip).unwrap();
        assert_eq!((clip.resize, clip.crop), (edge(224), Some((224, 224))));
        let blip = parse(r#"{"size": 96}"#, Class::Blip).unwrap();
        assert_eq!((blip.resize, blip.crop), (square(96), None));
        assert_eq!(parse("{}", Class::Blip).unwrap().resize, square(384));
        let shortest = r#"{"size": {"shortest_edge": 40, "longest_edge": null}}"#;
        assert_eq!(parse(shortest, Class::Blip).unwrap().resize, edge(40));
    }

    #[test]
    fn what_is_not_done_here_is_named() {
        for (config, field) in [
            (r#"{"resample": 1}"#, "resample"),
            (r#"{"do_pad": true}"#, "do_pad"),
            (r#"{"size": {"height": 3}}"#, "size"),
            (r#"{"size": {"shortest_edge": 0}}"#, "size"),
            (r#"{"size": 0}"#, "size"),
            (r#"{"size": {"shortest_edge": 30, "longest_edge": 40}}"#, "size"),
            (r#"{"crop_size": {"shortest_edge": 30}}"#, "crop_size"),
            (r#"{"image_std": [1, 0, 1]}"#, "image_std"),
        ] {
            let error = parse(config, Class::Clip).unwrap_err();
            assert_eq!(error.advice().0, "unsupported", "{config}");
            let said = format!("{FILE}`: `{field}` is");
            assert!(error.to_string().contains(&said), "{error}");
        }
        let error = parse(r#"{"size": {"max_height": 3}}"#, Class::Clip).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    }

    #[test]
    fn strips_and_pictures_without_pixels_are_refused() {
        let clip = parse("{}", Class::Clip).unwrap();
        for (width, height) in [(0, 3), (3, 0), (3_000_000, 1), (1, 3_000_000)] {
            let error = clip.pixels(&Picture::filled(width, height, [0; 3])).unwrap_err();
            let said = format!("{width} x {height}");
            assert!(error.to_string().contains(&said), "{error}");
        }
    }

    #[test]
    fn a_crop_takes_the_centre_and_pads_black() {
        let rgb = (0..5).flat_map(|v| [v + 1; 3]).collect();
        let row = Bytes { width: 5, height: 1, rgb };
        let reds = |width| {
            let cut = cropped(&row, width, 1);
            cut.rgb.chunks(3).map(|p| p[0]).collect::<Vec<_>>()
        };
        assert_eq!(reds(2), [2, 3]);
        assert_eq!(reds(3), [2, 3, 4]);
        assert_eq!(reds(8), [0, 0, 1, 2, 3, 4, 5, 0]);
    }
}
