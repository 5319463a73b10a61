//! `excite serve`: dispatcher, worker, store and queue in one process.
//!
//! The queue and the progress store live in memory, everything that counts in the data folder. At
//! the start every job that was accepted and not concluded is published again. Not here: what the
//! parts do (`excite_dispatcher`, `excite_worker`).

mod data;
mod offer;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use excite_diffusion::Compute;
use excite_dispatcher::Ports;
use excite_dispatcher::accept::sweeper;
use excite_dispatcher::config::Dispatcher;
use excite_dispatcher::http::{App, router, serve};
use excite_dispatcher::lead::{self, LeadConfig};
use excite_jobs::progress::memory::MemoryMirror;
use excite_jobs::queue::memory::MemoryQueue;
use excite_jobs::store::directory::DirectoryStore;
use excite_service::signals::Signals;
use excite_service::telemetry::{self, Log, LogFormat};
use excite_worker::pipeline::Guided;
use excite_worker::{Config as WorkerConfig, Metrics, Models, ModelsOptions, Worker, WorkerError};
use prometheus::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::ServeArgs;
use crate::fault::{Fault, Status};
use crate::models;
use crate::printer::Printer;
use data::Data;

/// How long requests that run may go on once the worker has stopped.
const STOP_MAX: Duration = Duration::from_secs(5);
/// What still runs on the runtime's threads at the end may take so long.
const LAST_TASKS: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &ServeArgs, printer: &Printer) -> Result<Status, Fault> {
    let log = Log { format: LogFormat::Text, filter: args.log.clone() };
    telemetry::init(&log)
        .map_err(|fault| Fault::usage("log", fault, "Use a filter such as `info`."))?;
    let dispatcher = dispatcher(args)?;
    let compute = args.compute.choose()?;
    let data = Data::open(args.data.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Fault::bug(&format!("no threads: {e}")))?;
    let served = runtime.block_on(start(args, dispatcher, compute, &data, printer));
    runtime.shutdown_timeout(LAST_TASKS);
    served
}

async fn start(
    args: &ServeArgs,
    dispatcher: Dispatcher,
    compute: Compute,
    data: &Data,
    printer: &Printer,
) -> Result<Status, Fault> {
    let mut signals =
        Signals::listen().map_err(|e| Fault::bug(&format!("signals cannot be heard: {e}")))?;
    let listener = TcpListener::bind(args.listen).await.map_err(|e| taken(args.listen, &e))?;
    let address = listener.local_addr().map_err(|e| taken(args.listen, &e))?;
    let system = System::new(args, dispatcher, compute, data)?;
    let store = excite_dispatcher::models::Models::new(system.ports.store.clone());
    for model in &args.models {
        offer::offer(&store, model, printer).await?;
    }
    let (served, worked) = (CancellationToken::new(), CancellationToken::new());
    let serving = tokio::spawn(system.serve(listener, served.clone())?);
    let mut working = std::pin::pin!(system.work(worked.clone())?);
    announce(&format!("http://{address}"), data, printer);
    let ended = tokio::select! {
        ended = &mut working => Err(broken(ended)),
        _ = signals.next() => Ok(Status::Done),
    };
    if ended.is_ok() {
        printer.note("saving what runs; Ctrl-C again stops at once");
        worked.cancel();
        // What it hands over is recorded before the dispatcher goes.
        if let Err(error) = working.await {
            printer.warning(&format!("the worker: {error}"));
        }
    }
    served.cancel();
    let _ = serving.await;
    ended
}

fn dispatcher(args: &ServeArgs) -> Result<Dispatcher, Fault> {
    let first = args.models.first().map_or(models::BUNDLED, String::as_str);
    let dispatcher = Dispatcher {
        name: Some("serve".into()),
        listen: args.listen,
        default_model: models::find(first)?.name(),
        tokens_file: args.tokens.clone(),
        ..Dispatcher::default()
    };
    if dispatcher.is_open_to_strangers() {
        let message = format!(
            "{} can be reached from elsewhere, and nobody is asked who they are",
            args.listen
        );
        let remedy = "Make a file of tokens with `excite token new` and name it with --tokens, or \
                      leave --listen out.";
        return Err(Fault::usage("listen", message, remedy));
    }
    Ok(dispatcher)
}

/// Everything that runs, on one set of ports.
struct System {
    ports: Ports,
    queue: MemoryQueue,
    dispatcher: Dispatcher,
    compute: Compute,
    worker: WorkerConfig,
    registry: Registry,
}

impl System {
    fn new(
        args: &ServeArgs,
        dispatcher: Dispatcher,
        compute: Compute,
        data: &Data,
    ) -> Result<Self, Fault> {
        let store = DirectoryStore::open(data.store())
            .map_err(|e| Fault::new(Status::Failed, "store", e.to_string(), store_remedy()))?;
        let queue = MemoryQueue::new();
        let ports = Ports {
            queue: Arc::new(queue.connection()),
            store: Arc::new(store),
            progress: Arc::new(MemoryMirror::default()),
        };
        let worker = WorkerConfig {
            name: "serve".into(),
            slots: args.slots,
            cache_dir: data.models(),
            ..WorkerConfig::default()
        };
        let worker = worker.settle().map_err(|faults| Fault::bug(&faults.join("; ")))?;
        Ok(Self { ports, queue, dispatcher, compute, worker, registry: Registry::new() })
    }

    /// The dispatcher: HTTP, and everything that leads to a job and follows of it.
    fn serve(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Fault> {
        let bug = |e: &dyn std::fmt::Display| Fault::bug(&e.to_string());
        let metrics = excite_dispatcher::metrics::Metrics::register(&self.registry);
        let metrics = metrics.map_err(|e| bug(&e))?;
        let leading = lead::Metrics::register(&self.registry).map_err(|e| bug(&e))?;
        let app = App::new(self.ports.clone(), self.dispatcher.clone(), metrics);
        let app = app.map_err(|e| Fault::usage("start", e.to_string(), "Mend what it names."))?;
        let router = router(app, self.registry.clone());
        let config = LeadConfig { queue_is_new: true, ..LeadConfig::new("serve") };
        let ports = self.ports.clone();
        Ok(async move {
            let serving = serve(listener, router, stop.clone(), STOP_MAX);
            let sweeping = sweeper(ports.clone(), stop.clone());
            let leading = lead::lead(ports.clone(), config, Arc::new(leading), stop);
            // Leading cannot fail here: only a broker can have wrong queues.
            let _ = tokio::join!(leading, serving, sweeping);
            ports.queue.close().await;
        })
    }

    /// The worker of this machine.
    fn work(
        &self,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = Result<(), WorkerError>>, Fault> {
        let bug = |e: &dyn std::fmt::Display| Fault::bug(&e.to_string());
        let metrics = Metrics::new(self.compute.kind()).map_err(|e| bug(&e))?;
        let ports = excite_worker::Ports {
            queue: Arc::new(self.queue.connection()),
            store: self.ports.store.clone(),
            progress: self.ports.progress.clone(),
        };
        let options = ModelsOptions {
            bytes: self.worker.model_bytes(&self.compute),
            compute: self.compute.clone(),
            models_dir: None,
            cache_dir: self.worker.cache_dir.clone(),
            pinned: Vec::new(),
        };
        let runtime = tokio::runtime::Handle::current();
        let models = Models::new(options, ports.store.clone(), runtime, metrics.clone());
        let models = Arc::new(models);
        let pipeline = Box::new(Guided::new(models.clone(), metrics.clone()));
        let worker = Worker::new(self.worker.clone(), ports, pipeline, Some(models), metrics);
        Ok(worker.map_err(|e| bug(&e))?.run(stop))
    }
}

fn announce(url: &str, data: &Data, printer: &Printer) {
    printer.result(&format!("Excite is at {url}"));
    printer.note(&format!("images are kept in {}; Ctrl-C stops", data.root().display()));
    printer.object(&json!({"v": 1, "url": url, "data": data.root()}));
}

fn taken(address: SocketAddr, error: &std::io::Error) -> Fault {
    let message = format!("cannot listen on {address}: {error}");
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "Another program has the port, perhaps another `excite serve`: use that one, or \
             another port, such as --listen 127.0.0.1:0 for a free one."
        }
        _ => "Name an address of this machine with --listen.",
    };
    Fault::new(Status::Failed, "address", message, remedy.into())
}

fn broken(ended: Result<(), WorkerError>) -> Fault {
    let why = ended.err().map_or_else(|| "it ended by itself".to_owned(), |e| e.to_string());
    let remedy = "Start it again: everything that was accepted goes on.".into();
    Fault::new(Status::Failed, "worker", format!("the worker: {why}"), remedy)
}

fn store_remedy() -> String {
    "Name a folder that can be written to with --data.".into()
}
