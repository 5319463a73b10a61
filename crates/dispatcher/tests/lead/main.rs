//! The leading dispatcher with a queue, a store and a mirror within one process: what it makes of
//! batches, and that nothing is lost or counted twice whatever happens to it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod crashes;
mod faulty;
mod life;
mod outages;
mod steering;
mod world;
