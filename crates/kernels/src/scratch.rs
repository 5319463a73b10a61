//! Memory that a thread keeps for the time between two calls: what is mapped anew is paid for.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers of this many values at most are kept: a large image must not hold memory for good.
const KEPT_MAX: usize = 16 << 20;

/// Some values of any content, the thread's until this is dropped.
///
/// Not a closure that gets them: what runs in a closure is not always compiled for the instructions
/// of its surroundings.
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    pub(crate) fn of(len: usize) -> Self {
        let mut buffer = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0.);
        }
        Self { buffer, len }
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.buffer.len() <= KEPT_MAX {
            let buffer = std::mem::take(&mut self.buffer);
            // While a thread ends there may be nobody to keep it.
            let _ = KEPT.try_with(|kept| kept.borrow_mut().push(buffer));
        }
    }
}
