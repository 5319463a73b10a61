//! RabbitMQ, Redis and an S3 server for trying the cluster on one machine.
//!
//! The very servers that the tests use, with data that stays from one start to the next.

#![expect(clippy::print_stdout, reason = "its output is for the shell")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use excite_tests::{Rabbit, Redis, S3};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLE: &str = "\
Example:
  excite-servers &
  . target/servers/env
  excite-dispatcher

Ends with Ctrl-C or SIGTERM, and the servers with it; their data stays in the folder.";

/// The bucket that is there from the start.
const BUCKET: &str = "excite";

/// Start RabbitMQ, Redis and an S3 server for trying Excite on this machine
///
/// Prints the variables that Excite's programs need to find them, and writes them to `env` in the
/// folder. Servers that run on the usual ports are left alone.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLE)]
struct Args {
    /// Folder for data and settings; made if it is not there
    #[arg(long, default_value = "target/servers")]
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Taken before the start, so that an early Ctrl-C is not lost.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot take Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot take SIGTERM")?;
    let end = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    serve(&args.dir, end).await
}

/// Starts them, tells where they are, and stops them once `end` comes.
async fn serve(dir: &Path, end: impl Future<Output = ()>) -> Result<()> {
    let mut end = std::pin::pin!(end);
    let start = async {
        eprintln!("starting RabbitMQ, Redis and S3 in {}; Ctrl-C ends them", dir.display());
        tokio::try_join!(
            Rabbit::builder().dir(dir.join("rabbit")).start(),
            Redis::builder().dir(dir.join("redis")).keep_data().start(),
            S3::builder().dir(dir.join("s3")).start(),
        )
    };
    let (rabbit, redis, s3) = tokio::select! {
        started = start => started?,
        // What has started so far is killed as it is dropped.
        () = &mut end => return Ok(()),
    };
    s3.bucket(BUCKET)?;
    let mut lines = format!(
        "export EXCITE_BROKER__URL={}\nexport EXCITE_PROGRESS__URL={}\n",
        rabbit.url("/"),
        redis.url()
    );
    for (name, value) in s3.env(BUCKET) {
        lines += &format!("export {name}={value}\n");
    }
    let env = dir.join("env");
    std::fs::write(&env, &lines).with_context(|| format!("cannot write {}", env.display()))?;
    print!("{lines}");
    eprintln!("ready; RabbitMQ's pages are at {} (guest, guest)", rabbit.management());

    end.await;
    eprintln!("stopping");
    // The next reader must not look for servers that are gone.
    std::fs::remove_file(&env).with_context(|| format!("cannot remove {}", env.display()))?;
    tokio::try_join!(rabbit.stop(), redis.stop(), s3.stop())?;
    Ok(())
}
