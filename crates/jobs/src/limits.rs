//! Every limit of a line, in one place.

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
/// Steps with a threshold.
pub const THRESHOLDS_MAX: usize = 100;
/// Characters of a `custom_id`.
pub const CUSTOM_ID_CHARS_MAX: usize = 128;
/// Labels of a line.
pub const LABELS_MAX: usize = 16;
/// Characters of a label's name or value.
pub const LABEL_CHARS_MAX: usize = 64;
