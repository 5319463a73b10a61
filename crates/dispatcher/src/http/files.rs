//! `/v1/batches/{id}/jobs/{index}/{what}`: what is stored of a job, and its thumbnail.
//!
//! A thumbnail is made when somebody wants to see it first, and stored.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use excite_jobs::store::Condition;
use excite_jobs::{JobId, keys};
use image::{ImageFormat, ImageReader, Limits};
use jpeg_encoder::{ColorType, Encoder};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::App;
use super::extract::{OfJobFile, text};
use super::openapi::Problems;
use super::problem::Fault;

/// Pixels of the longer side of a thumbnail.
const SIDE: u32 = 256;
/// JPEG's, 1 to 100.
const QUALITY: u8 = 85;
/// Bytes that decoding an image may take: more than the largest that can be asked for.
const DECODE_BYTES_MAX: u64 = 256 << 20;
/// How long an address in the store is good.
const LINK_TIME: Duration = Duration::from_secs(900);
/// A browser asks again well before that.
const FOR_LINKS: HeaderValue = HeaderValue::from_static("private, max-age=600");
/// What is stored never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// What is stored of a job, or its thumbnail.
///
/// Where the store can be reached by browsers, the answer is an address there.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/jobs/{index}/{what}",
    tag = "jobs",
    operation_id = "fetchFile",
    params(OfJobFile, ("if-none-match" = Option<String>, Header, nullable = false)),
    responses(
        (
            status = 200,
            description = "The file.",
            content(
                (Vec<u8> = "image/png"),
                (Vec<u8> = "image/jpeg"),
                (Object = "application/json"),
                (Vec<u8> = "application/octet-stream"),
            ),
            headers(("etag" = String))
        ),
        (status = 304, description = "The one that is known."),
        (status = 307, description = "Where it is.", headers(("location" = String))),
        Problems
    )
)]
pub(super) async fn file(
    State(app): State<Arc<App>>,
    OfJobFile(job, what): OfJobFile,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let (key, kind) = match what.as_str() {
        "image" => (keys::image(job), "image/png"),
        "thumbnail" => (keys::thumbnail(job), "image/jpeg"),
        "sidecar" => (keys::sidecar(job), "application/json"),
        "attention" => (keys::attention(job), "image/png"),
        "trace" => (keys::trace(job), "application/octet-stream"),
        _ => return Err(Fault::missing(format!("`{what}` of a job"))),
    };
    if let Some(address) = app.address(&key).await? {
        return Ok((StatusCode::TEMPORARY_REDIRECT, address).into_response());
    }
    let body = match app.ports.store.get(&key).await? {
        Some(object) => Some(object.body),
        None if what == "thumbnail" => app.thumbnail(job).await?,
        None => None,
    };
    let body = body.ok_or_else(|| Fault::missing(format!("{what} of job {job}")))?;
    let etag = format!("\"{:x}\"", Sha256::digest(&body));
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::ETAG, HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""))),
        (header::CACHE_CONTROL, FOR_EVER),
    ];
    if text(&headers, "if-none-match")?.is_some_and(|known| known == etag) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    Ok((head, body).into_response())
}

impl App {
    /// Where an object can be had from the store itself, if that is wanted and it is there.
    async fn address(&self, key: &str) -> Result<Option<[(HeaderName, HeaderValue); 2]>, Fault> {
        let store = &self.ports.store;
        if !self.config.redirect || store.head(key).await?.is_none() {
            return Ok(None);
        }
        let address = store.link(key, LINK_TIME).await?;
        let address = address.and_then(|address| HeaderValue::from_str(&address).ok());
        Ok(address.map(|address| [(header::LOCATION, address), (header::CACHE_CONTROL, FOR_LINKS)]))
    }

    /// Makes and stores a thumbnail; `None` if there is no image.
    async fn thumbnail(&self, job: JobId) -> Result<Option<Bytes>, Fault> {
        let Some(image) = self.ports.store.get(&keys::image(job)).await? else { return Ok(None) };
        // Pages ask for many at once, and each takes a core.
        let turn = self.thumbnails.clone().acquire_owned().await;
        let turn = turn.map_err(|e| Fault::internal(e.to_string()))?;
        let small = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            small(&image.body)
        });
        let small = small.await.map_err(|e| Fault::internal(e.to_string()))?;
        let small = small.map_err(|error| {
            Fault::internal(format!("the image of job {job} cannot be read: {error}"))
        })?;
        let key = keys::thumbnail(job);
        if let Err(error) = self.ports.store.put(&key, small.clone(), Condition::Always).await {
            warn!(key, %error, "a thumbnail is not kept");
        }
        Ok(Some(small))
    }
}

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
enum SmallError {
    #[error(transparent)]
    Read(#[from] image::ImageError),
    #[error(transparent)]
    Write(#[from] jpeg_encoder::EncodingError),
}

/// A PNG as a small JPEG.
fn small(png: &[u8]) -> Result<Bytes, SmallError> {
    let mut reader = ImageReader::with_format(Cursor::new(png), ImageFormat::Png);
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    let image = reader.decode()?;
    let image =
        if image.width().max(image.height()) > SIDE { image.thumbnail(SIDE, SIDE) } else { image };
    let mut jpeg = Vec::new();
    let pixels = image.to_rgb8();
    // At most SIDE, which fits.
    let (width, height) = (pixels.width() as u16, pixels.height() as u16);
    Encoder::new(&mut jpeg, QUALITY).encode(&pixels, width, height, ColorType::Rgb)?;
    Ok(jpeg.into())
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn a_thumbnail_keeps_the_shape_and_never_grows() {
        for (size, want) in [((512, 256), (256, 128)), ((64, 48), (64, 48))] {
            let mut png = Cursor::new(Vec::new());
            RgbImage::from_pixel(size.0, size.1, image::Rgb([200, 30, 30]))
                .write_to(&mut png, ImageFormat::Png)
                .unwrap();
            let jpeg = small(png.get_ref()).unwrap();
            let read = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap();
            assert_eq!((read.width(), read.height()), want);
            let colour = read.to_rgb8().get_pixel(want.0 / 2, want.1 / 2).0;
            assert!(colour[0] > 190 && colour[1] < 45, "{colour:?}");
        }
        assert!(small(b"no image").is_err());
    }
}
