//! A private S3 server: our program `excite-s3`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::folder::Folder;
use crate::ports::Port;
use crate::process::{Log, Recipe};
use crate::program::built;
use crate::server::Server;

/// Up in 0.1 s, on a machine that is busy with other things in a few.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

const ACCESS_KEY: &str = "excite";
const SECRET_KEY: &str = "excite-secret";

/// How to start an [`S3`].
#[derive(Debug, Default)]
pub struct S3Builder {
    dir: Option<PathBuf>,
    read_only: bool,
}

impl S3Builder {
    /// Refuses whatever writes, as keys without that right are refused.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Keeps the data in a folder that stays.
    #[must_use]
    pub fn dir(mut self, path: impl AsRef<Path>) -> Self {
        self.dir = Some(path.as_ref().to_owned());
        self
    }

    /// Starts it, and waits until it answers.
    pub async fn start(self) -> Result<S3> {
        let folder = match &self.dir {
            Some(path) => Folder::kept(path)?,
            None => Folder::temporary("s3")?,
        };
        let port = Port::free()?;
        let mut recipe = Recipe::new("excite-s3", built("excite-s3")?).alone();
        recipe = recipe.args(["--port", &port.number().to_string()]);
        recipe = recipe.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
        recipe = recipe.arg("--root").arg(folder.path());
        if self.read_only {
            recipe = recipe.arg("--read-only");
        }
        let s3 = S3 { server: Server::new(recipe), port, folder };
        s3.start_again().await?;
        Ok(s3)
    }
}

/// An S3 server of our own, gone when this is dropped.
#[derive(Debug)]
pub struct S3 {
    // Before the folder, for it must not write in it when that goes.
    server: Server,
    port: Port,
    folder: Folder,
}

impl S3 {
    /// Starts one without buckets.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts one that differs.
    pub fn builder() -> S3Builder {
        S3Builder::default()
    }

    /// Where clients find it: `http://127.0.0.1:17001`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The access key and the secret key.
    pub fn keys(&self) -> (&'static str, &'static str) {
        (ACCESS_KEY, SECRET_KEY)
    }

    /// The variables that our programs need to store in a bucket.
    pub fn env(&self, bucket: &str) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("EXCITE_STORE__ENDPOINT", self.endpoint()),
            ("EXCITE_STORE__REGION", "us-east-1".to_owned()),
            ("EXCITE_STORE__URL", format!("s3://{bucket}")),
        ]
    }

    /// Makes a bucket if it is not there, even where the server refuses to write.
    pub fn bucket(&self, name: &str) -> Result<()> {
        // The server keeps a folder for each.
        self.folder.sub(name).map(drop)
    }

    /// The folder in which it keeps buckets as folders and objects as files.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it, as a power cut would.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&self) -> Result<()> {
        self.server.stop(STOP_LIMIT).await
    }

    /// Starts it again with the same port and data, and waits until it answers.
    pub async fn start_again(&self) -> Result<()> {
        let reach = async || {
            let stream = TcpStream::connect(("127.0.0.1", self.port.number())).await;
            stream.map(drop).context("connecting")
        };
        self.server.start(START_LIMIT, reach).await
    }

    /// Lets it hang: it takes connections and says nothing.
    pub fn pause(&self) -> Result<()> {
        self.server.signal(Signal::SIGSTOP)
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<()> {
        self.server.signal(Signal::SIGCONT)
    }

    /// What it has printed.
    pub fn log(&self) -> &Log {
        self.server.log()
    }
}
