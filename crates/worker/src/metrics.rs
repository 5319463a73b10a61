//! Every metric of the worker: name, help and labels in one place, typed handles elsewhere.
//!
//! Labels are bounded: no batch, job or worker is one. Not here: how they are served
//! (`excite_service::health`).

use std::time::SystemTime;

use excite_jobs::Lane;
use excite_service::described::{Described, described};
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::checkpoints::Resumed;
use crate::reuse::Looked;

/// Handles of all metrics.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each has its help in `Metrics::new`, which is printed too")]
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    pub jobs: IntCounterVec,
    pub job_duration: HistogramVec,
    pub stage_duration: HistogramVec,
    pub queue_wait: HistogramVec,
    pub step_duration: Histogram,
    pub images: IntCounter,
    pub gpu_seconds: CounterVec,
    pub micro_batch_size: Histogram,
    pub batch_size: IntGaugeVec,
    pub cache_hits: IntCounter,
    pub cache_misses: IntCounter,
    pub cache_evictions: IntCounter,
    pub cache_bytes: IntGauge,
    pub model_load: Histogram,
    pub oom: IntCounterVec,
    pub steps: IntCounter,
    pub steps_wasted: IntCounter,
    pub checkpoints: IntCounterVec,
    pub preemptions: IntCounter,
    pub redeliveries: IntCounterVec,
    pub reuse: IntCounterVec,
    pub leases_lost: IntCounter,
    pub held: IntGauge,
    pub self_test_ok: IntGauge,
    pub broker_connected: IntGauge,
    pub broker_blocked: IntGauge,
    pub store_retries: IntCounter,
    pub progress_errors: IntCounter,
    pub last_job: Gauge,
}

/// From the bundled model on two cores to SDXL with refinement on a slow card.
const JOB: &[f64] = &[0.5, 1., 2., 5., 10., 30., 60., 120., 300., 600., 1800.];
const STAGE: &[f64] = &[0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 15., 60., 300., 1200.];
/// From an idle pool to a backlog of hours; the broker keeps whole seconds.
const WAIT: &[f64] = &[1., 5., 15., 60., 300., 900., 1800., 3600., 7200., 21600.];
const STEP: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1., 2., 5., 15., 60.];
const LOAD: &[f64] = &[0.5, 1., 2., 5., 10., 30., 60., 120., 300.];
const SIZE: &[f64] = &[1., 2., 4., 8., 16., 32., 64., 128., 256.];

struct Maker {
    registry: Registry,
    described: Vec<Described>,
}

impl Maker {
    fn keep<C: Collector + Clone + 'static>(&mut self, metric: C) -> prometheus::Result<C> {
        self.described.extend(described(&metric));
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&mut self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.keep(IntCounter::with_opts(opts(name, help))?)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        by: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.keep(IntCounterVec::new(opts(name, help), by)?)
    }

    fn gauge(&mut self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.keep(IntGauge::with_opts(opts(name, help))?)
    }

    fn histogram(&mut self, name: &str, help: &str, at: &[f64]) -> prometheus::Result<Histogram> {
        self.keep(Histogram::with_opts(histogram(name, help, at))?)
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        at: &[f64],
        by: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        self.keep(HistogramVec::new(histogram(name, help, at), by)?)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("excite")
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace("excite").buckets(buckets.to_vec())
}

impl Metrics {
    /// Registers all of them in a registry of their own.
    ///
    /// # Errors
    /// If two have one name, which a test rules out.
    pub fn new(kind: &str) -> prometheus::Result<Self> {
        let mut m = Maker { registry: Registry::new(), described: Vec::new() };
        let jobs = m.counters("jobs_total", "Outcomes published", &["model", "outcome"])?;
        let job_duration = m.histograms(
            "job_duration_seconds",
            "From the delivery of a job to its acknowledgement",
            JOB,
            &["model"],
        )?;
        let stage_duration = m.histograms(
            "stage_duration_seconds",
            "A stage of a job: queue, load, encode, denoise, decode, png, upload or ack",
            STAGE,
            &["stage"],
        )?;
        let wait = "From the first publication of a job to its delivery, by two machines' clocks";
        let queue_wait = m.histograms("queue_wait_seconds", wait, WAIT, &["lane"])?;
        let step = "One denoising step of a micro-batch with its guidance and refinement";
        let step_duration = m.histogram("step_duration_seconds", step, STEP)?;
        let images = m.counter("images_total", "Images made")?;
        let gpu_seconds = CounterVec::new(
            opts("gpu_seconds_total", "Seconds that the compute thread worked, loading left out"),
            &["model"],
        )?;
        let gpu_seconds = m.keep(gpu_seconds)?;
        let micro_batch_size = m.histogram("microbatch_size", "Jobs of a micro-batch", SIZE)?;
        let chosen = "The most jobs of a micro-batch of a model, as it was chosen last";
        let batch_size = m.keep(IntGaugeVec::new(opts("batch_size", chosen), &["model"])?)?;
        let cache_hits = m.counter("model_cache_hits_total", "Models that were in memory")?;
        let cache_misses = m.counter("model_cache_misses_total", "Models that had to be loaded")?;
        let evicted = "Models given up to make room";
        let cache_evictions = m.counter("model_cache_evictions_total", evicted)?;
        let cache_bytes = m.gauge("model_cache_bytes", "Bytes of the models in memory")?;
        let load = "Fetching and loading a model";
        let model_load = m.histogram("model_load_seconds", load, LOAD)?;
        let oom = "Out of memory, by what was done: evict, halve or fail";
        let oom = m.counters("oom_total", oom, &["action"])?;
        let steps = m.counter("steps_total", "Denoising steps, one for each image")?;
        let wasted = "Denoising steps whose result is lost: of runs that were cancelled, failed, or \
                      were stopped in mid-step";
        let steps_wasted = m.counter("steps_wasted_total", wasted)?;
        let saved = "States of unfinished jobs, by op (save, resume) and result (ok, failed, missing, \
                     mismatch, damaged)";
        let checkpoints = m.counters("checkpoints_total", saved, &["op", "result"])?;
        let preempted = "Running jobs that were handed over because the worker had to stop";
        let preemptions = m.counter("preemptions_total", preempted)?;
        let redelivered = "Deliveries of known jobs: reattached, skipped (its result is stored), \
                           answered (its outcome is known) or restarted";
        let redeliveries = m.counters("redeliveries_total", redelivered, &["kind"])?;
        let looked = "New jobs by what came of looking for a result of an equal job: reused, missing, \
                      unusable (gone, damaged or without what is wanted) or failed";
        let reuse = m.counters("reuse_total", looked, &["result"])?;
        let lost = "Acknowledgements that came after their connection was lost";
        let leases_lost = m.counter("leases_lost_total", lost)?;
        let held = m.gauge("jobs_held", "Jobs that were delivered and not acknowledged")?;
        let self_test_ok = m.gauge("selftest_ok", "1 if the last self-test passed")?;
        let broker_connected = m.gauge("broker_connected", "1 with a connection to the broker")?;
        let blocked = "1 while the broker takes no publications";
        let broker_blocked = m.gauge("broker_blocked", blocked)?;
        let retried = "Calls to the store that were tried again";
        let store_retries = m.counter("store_retries_total", retried)?;
        let redis = "Calls to the progress store that failed";
        let progress_errors = m.counter("redis_errors_total", redis)?;
        let last = "When the last job was done, in seconds since 1970";
        let last_job = m.keep(Gauge::with_opts(opts("last_job_timestamp_seconds", last))?)?;
        let build = "Always 1; what runs here";
        let build = opts("build_info", build)
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("kind", kind)
            .const_label("service", "worker");
        m.keep(IntGauge::with_opts(build)?)?.set(1);
        let Maker { registry, described } = m;
        Ok(Self {
            registry,
            described,
            jobs,
            job_duration,
            stage_duration,
            queue_wait,
            step_duration,
            images,
            gpu_seconds,
            micro_batch_size,
            batch_size,
            cache_hits,
            cache_misses,
            cache_evictions,
            cache_bytes,
            model_load,
            oom,
            steps,
            steps_wasted,
            checkpoints,
            preemptions,
            redeliveries,
            reuse,
            leases_lost,
            held,
            self_test_ok,
            broker_connected,
            broker_blocked,
            store_retries,
            progress_errors,
            last_job,
        })
    }

    /// Where they are registered.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All of them, for documents.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// Notes how long a stage took.
    pub(crate) fn stage(&self, stage: Stage, seconds: f64) {
        self.stage_duration.with_label_values(&[stage.name()]).observe(seconds);
    }

    /// Notes how long a job waited in its queue. Clocks may differ: nothing is less than 0.
    pub(crate) fn waited(&self, lane: Lane, since: SystemTime) {
        let waited = since.elapsed().unwrap_or_default();
        self.queue_wait.with_label_values(&[lane.as_str()]).observe(waited.as_secs_f64());
    }

    /// Notes what came of looking for a saved state.
    pub(crate) fn resumed(&self, result: Resumed) {
        self.checkpoints.with_label_values(&["resume", result.name()]).inc();
    }

    /// Notes what came of looking for a result that was made before.
    pub(crate) fn looked(&self, looked: Looked) {
        self.reuse.with_label_values(&[looked.name()]).inc();
    }

    /// Notes a delivery of a known job.
    pub(crate) fn redelivery(&self, kind: Redelivery) {
        self.redeliveries.with_label_values(&[kind.name()]).inc();
    }
}

/// A stage of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    Queue,
    Load,
    Encode,
    Denoise,
    Decode,
    Png,
    Upload,
    Ack,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Load => "load",
            Self::Encode => "encode",
            Self::Denoise => "denoise",
            Self::Decode => "decode",
            Self::Png => "png",
            Self::Upload => "upload",
            Self::Ack => "ack",
        }
    }
}

/// What a delivery of a known job came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Redelivery {
    Reattached,
    Skipped,
    Answered,
    Restarted,
}

impl Redelivery {
    fn name(self) -> &'static str {
        match self {
            Self::Reattached => "reattached",
            Self::Skipped => "skipped",
            Self::Answered => "answered",
            Self::Restarted => "restarted",
        }
    }
}

#[cfg(test)]
mod tests {
    use excite_service::described::table;

    use super::*;

    #[test]
    fn names_follow_the_rules_and_have_a_help() {
        let metrics = Metrics::new("cpu").unwrap();
        for Described { name, help, .. } in metrics.described() {
            assert!(name.starts_with("excite_"), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
        }
        let names: Vec<&str> = metrics.described().iter().map(|d| d.name.as_str()).collect();
        assert!(names.contains(&"excite_jobs_total") && names.contains(&"excite_build_info"));
    }

    #[test]
    fn the_page_of_metrics_has_them() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let table = table(Metrics::new("cpu").unwrap().described().to_vec());
        assert!(page.contains(&table), "put this into docs/metrics.md, the worker's:\n{table}");
    }
}
