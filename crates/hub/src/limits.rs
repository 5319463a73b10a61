//! Every bound on what a server may ask of us, in one place.

/// Bytes of a listing, of `model_index.json` or of `source.json`.
pub const JSON_BYTES_MAX: u64 = 16 << 20;
/// Files of a repository.
pub const FILES_MAX: usize = 20_000;
/// Bytes of a path inside a repository, as UTF-8.
pub const PATH_BYTES_MAX: usize = 512;
/// Bytes of all files of one fetch together: half a tebibyte, many times the largest pipeline.
pub const FETCH_BYTES_MAX: u64 = 1 << 39;
/// Redirects followed for one request.
pub const REDIRECTS_MAX: usize = 8;
/// Characters kept of a message that a server sends.
pub const MESSAGE_CHARS_MAX: usize = 200;
