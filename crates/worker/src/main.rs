//! `excite-worker`: flags, configuration, logs, probes, signals; the work is the library's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use excite_diffusion::{Compute, DeviceChoice, Instructions, Precision};
use excite_service::config::{self, Loaded};
use excite_service::signals::Signals;
use excite_service::{health, ports, process};
use excite_worker::pipeline::{Empty, Guided, Paced, Pipeline};
use excite_worker::{BatchSize, Config, Metrics, Models, ModelsOptions, Ports, Sections, Worker};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What still runs on the runtime's threads when the worker ends may take so long.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Takes jobs from the queue, makes their images, stores them.
#[derive(Debug, Parser)]
#[command(
    name = "excite-worker",
    version,
    after_help = "Example:\n  EXCITE_BROKER__URL=amqp://user:password@broker excite-worker \
                  --models-dir /models\n\nEvery value can be set as a flag, in the environment \
                  (EXCITE_WORKER__SLOTS), or in excite.toml; --print-config shows all of them."
)]
struct Args {
    /// Read this file instead of excite.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show every value and where it comes from, then exit.
    #[arg(long)]
    print_config: bool,
    /// What makes images; `empty` makes one pixel without a model, to measure the rest.
    #[arg(long, value_enum, default_value = "guided")]
    pipeline: PipelineName,
    /// Take jobs without a self-test; only with `--pipeline empty`.
    #[arg(long)]
    skip_self_test: bool,
    /// What a step takes without work, as if a GPU made it; only with `--pipeline empty`.
    #[arg(long, value_name = "N")]
    step_milliseconds: Option<u64>,
    #[command(flatten)]
    worker: WorkerFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PipelineName {
    Guided,
    Empty,
}

#[derive(Debug, clap::Args, Serialize)]
struct WorkerFlags {
    /// Name in outcomes and logs.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Group of workers it belongs to.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    /// Whose jobs it takes.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    /// Jobs at a time.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<u16>,
    /// What models compute on: auto, cpu, cuda or cuda:N.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceChoice>,
    /// Number format of the weights: f16, bf16 or f32.
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<Precision>,
    /// The most jobs of a micro-batch: a number, or `auto` for what is fast and fits into memory.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<BatchSize>,
    /// Directory of model folders.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    models_dir: Option<PathBuf>,
    /// Where models from the store are kept.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
    /// Where /healthz, /readyz and /metrics are.
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Serialize)]
struct Flags<'a> {
    worker: &'a WorkerFlags,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (loaded, config) = match load(&args) {
        Ok(loaded) => loaded,
        Err(faults) => return process::refuse(&faults),
    };
    if args.print_config {
        return process::print_config(&loaded);
    }
    let service = async { run(&args, &loaded.config, config).await.map(|()| ExitCode::SUCCESS) };
    process::run("worker", &loaded.config.log, LAST_TASKS, service)
}

fn load(args: &Args) -> Result<(Loaded<Sections>, Config), Vec<String>> {
    for (flag, given) in [
        ("--skip-self-test", args.skip_self_test),
        ("--step-milliseconds", args.step_milliseconds.is_some()),
    ] {
        if given && args.pipeline != PipelineName::Empty {
            return Err(vec![format!("{flag} goes with --pipeline empty only")]);
        }
    }
    let said = |error: excite_diffusion::Error| vec![format!("{error}. {}", error.advice().1)];
    excite_diffusion::threads().map_err(said)?;
    Instructions::choose().map_err(|error| said(error.into()))?;
    let flags = Flags { worker: &args.worker };
    let loaded: Loaded<Sections> =
        config::load(args.config.as_deref(), &flags).map_err(|error| error.0)?;
    let config = loaded.config.worker.clone().settle()?;
    Ok((loaded, config))
}

async fn run(args: &Args, sections: &Sections, config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("signals cannot be heard")?;
    let compute = match args.pipeline {
        PipelineName::Guided => compute(&config)?,
        PipelineName::Empty => Compute::cpu(),
    };
    let metrics = Metrics::new(compute.kind()).context("metrics")?;
    let ports = Ports {
        queue: Arc::new(ports::queue(&sections.broker, &config.name)?),
        store: Arc::new(ports::store(&sections.store).await?),
        progress: Arc::new(ports::progress(&sections.progress, &config.name)?),
    };
    let (pipeline, models) = pipeline(args, &config, compute, &ports, &metrics);
    let listen = config.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; set worker.listen to a free address")
    })?;
    let worker = Worker::new(config, ports, pipeline, models, metrics.clone())?;
    let (live, ready) = worker.probes();
    let router = health::router(metrics.registry().clone(), live, ready);
    let (stop, served) = (CancellationToken::new(), CancellationToken::new());
    let serving = tokio::spawn(health::serve(listener, router, served.clone().cancelled_owned()));
    let mut working = std::pin::pin!(worker.run(stop.clone()));
    let ended = loop {
        tokio::select! {
            ended = &mut working => break ended.map_err(anyhow::Error::from),
            signal = signals.next() => {
                if stop.is_cancelled() {
                    warn!(signal, "stopped at once; the broker redelivers what ran");
                    break Ok(());
                }
                info!(signal, "the worker is to stop");
                stop.cancel();
            }
        }
    };
    served.cancel();
    // A scrape that hangs must not keep the process.
    let _ = tokio::time::timeout(LAST_TASKS, serving).await;
    ended
}

/// The device that is set, or why there is none.
fn compute(config: &Config) -> anyhow::Result<Compute> {
    let compute = Compute::choose(config.device, config.precision).map_err(|error| {
        let (_, remedy) = error.advice();
        anyhow::anyhow!("{error}. {remedy} (Settings: worker.device, worker.precision.)")
    })?;
    info!(device = compute.name(), kind = compute.kind(), "models compute on this");
    Ok(compute)
}

fn pipeline(
    args: &Args,
    config: &Config,
    compute: Compute,
    ports: &Ports,
    metrics: &Metrics,
) -> (Box<dyn Pipeline>, Option<Arc<Models>>) {
    if args.pipeline == PipelineName::Empty {
        let step = args.step_milliseconds.map(Duration::from_millis);
        return match step {
            Some(step) => (Box::new(Paced::new(step, metrics.clone())), None),
            None => (Box::new(Empty), None),
        };
    }
    let options = ModelsOptions {
        bytes: config.model_bytes(&compute),
        compute,
        models_dir: config.models_dir.clone(),
        cache_dir: config.cache_dir.clone(),
        pinned: config.pinned_models.clone(),
    };
    let (store, runtime) = (Arc::clone(&ports.store), tokio::runtime::Handle::current());
    let models = Arc::new(Models::new(options, store, runtime, metrics.clone()));
    (Box::new(Guided::new(Arc::clone(&models), metrics.clone())), Some(models))
}
