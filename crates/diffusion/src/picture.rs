//! Pictures: 8-bit RGB in memory, PNG with text chunks on disk, and what is drawn from a run.
//!
//! The same picture and the same texts give the same bytes: compression is fixed and nothing but
//! the given texts is written. Drawings ([`heat`], [`sheet`], [`chart`]) are pictures too.

pub mod chart;
pub mod draw;
pub mod heat;
mod metadata;
pub mod sheet;

use std::io::{BufRead, Seek};
use std::path::Path;

use candle_core::Tensor;

use crate::error::{Error, Result};

/// A PNG larger than this is not read: no picture of ours comes near it.
const PIXELS_MAX: u32 = 64 * 1024 * 1024;
/// Text chunks longer than this are not read.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// An RGB picture, 8 bits a channel, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    /// `3 * width * height` bytes.
    pixels: Vec<u8>,
}

impl Picture {
    /// A picture of one colour.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        let count = width as usize * height as usize;
        Self { width, height, pixels: colour.repeat(count) }
    }

    /// From `3 * width * height` bytes, rows from the top; `None` if they are not so many, or none.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Option<Self> {
        let count = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        (count > 0 && pixels.len() == count).then_some(Self { width, height, pixels })
    }

    /// From values `[3, H, W]` in 0..1, rounded half to even as numpy rounds.
    ///
    /// # Errors
    /// If the tensor has another shape.
    pub fn from_tensor(image: &Tensor) -> Result<Self> {
        let (_, height, width) = image.dims3()?;
        let rows = image.permute((1, 2, 0))?.flatten_all()?.to_vec1::<f32>()?;
        let pixels = rows.iter().map(|v| (v * 255.).round_ties_even() as u8).collect();
        Ok(Self { width: width as u32, height: height as u32, pixels })
    }

    /// Pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `3 * width * height` bytes, rows from the top.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The colour at a place inside the picture.
    pub fn get(&self, x: u32, y: u32) -> [u8; 3] {
        let at = 3 * (y as usize * self.width as usize + x as usize);
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// Sets a pixel; outside the picture nothing happens.
    pub fn set(&mut self, x: u32, y: u32, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = 3 * (y as usize * self.width as usize + x as usize);
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// Every pixel `factor` by `factor` times: small pictures made large without blur.
    pub fn enlarged(&self, factor: u32) -> Self {
        let mut large = Self::filled(self.width * factor, self.height * factor, [0; 3]);
        for y in 0..large.height {
            for x in 0..large.width {
                large.set(x, y, self.get(x / factor, y / factor));
            }
        }
        large
    }

    /// PNG with `texts` (keyword, text) as iTXt chunks, in order.
    ///
    /// # Errors
    /// If a keyword is not Latin-1 of 1 to 79 characters.
    pub fn to_png(&self, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
        let broken =
            |e: png::EncodingError| Error::Png { path: "PNG".into(), message: e.to_string() };
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        for (keyword, text) in texts {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(broken)?;
        }
        let mut writer = encoder.write_header().map_err(broken)?;
        writer.write_image_data(&self.pixels).map_err(broken)?;
        writer.finish().map_err(broken)?;
        Ok(bytes)
    }
}

/// A PNG that was read: the picture and its texts.
#[derive(Debug, Clone)]
pub struct Read {
    /// The pixels.
    pub picture: Picture,
    /// Keyword and text of each text chunk.
    pub texts: Vec<(String, String)>,
}

impl Read {
    /// Reads an RGB PNG of 8 bits a channel.
    ///
    /// # Errors
    /// If the file cannot be read or is no such PNG.
    pub fn file(path: &Path) -> Result<Self> {
        let broken = |message: String| Error::Png { path: path.to_owned(), message };
        let file = std::fs::File::open(path).map_err(|e| broken(e.to_string()))?;
        Self::from(std::io::BufReader::new(file), broken)
    }

    /// As [`Read::file`], from bytes.
    ///
    /// # Errors
    /// If they are no such PNG.
    pub fn bytes(bytes: &[u8]) -> Result<Self> {
        let broken = |message: String| Error::Png { path: "PNG".into(), message };
        Self::from(std::io::Cursor::new(bytes), broken)
    }

    fn from(input: impl BufRead + Seek, broken: impl Fn(String) -> Error) -> Result<Self> {
        let decoding = |e: png::DecodingError| broken(e.to_string());
        let mut reader = png::Decoder::new(input).read_info().map_err(decoding)?;
        let info = reader.info();
        let (width, height) = (info.width, info.height);
        if width.checked_mul(height).is_none_or(|pixels| pixels > PIXELS_MAX) {
            return Err(broken(format!("{width} x {height} pixels are too many")));
        }
        if info.color_type != png::ColorType::Rgb || info.bit_depth != png::BitDepth::Eight {
            return Err(broken("it is not RGB with 8 bits a channel".into()));
        }
        let mut pixels = vec![0; 3 * width as usize * height as usize];
        reader.next_frame(&mut pixels).map_err(decoding)?;
        let mut texts = Vec::new();
        for chunk in &mut reader.info().utf8_text.clone() {
            chunk.decompress_text_with_limit(TEXT_BYTES_MAX).map_err(decoding)?;
            texts.push((chunk.keyword.clone(), chunk.get_text().map_err(decoding)?));
        }
        Ok(Self { picture: Picture { width, height, pixels }, texts })
    }

    /// The text of a keyword.
    pub fn text(&self, keyword: &str) -> Option<&str> {
        self.texts.iter().find(|(key, _)| key == keyword).map(|(_, text)| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_png_gives_back_pixels_and_texts() {
        let values: Vec<f32> = (0..3 * 4 * 5).map(|i| i as f32 / 59.).collect();
        let tensor = Tensor::from_vec(values, (3, 4, 5), &Device::Cpu).unwrap();
        let picture = Picture::from_tensor(&tensor).unwrap();
        assert_eq!((picture.width(), picture.height()), (5, 4));
        assert_eq!(picture.get(0, 0), [0, 86, 173]);
        assert_eq!(picture.get(4, 3)[2], 255);
        let texts = [("excite", "{\"prompt\":\"naïve 猫\"}"), ("parameters", "a cat\nSteps: 50")];
        let bytes = picture.to_png(&texts).unwrap();
        assert_eq!(bytes, picture.to_png(&texts).unwrap());
        let read = Read::bytes(&bytes).unwrap();
        assert_eq!(read.picture, picture);
        assert_eq!(read.text("excite"), Some(texts[0].1));
        assert_eq!(read.text("parameters"), Some(texts[1].1));
        assert_eq!(read.text("other"), None);
    }

    #[test]
    fn bytes_make_a_picture_if_they_are_as_many_as_it_has() {
        let picture = Picture::from_rgb(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!((picture.get(0, 0), picture.get(1, 0)), ([1, 2, 3], [4, 5, 6]));
        for (width, height, count) in [(2, 1, 5), (1, 2, 7), (0, 9, 0), (u32::MAX, u32::MAX, 3)] {
            assert_eq!(Picture::from_rgb(width, height, vec![0; count]), None, "{width}x{height}");
        }
    }

    #[test]
    fn what_is_no_png_of_ours_is_an_error() {
        let bytes = Picture::filled(3, 3, [1, 2, 3]).to_png(&[]).unwrap();
        for bad in [&b""[..], b"GIF89a", &bytes[..20], &bytes[..bytes.len() / 2]] {
            assert!(matches!(Read::bytes(bad), Err(Error::Png { .. })), "{} bytes", bad.len());
        }
        let missing = Read::file(Path::new("/nonexistent.png")).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent.png"), "{missing}");
    }
}
