//! A private Redis.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, TlsCertificates};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::certs::Certs;
use crate::folder::Folder;
use crate::next_servers;
use crate::poll::eventually;
use crate::ports::Port;
use crate::process::{Log, Recipe};
use crate::server::Server;

/// Up in 0.2 s, on a machine that is busy with other things in a few.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The user that may everything, where the others are limited.
const ADMIN: &str = "harness";

/// What an application may: its own keys, all channels, nothing that harms others.
const RULES: &str = "~excite:* &* +@all -@dangerous +info";

/// How to start a [`Redis`].
#[derive(Debug, Default)]
pub struct RedisBuilder {
    dir: Option<PathBuf>,
    keep: bool,
    tls: Option<(PathBuf, PathBuf, PathBuf)>,
    user: Option<(String, String)>,
}

impl RedisBuilder {
    /// Writes every change to disk, so that a new start has it again. Otherwise a new start is
    /// empty, as that of a cache.
    #[must_use]
    pub fn keep_data(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Puts its files in a folder that stays.
    #[must_use]
    pub fn dir(mut self, path: impl AsRef<Path>) -> Self {
        self.dir = Some(path.as_ref().to_owned());
        self
    }

    /// Speaks TLS only.
    #[must_use]
    pub fn tls(mut self, certs: &Certs) -> Self {
        self.tls = Some((certs.certificate(), certs.key(), certs.authority()));
        self
    }

    /// Lets in only this user, with `~excite:* &* +@all -@dangerous +info`.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// Starts it, and waits until it answers.
    pub async fn start(self) -> Result<Redis> {
        crate::choose_cryptography();
        let folder = match &self.dir {
            Some(path) => Folder::kept(path)?,
            None => Folder::temporary("redis")?,
        };
        let port = Port::free()?;
        let number = port.number().to_string();
        let program = if next_servers::wanted()? { "valkey-server" } else { "redis-server" };
        let (start, args) = next_servers::find(folder.path(), program).await?;
        let mut recipe = Recipe::new(program, start).args(args).alone();
        recipe = recipe.args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
        recipe = recipe.arg("--dir").arg(folder.path());
        recipe = match self.keep {
            true => recipe.args(["--appendonly", "yes", "--appendfsync", "everysec"]),
            false => recipe.args(["--appendonly", "no"]),
        };
        let mut authority = None;
        if let Some((certificate, key, ca)) = &self.tls {
            recipe = recipe.args(["--port", "0", "--tls-port", &number]);
            recipe = recipe.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key);
            recipe = recipe.arg("--tls-ca-cert-file").arg(ca).args(["--tls-auth-clients", "no"]);
            authority = Some(fs::read(ca).context("cannot read the authority's certificate")?);
        } else {
            recipe = recipe.args(["--port", &number]);
        }
        let mut admin = String::new();
        if let Some((name, password)) = &self.user {
            let secret = uuid::Uuid::new_v4().simple();
            let users = format!(
                "user default off\nuser {ADMIN} on >{secret} ~* &* +@all\n\
                 user {name} on >{password} {RULES}\n"
            );
            recipe = recipe.arg("--aclfile").arg(folder.write("users.acl", &users)?);
            admin = format!("{ADMIN}:{secret}@");
        }
        let redis = Redis {
            server: Server::new(recipe),
            port,
            admin,
            user: self.user,
            authority,
            _folder: folder,
        };
        redis.start_again().await?;
        Ok(redis)
    }
}

/// A Redis of our own, gone when this is dropped.
#[derive(Debug)]
pub struct Redis {
    // Before the folder, for it must not write in it when that goes.
    server: Server,
    port: Port,
    /// User and password of the one who may everything, as in a URL.
    admin: String,
    user: Option<(String, String)>,
    /// The certificate to trust, where it speaks TLS.
    authority: Option<Vec<u8>>,
    _folder: Folder,
}

impl Redis {
    /// Starts one without password that forgets everything when it ends.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts one that differs.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// Where clients find it: `redis://127.0.0.1:17001`, or `rediss://app:word@localhost:17001`.
    pub fn url(&self) -> String {
        let user = self.user.as_ref();
        self.at(&user.map_or_else(String::new, |(name, password)| format!("{name}:{password}@")))
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A connection of one who may everything.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        let url = self.at(&self.admin);
        let client = match &self.authority {
            Some(authority) => {
                let root_cert = Some(authority.clone());
                Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert })
            }
            None => Client::open(url),
        };
        let client = client.context("the URL of Redis")?;
        let connected = timeout(ANSWER_LIMIT, client.get_multiplexed_async_connection()).await;
        connected.context("Redis does not answer")?.context("cannot connect to Redis")
    }

    /// Deletes every key.
    pub async fn flush_all(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        let command = ::redis::cmd("FLUSHALL");
        let flushed = timeout(ANSWER_LIMIT, command.exec_async(&mut connection)).await;
        flushed.context("Redis does not answer")?.context("FLUSHALL")
    }

    /// Kills it, as a power cut would.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&self) -> Result<()> {
        self.server.stop(STOP_LIMIT).await
    }

    /// Starts it again on the same port, and waits until it answers.
    pub async fn start_again(&self) -> Result<()> {
        let ping = async || {
            let mut connection = self.connect().await?;
            ::redis::cmd("PING").exec_async(&mut connection).await.context("PING")
        };
        self.server.start(START_LIMIT, ping).await
    }

    /// Lets it hang: it takes connections and says nothing.
    pub fn pause(&self) -> Result<()> {
        self.server.signal(Signal::SIGSTOP)
    }

    /// Ends a pause, and waits until it answers.
    pub async fn resume(&self) -> Result<()> {
        self.server.signal(Signal::SIGCONT)?;
        let answer = async || self.connect().await.map(drop);
        eventually(START_LIMIT, "Redis after a pause", answer).await
    }

    /// What it has printed.
    pub fn log(&self) -> &Log {
        self.server.log()
    }

    fn at(&self, user: &str) -> String {
        let port = self.port.number();
        match self.authority {
            Some(_) => format!("rediss://{user}localhost:{port}"),
            None => format!("redis://{user}127.0.0.1:{port}"),
        }
    }
}
