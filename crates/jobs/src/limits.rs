//! Every limit of what comes in, in one place.

use std::ops::RangeInclusive;

/// UTF-8 bytes of a prompt or negative prompt.
pub const PROMPT_BYTES_MAX: usize = 4096;
/// Bytes of one line of a file of jobs: a prompt, its negative prompt, labels, and room.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Pixels along a side.
pub const SIDE_MAX: u32 = 2048;
/// Seeds a line can ask for.
pub const SEEDS_MAX: u64 = 1_000_000;
/// Where classifier-free guidance makes sense; 1 is off.
pub const GUIDANCE_SCALE: RangeInclusive<f64> = 1.0..=100.0;
/// Updates or refinement iterations at one step.
pub const ITERATIONS_MAX: u32 = 1000;
/// Phrases that are composed, each for the price of a pass.
pub const PHRASES_MAX: usize = 8;
/// Steps with a threshold.
pub const THRESHOLDS_MAX: usize = 100;
/// Characters of a `custom_id`.
pub const CUSTOM_ID_CHARS_MAX: usize = 128;
/// Labels of a line.
pub const LABELS_MAX: usize = 16;
/// Characters of a label's name or value.
pub const LABEL_CHARS_MAX: usize = 64;
/// Jobs of a batch: what 8 digits can number, and 4 bits each stay below 50 MB.
pub const JOBS_MAX: u32 = 100_000_000;
/// Lines of a batch.
pub const BATCH_LINES_MAX: u64 = 10_000_000;
/// Bytes of a batch as it is uploaded.
pub const BATCH_BYTES_MAX: u64 = 8 << 30;
/// Bytes of one part of an upload.
pub const UPLOAD_PART_BYTES_MAX: u64 = 64 << 20;
/// Parts of an upload.
pub const UPLOAD_PARTS_MAX: u32 = 1000;
/// Seconds that an upload in parts may take from its beginning to its commit.
pub const UPLOAD_SECONDS_MAX: i64 = 24 * 3600;
/// Lines of one part of a manifest.
pub const PART_LINES_MAX: usize = 10_000;
/// Jobs of a batch that may take the express lane.
pub const EXPRESS_JOBS_MAX: u32 = 100;
/// Characters of the name of a batch.
pub const BATCH_NAME_CHARS_MAX: usize = 128;
/// Characters of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 256;
/// Share of a batch beside others.
pub const WEIGHT: RangeInclusive<u32> = 1..=100;
/// Tries that may fail before a job is dead.
pub const ATTEMPTS: RangeInclusive<u32> = 1..=20;
/// Seeds that may be tried for one job.
pub const ACCEPT_SEEDS: RangeInclusive<u32> = 1..=16;
/// Bytes of a message in the broker: keys travel, images do not.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Refused lines that an answer lists; the others are counted.
pub const REFUSALS_MAX: usize = 100;
/// Lines that a dry run lists for each warning; the others are counted.
pub const WARNED_LINES_MAX: usize = 100_000;
/// Bytes of an error's text in an outcome.
pub const FAILURE_BYTES_MAX: usize = 2000;
/// Jobs that one request replays at most in one message.
pub const REPLAY_INDICES_MAX: usize = 5000;
/// Bytes of one file of a model.
pub const MODEL_FILE_BYTES_MAX: u64 = 64 << 30;
/// Files of a model.
pub const MODEL_FILES_MAX: usize = 200;
