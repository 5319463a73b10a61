//! Real servers for tests: private ones, started by the test and gone with it.
//!
//! Each server listens on 127.0.0.1, on ports that no other test has, and keeps its data in a
//! folder of its own; servers that run on the usual ports are never touched. Not what the tests
//! of a single crate need: those use the back ends in memory.

pub mod browser;
mod certs;
pub mod cluster;
pub mod failpoints;
mod folder;
pub mod ledger;
mod lines;
mod next_servers;
mod poll;
mod ports;
mod process;
mod program;
pub mod proxy;
mod rabbit;
mod redis;
mod s3;
pub mod scaling;
mod server;

pub use certs::Certs;
pub use folder::Folder;
pub use lines::{guided_lines, lines};
pub use nix::sys::signal::Signal;
pub use poll::{Attempt, Try, eventually};
pub use ports::Port;
pub use process::{Log, Process, Recipe};
pub use program::{Program, built};
pub use rabbit::{Queue, Rabbit, RabbitBuilder, Trio};
pub use redis::{Redis, RedisBuilder};
pub use s3::{S3, S3Builder};

/// Chooses the cryptography of every TLS client; may be called again and again.
pub fn choose_cryptography() {
    // An error means that someone has chosen already, and there is only one to choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
