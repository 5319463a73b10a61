//! A private RabbitMQ: a node, and the name service of Erlang that it needs.

mod api;
mod trio;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::certs::Certs;
use crate::folder::Folder;
use crate::next_servers;
use crate::poll::eventually;
use crate::ports::Port;
use crate::process::{Log, Recipe};
use crate::server::Server;

use api::Api;
pub use api::Queue;
use trio::Member;
pub use trio::Trio;

/// Not those in /usr/sbin, which want root and always take the same folders.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

const NODE: &str = "excite@localhost";

/// Up in 8 s; on a machine that is busy with other things in 20.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// Of `rabbitmqctl`, which starts an Erlang of its own.
const CONTROL_LIMIT: Duration = Duration::from_secs(90);

/// How to start a [`Rabbit`].
#[derive(Debug, Default)]
pub struct RabbitBuilder {
    dir: Option<PathBuf>,
    settings: Vec<String>,
    erlang: Vec<String>,
    member: Option<Member>,
    tls: Option<(PathBuf, PathBuf, PathBuf)>,
}

impl RabbitBuilder {
    /// How long a consumer may keep a message unacknowledged before its channel is closed. Where
    /// nothing else is said, the node looks once a minute; here it looks each half second.
    #[must_use]
    pub fn consumer_timeout(mut self, limit: Duration) -> Self {
        self.erlang.push("-rabbit channel_tick_interval 500".to_owned());
        self.setting("consumer_timeout", &limit.as_millis().to_string())
    }

    /// Adds a line of rabbitmq.conf.
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push(format!("{key} = {value}\n"));
        self
    }

    /// Puts its files in a folder that stays.
    #[must_use]
    pub fn dir(mut self, path: impl AsRef<Path>) -> Self {
        self.dir = Some(path.as_ref().to_owned());
        self
    }

    /// Speaks AMQP over TLS only.
    #[must_use]
    pub fn tls(mut self, certs: &Certs) -> Self {
        self.tls = Some((certs.certificate(), certs.key(), certs.authority()));
        self
    }

    /// Starts it, and waits until it answers.
    pub async fn start(self) -> Result<Rabbit> {
        let folder = match &self.dir {
            Some(path) => Folder::kept(path)?,
            None => Folder::temporary("rabbit")?,
        };
        let [amqp, http, peers, names] =
            [Port::free()?, Port::free()?, Port::free()?, Port::free()?];
        let config = folder.write("rabbitmq.conf", &self.config(&amqp, &http))?;
        let plugins = folder.write("enabled_plugins", "[rabbitmq_management].\n")?;
        let home = folder.sub("home")?;
        let secret = self.member.as_ref().map(|member| member.secret.clone());
        cookie(&home, secret)?;
        let name = self.member.as_ref().map_or(NODE, |member| &member.name).to_owned();
        let names_port = match &self.member {
            Some(member) => member.names.to_string(),
            None => names.number().to_string(),
        };
        let epmd = Recipe::new("epmd", "epmd").alone();
        let epmd = epmd.args(["-port", &names_port, "-address", "127.0.0.1"]);
        let server = format!("{SCRIPTS}/rabbitmq-server");
        let (program, args) = next_servers::find(folder.path(), &server).await?;
        let node = Recipe::new("rabbitmq-server", program)
            .args(args)
            .alone()
            .env("HOME", &home)
            .env("ERL_EPMD_PORT", &names_port)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // The script becomes the node instead of waiting for it: signals reach the node.
            .env("RUNNING_UNDER_SYSTEMD", "yes")
            // No settings of the machine.
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", &name)
            .env("RABBITMQ_DIST_PORT", peers.number().to_string())
            .env("RABBITMQ_CONFIG_FILE", config)
            .env("RABBITMQ_MNESIA_BASE", folder.sub("mnesia")?)
            .env("RABBITMQ_LOG_BASE", folder.sub("log")?)
            .env("RABBITMQ_PID_FILE", folder.path().join("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", self.erlang())
            // A node of a test is idle most of the time and must not spin meanwhile.
            .env("RABBITMQ_SERVER_ERL_ARGS", "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none");

        let rabbit = Rabbit {
            node: Server::new(node),
            epmd: Server::new(epmd),
            api: Api::new(http.number())?,
            tls: self.tls.is_some(),
            ports: [amqp, http, peers, names],
            name,
            folder,
        };
        // Members of a cluster share one.
        if self.member.is_none() {
            let reach = async || reach(&rabbit.ports[3]).await;
            rabbit.epmd.start(START_LIMIT, reach).await?;
        }
        rabbit.start_again().await?;
        Ok(rabbit)
    }

    /// What rabbitmq.conf cannot say.
    fn erlang(&self) -> String {
        // Queues tell their lengths every 5 s unless told otherwise.
        let usual = "-kernel inet_dist_use_interface {127,0,0,1} -rabbit quorum_tick_interval 200"
            .to_owned();
        self.erlang.iter().fold(usual, |all, one| format!("{all} {one}"))
    }

    /// The settings, rabbitmq.conf. The intervals of statistics are short, for tests wait for
    /// them: by default numbers are up to 10 s old.
    fn config(&self, amqp: &Port, http: &Port) -> String {
        let (amqp, http) = (amqp.number(), http.number());
        let mut config = match &self.tls {
            None => format!("listeners.tcp.1 = 127.0.0.1:{amqp}\n"),
            Some((certificate, key, authority)) => format!(
                "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{amqp}\n\
                 ssl_options.certfile = {}\nssl_options.keyfile = {}\n\
                 ssl_options.cacertfile = {}\nssl_options.verify = verify_none\n\
                 ssl_options.fail_if_no_peer_cert = false\n",
                certificate.display(),
                key.display(),
                authority.display()
            ),
        };
        config += &format!(
            "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {http}\n\
             management.rates_mode = basic\ncollect_statistics_interval = 200\n\
             management.sample_retention_policies.global.minute = 1\n\
             management.sample_retention_policies.basic.minute = 1\n\
             management.sample_retention_policies.detailed.10 = 1\n\
             log.console = true\nlog.file = false\nlog.console.level = info\n\
             vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = {DISK_LIMIT}\n"
        );
        let peers = self.member.as_ref().map(Member::config).unwrap_or_default();
        config + &peers + &self.settings.concat()
    }
}

/// Free space below which the node takes no messages: low, for a disk that is nearly full is no
/// reason for tests to fail.
const DISK_LIMIT: &str = "50MB";
/// And more space than any disk has.
const DISK_LIMIT_ABOVE_ALL: &str = "1000000GB";

/// Erlang wants a secret that nobody else can read; one's own, unless it is shared.
fn cookie(home: &Path, shared: Option<String>) -> Result<()> {
    let path = home.join(".erlang.cookie");
    if !path.exists() {
        let secret = shared.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        fs::write(&path, secret).context("cannot write Erlang's cookie")?;
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).context("cannot hide the cookie")
}

/// Whether something listens.
async fn reach(port: &Port) -> Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port.number())).await;
    stream.map(drop).with_context(|| format!("port {}", port.number()))
}

/// A RabbitMQ of our own, gone when this is dropped.
#[derive(Debug)]
pub struct Rabbit {
    // Before the folder, for they must not write in it when that goes.
    node: Server,
    epmd: Server,
    api: Api,
    tls: bool,
    /// Those of AMQP, the management API, other nodes, and epmd.
    ports: [Port; 4],
    /// The node's.
    name: String,
    folder: Folder,
}

impl Rabbit {
    /// Starts one with the usual settings.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts one that differs.
    pub fn builder() -> RabbitBuilder {
        RabbitBuilder::default()
    }

    /// The version that the node says.
    pub async fn version(&self) -> Result<String> {
        self.api.version().await
    }

    /// The one of this test program, started when it is first asked for. Each test takes a vhost
    /// of its own; a test that harms the node starts its own node.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Rabbit> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Where clients find a vhost: `amqp://guest:guest@127.0.0.1:17001/name`.
    pub fn url(&self, vhost: &str) -> String {
        self.url_as("guest", "guest", vhost)
    }

    /// Where another user finds a vhost.
    pub fn url_as(&self, name: &str, password: &str, vhost: &str) -> String {
        let (scheme, host) = if self.tls { ("amqps", "localhost") } else { ("amqp", "127.0.0.1") };
        let port = self.port();
        let [name, password, vhost] = [name, password, vhost].map(api::encode);
        format!("{scheme}://{name}:{password}@{host}:{port}/{vhost}")
    }

    /// The port of AMQP.
    pub fn port(&self) -> u16 {
        self.ports[0].number()
    }

    /// Where its management API is: `http://127.0.0.1:17002`, user and password `guest`.
    pub fn management(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1].number())
    }

    /// Makes a vhost if it is not there, in which guest may everything, and says where clients
    /// find it.
    pub async fn vhost(&self, name: &str) -> Result<String> {
        self.api.vhost(name).await?;
        self.api.permit("guest", name, [".*"; 3]).await?;
        Ok(self.url(name))
    }

    /// Makes a user who may configure, write and read what these expressions match, and says
    /// where this user finds the vhost.
    pub async fn user(
        &self,
        vhost: &str,
        name: &str,
        password: &str,
        permissions: [&str; 3],
    ) -> Result<String> {
        self.api.user(name, password).await?;
        self.api.permit(name, vhost, permissions).await?;
        Ok(self.url_as(name, password, vhost))
    }

    /// Sets a policy for the queues of a vhost whose names match.
    pub async fn policy(
        &self,
        vhost: &str,
        name: &str,
        pattern: &str,
        definition: &serde_json::Value,
    ) -> Result<()> {
        self.api.policy(vhost, name, pattern, definition).await
    }

    /// The queues of a vhost, with their messages as of 0.2 s ago and their consumers as of 1 s
    /// ago: wait for a number with [`eventually`].
    pub async fn queues(&self, vhost: &str) -> Result<Vec<Queue>> {
        self.api.queues(vhost).await
    }

    /// Closes every connection, as an operator would, and says how many there were. Connections
    /// younger than a moment may be left out.
    pub async fn close_connections(&self) -> Result<usize> {
        self.api.close_connections().await
    }

    /// Closes every connection to a vhost, as an operator would, and says how many there were.
    pub async fn close_connections_to(&self, vhost: &str) -> Result<usize> {
        self.api.close_connections_to(vhost).await
    }

    /// Waits until the node has noted its quorum queues on disk, which it does up to a second
    /// after it has said that they are declared: a queue younger than that does not work after a
    /// kill.
    pub async fn settle(&self) -> Result<()> {
        let names = format!("mnesia/{0}/quorum/{0}/names.dets", self.name);
        let names = self.folder.path().join(names);
        eventually(SETTLE_LIMIT, "the queues on disk", async || {
            let bytes = fs::read(&names).with_context(|| format!("no {}", names.display()))?;
            // The third number of Erlang's disk tables is 1 where nothing is left in memory.
            anyhow::ensure!(bytes.get(8..12) == Some(&[0, 0, 0, 1]), "unwritten changes");
            anyhow::Ok(())
        })
        .await
    }

    /// Kills the node, as a power cut would. Right after a queue was declared, [`Self::settle`]
    /// first.
    pub fn kill(&self) {
        self.node.kill();
    }

    /// Asks the node to end, and waits until it has.
    pub async fn stop(&self) -> Result<()> {
        self.node.stop(STOP_LIMIT).await
    }

    /// Starts the node again, with the same ports and data, and waits until it answers.
    pub async fn start_again(&self) -> Result<()> {
        let answer = async || {
            // In this order: the management API is up last.
            reach(&self.ports[0]).await?;
            self.api.overview().await
        };
        self.node.start(START_LIMIT, answer).await
    }

    /// Raises or ends the alarm of a full disk, during which the node takes no messages.
    pub async fn alarm(&self, on: bool) -> Result<()> {
        let limit = if on { DISK_LIMIT_ABOVE_ALL } else { DISK_LIMIT };
        self.control(&["set_disk_free_limit", limit]).await?;
        let what = if on { "the alarm" } else { "the end of the alarm" };
        eventually(CONTROL_LIMIT, what, async || match self.api.alarmed().await {
            Ok(alarmed) if alarmed == on => Ok(()),
            Ok(alarmed) => Err(format!("alarmed: {alarmed}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    /// What the node has printed.
    pub fn log(&self) -> &Log {
        self.node.log()
    }

    /// Runs `rabbitmqctl`.
    async fn control(&self, args: &[&str]) -> Result<()> {
        let program = format!("{SCRIPTS}/rabbitmqctl");
        let (program, first) = next_servers::find(self.folder.path(), &program).await?;
        let mut command = self.node.beside(program);
        command.args(first).args(args).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let output = timeout(CONTROL_LIMIT, command.kill_on_drop(true).output()).await;
        let output = output.with_context(|| format!("rabbitmqctl {args:?} does not end"))?;
        let output = output.context("cannot start rabbitmqctl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("rabbitmqctl {args:?} ended with {}: {said}", output.status);
        }
        Ok(())
    }
}
