//! `excite-dispatcher`: flags, configuration, logs, signals; the work is the library's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use excite_dispatcher::accept::sweeper;
use excite_dispatcher::config::Config;
use excite_dispatcher::http::{App, router, serve};
use excite_dispatcher::lead::{self, CanaryConfig, LeadConfig};
use excite_dispatcher::metrics::Metrics;
use excite_dispatcher::tokens::{self, Scope};
use excite_dispatcher::{Ports, topology};
use excite_jobs::queue::Queue;
use excite_jobs::queue::rabbit::{self, RabbitQueue};
use excite_service::config::{self, Loaded};
use excite_service::signals::Signals;
use excite_service::{ports, process, usable};
use prometheus::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What still runs on the runtime's threads when the dispatcher ends may take so long.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// Accepts batches, feeds the queue, concludes outcomes, serves the HTTP API.
#[derive(Debug, Parser)]
#[command(
    name = "excite-dispatcher",
    version,
    after_help = "Example:\n  EXCITE_BROKER__URL=amqp://user:password@broker excite-dispatcher \
                  --listen 127.0.0.1:8080\n\nEvery value can be set in the environment \
                  (EXCITE_DISPATCHER__LISTEN) or in excite.toml; --print-config shows all of them."
)]
struct Args {
    /// Read this file instead of excite.toml.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Show every value and where it comes from, then exit.
    #[arg(long)]
    print_config: bool,
    /// The broker lost its queues: publish again all that was published and is not concluded. For one
    /// start, once the queues are there again.
    #[arg(long, env = "EXCITE_QUEUE_IS_NEW")]
    queue_is_new: bool,
    #[command(flatten)]
    dispatcher: DispatcherFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args, Serialize)]
struct DispatcherFlags {
    /// Name in logs and for people.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Where HTTP is served.
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    /// The model of batches that name none.
    #[arg(long, value_name = "MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    default_model: Option<String>,
}

#[derive(Debug, Serialize)]
struct Flags<'a> {
    dispatcher: &'a DispatcherFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve and lead until a signal (what happens without a command).
    Run,
    /// Who may: tokens for programs and people.
    Token {
        #[command(subcommand)]
        what: Token,
    },
    /// The queues and exchanges in the broker.
    Topology {
        #[command(subcommand)]
        what: Topology,
    },
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Make a token, print it, and add its hash to the file.
    #[command(after_help = "Example:\n  excite-dispatcher token new --name ci --scope submit \
                            --file tokens.txt\n\nThe token is printed once and kept nowhere. \
                            Take its line out of the file to end it.")]
    New {
        /// Whose it is.
        #[arg(long)]
        name: String,
        /// What it may do: read; submit, which includes read; or admin, which includes both.
        #[arg(long, default_value = "submit")]
        scope: Scope,
        /// The file of hashes [default: dispatcher.tokens_file].
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum Topology {
    /// Make what is missing and set the policies, then look as `check` does.
    #[command(after_help = "Example:\n  excite-dispatcher topology apply --management-url \
                            http://user:password@broker:15672")]
    Apply {
        /// RabbitMQ's management API, through which policies are set; AMQP cannot.
        #[arg(long, value_name = "URL", env = "EXCITE_MANAGEMENT_URL", hide_env_values = true)]
        management_url: Option<String>,
        /// Print everything as a `definitions.json` for import, and change nothing.
        #[arg(long)]
        definitions: bool,
        /// The broker's major version, for --definitions.
        #[arg(long, value_name = "MAJOR", default_value_t = 4, requires = "definitions")]
        rabbitmq: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what is missing or there otherwise; the exit code is 1 if anything is.
    #[command(after_help = "Example:\n  excite-dispatcher topology check --json")]
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let loaded = match load(&args) {
        Ok(loaded) => loaded,
        Err(faults) => return process::refuse(&faults),
    };
    if args.print_config {
        return process::print_config(&loaded);
    }
    if let Some(Command::Token { what }) = &args.command {
        return new_token(&loaded.config, what);
    }
    let service = async {
        match args.command {
            Some(Command::Token { .. }) => Ok(ExitCode::SUCCESS),
            None | Some(Command::Run) => run(&loaded.config, args.queue_is_new).await,
            Some(Command::Topology { what }) => look(&loaded.config, &what).await,
        }
    };
    process::run("dispatcher", &loaded.config.log, LAST_TASKS, service)
}

fn load(args: &Args) -> Result<Loaded<Config>, Vec<String>> {
    let flags = Flags { dispatcher: &args.dispatcher };
    let loaded: Loaded<Config> =
        config::load(args.config.as_deref(), &flags).map_err(|error| error.0)?;
    let dispatcher = &loaded.config.dispatcher;
    let mut faults = dispatcher.faults();
    // Who makes a token, or queues, serves nobody.
    if matches!(args.command, None | Some(Command::Run)) {
        faults.extend(dispatcher.serving_fault());
    }
    match faults {
        faults if faults.is_empty() => Ok(loaded),
        faults => Err(faults),
    }
}

async fn connect(config: &Config) -> anyhow::Result<Ports> {
    let name = config.dispatcher.name();
    Ok(Ports {
        queue: Arc::new(ports::queue(&config.broker, &name)?),
        store: Arc::new(ports::store(&config.store).await?),
        progress: Arc::new(ports::progress(&config.progress, &name)?),
    })
}

async fn run(config: &Config, queue_is_new: bool) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("signals cannot be heard")?;
    let ports = connect(config).await?;
    let dispatcher = config.dispatcher.clone();
    let registry = Registry::new();
    let lead_metrics = Arc::new(lead::Metrics::register(&registry).context("metrics")?);
    let metrics = Metrics::register(&registry).context("metrics")?;
    let app = App::new(ports.clone(), dispatcher.clone(), metrics)?;
    let listen = dispatcher.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; set dispatcher.listen to a free address")
    })?;
    info!(name = dispatcher.name(), %listen, "serving");
    let stop = CancellationToken::new();
    let serving = serve(listener, router(app, registry), stop.clone(), dispatcher.stop());
    let serving = tokio::spawn(serving);
    let sweeping = tokio::spawn(sweeper(ports.clone(), stop.clone()));
    let config = LeadConfig { queue_is_new, ..lead_config(&dispatcher) };
    let mut leading = tokio::spawn(leading(ports.clone(), config, lead_metrics, stop.clone()));
    let led = tokio::select! {
        led = &mut leading => Some(led),
        signal = signals.next() => {
            info!(signal, "the dispatcher is to stop");
            None
        }
    };
    stop.cancel();
    let last = async {
        let led = match led {
            Some(led) => led,
            None => leading.await,
        };
        let _ = tokio::join!(serving, sweeping);
        ports.queue.close().await;
        led
    };
    let limit = dispatcher.stop() + LAST_TASKS;
    let led = tokio::select! {
        led = tokio::time::timeout(limit, last) => led,
        signal = signals.next() => {
            warn!(signal, "stopped at once; what was not concluded comes again");
            return Ok(ExitCode::FAILURE);
        }
    };
    let Ok(led) = led else {
        // Nothing is lost by that: requests were cut, or the broker does not say goodbye.
        warn!("stopping took too long; what was not concluded comes again");
        return Ok(ExitCode::SUCCESS);
    };
    led.context("leading")??;
    Ok(ExitCode::SUCCESS)
}

/// Leads once the store can be used; requests are answered meanwhile, if only with the reason.
async fn leading(
    ports: Ports,
    config: LeadConfig,
    metrics: Arc<lead::Metrics>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        usable = usable(&*ports.store, &config.name, |_| ()) => usable?,
    }
    lead::lead(ports, config, metrics, stop).await.context("the queues cannot be used")
}

fn lead_config(dispatcher: &excite_dispatcher::config::Dispatcher) -> LeadConfig {
    let canary = (dispatcher.canary_seconds > 0).then(|| CanaryConfig {
        model: dispatcher.default_model.clone(),
        every: Duration::from_secs(dispatcher.canary_seconds),
    });
    LeadConfig {
        classes: dispatcher.classes.clone(),
        window_min: dispatcher.window_min,
        window_max: dispatcher.window_max,
        canary,
        ..LeadConfig::new(dispatcher.name())
    }
}

fn new_token(config: &Config, what: &Token) -> ExitCode {
    let Token::New { name, scope, file } = what;
    let Some(file) = file.as_ref().or(config.dispatcher.tokens_file.as_ref()) else {
        return process::refuse(&["name a file with --file or dispatcher.tokens_file".into()]);
    };
    match tokens::add(file, name, *scope) {
        Ok(token) => {
            process::say(&token);
            ExitCode::SUCCESS
        }
        Err(error) => process::refuse(&[error.to_string()]),
    }
}

async fn look(config: &Config, what: &Topology) -> anyhow::Result<ExitCode> {
    let queue = ports::queue(&config.broker, &config.dispatcher.name())?;
    let looked = look_at(&queue, config, what).await;
    // Also after a fault: connections that are just dropped end with noise.
    queue.close().await;
    let (text, well) = looked?;
    process::say(&text);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What to print, and whether all is well.
async fn look_at(
    queue: &RabbitQueue,
    config: &Config,
    what: &Topology,
) -> anyhow::Result<(String, bool)> {
    let classes = &config.dispatcher.classes;
    let (report, json) = match what {
        Topology::Apply { definitions: true, rabbitmq, .. } => {
            let all = rabbit::topology::definitions(queue.vhost(), classes, *rabbitmq);
            return Ok((serde_json::to_string_pretty(&all)?, true));
        }
        Topology::Apply { management_url, json, .. } => {
            let management =
                management_url.as_deref().map(|url| manage(config, url)).transpose()?;
            (topology::apply(queue, classes, management.as_ref()).await?, *json)
        }
        Topology::Check { json } => (topology::check(queue, classes).await?, *json),
    };
    let text = if json { serde_json::to_string_pretty(&report)? } else { report.table() };
    Ok((text, report.is_well()))
}

fn manage(config: &Config, url: &str) -> anyhow::Result<topology::Management> {
    // The broker's certificates are the same for both of its doors.
    let ca_pem = config.broker.ca_file.as_ref().map(std::fs::read).transpose();
    let ca_pem = ca_pem.context("broker.ca_file cannot be read")?;
    Ok(topology::Management::new(url, ca_pem.as_deref())?)
}
