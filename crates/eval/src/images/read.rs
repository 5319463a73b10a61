//! One image file: its hash, whether it may be an image at all, its pixels.
//!
//! As the paper's script reads them (PIL's `convert("RGB")`): transparency is dropped, and the
//! orientation that a camera noted is not applied.

use std::io::{Cursor, Read as _};
use std::path::Path;

use excite_diffusion::picture::Picture;
use image::{ImageReader, Limits};
use sha2::{Digest as _, Sha256};

use super::ImagesError;

/// A file larger than this is not read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Pixels a side: no generator comes near it.
const SIDE_MAX: u32 = 16_384;
/// What decoding may hold.
const DECODE_BYTES_MAX: u64 = 512 << 20;

/// An image that was read.
#[derive(Debug, Clone)]
pub struct Image {
    /// Of the file, in hexadecimal.
    pub sha256: String,
    /// Its pixels.
    pub picture: Picture,
}

/// Reads a PNG or JPEG, whatever its name ends with.
///
/// # Errors
/// If it cannot be read, is neither, is damaged, or has more than 16,384 pixels a side.
pub fn read(path: &Path) -> Result<Image, ImagesError> {
    let bytes = bytes(path)?;
    let broken = |reason: String| ImagesError::Decode { path: path.to_owned(), reason };
    let image = decoder(&bytes).and_then(ImageReader::decode).map_err(|e| broken(e.to_string()))?;
    let image = image.into_rgb8();
    let (width, height) = image.dimensions();
    let picture = Picture::from_rgb(width, height, image.into_raw());
    let picture = picture.ok_or_else(|| broken("it has no pixels".into()))?;
    Ok(Image { sha256: sha256_of(&bytes), picture })
}

/// The file's bytes.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, ImagesError> {
    let io = |source| ImagesError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("it has more than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(ImagesError::Decode { path: path.to_owned(), reason });
    }
    Ok(bytes)
}

/// Whether the beginning is that of an image; damage further on shows when it is read.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let decoder = decoder(bytes).and_then(ImageReader::into_decoder);
    decoder.map(drop).map_err(|e| e.to_string())
}

fn decoder(bytes: &[u8]) -> image::ImageResult<ImageReader<Cursor<&[u8]>>> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    Ok(reader)
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256_of(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
