//! What the leading dispatcher counts: name, help and labels in one place.
//!
//! All replicas have them; only the leader's move. Labels are of fixed sets or names of models:
//! never a batch, job or worker.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

/// Typed handles.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `excite_published_total{result}`: `ok`, `failed`.
    pub published: IntCounterVec,
    /// `excite_retries_total{class}`.
    pub retries: IntCounterVec,
    /// `excite_dead_total{reason}`.
    pub dead: IntCounterVec,
    /// `excite_dead_jobs`: of batches that are not finished.
    pub dead_jobs: IntGauge,
    /// `excite_batches{state}`: `active`, `paused`.
    pub batches: IntGaugeVec,
    /// `excite_queue_jobs{lane,state}`: `ready` in the broker, `waiting`, `queued`, `running`,
    /// `retrying` of unfinished batches.
    pub queue_jobs: IntGaugeVec,
    /// `excite_queue_oldest_seconds`.
    pub queue_oldest: Gauge,
    /// `excite_backlog_gpu_seconds{model}`.
    pub backlog: GaugeVec,
    /// `excite_drain_seconds`.
    pub drain: Gauge,
    /// `excite_canary_age_seconds`: since one was concluded well.
    pub canary_age: Gauge,
    /// `excite_canary_duration_seconds`.
    pub canary_duration: Histogram,
    /// `excite_outcomes_total{kind}`.
    pub outcomes: IntCounterVec,
    /// `excite_stale_outcomes_total`: duplicates, too late, or of batches that are gone.
    pub stale_outcomes: IntCounter,
    /// `excite_unreadable_total`: messages that were put aside.
    pub unreadable: IntCounter,
    /// `excite_mirror_errors_total`.
    pub mirror_errors: IntCounter,
    /// `excite_leader`: 1 for the one that leads.
    pub leader: IntGauge,
    /// `excite_epoch`: of this dispatcher's last lead.
    pub epoch: IntGauge,
    /// `excite_broker_connected`.
    pub broker_connected: IntGauge,
    /// `excite_broker_blocked`.
    pub broker_blocked: IntGauge,
}

impl Metrics {
    /// Registers all.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let own = Registering(registry);
        // A canary is one tiny image: seconds with a warm model, minutes behind a cold one.
        let buckets = vec![0.5, 1., 2., 5., 15., 60., 120., 300.];
        let duration = HistogramOpts::new(
            "excite_canary_duration_seconds",
            "From publishing a canary job to its conclusion",
        );
        Ok(Self {
            published: own.counters("published_total", "Jobs published", &["result"])?,
            retries: own.counters("retries_total", "Jobs put on a rung, by class", &["class"])?,
            dead: own.counters("dead_total", "Jobs given up, by reason", &["reason"])?,
            dead_jobs: own.gauge("dead_jobs", "Dead jobs of unfinished batches")?,
            batches: own.gauges("batches", "Unfinished batches", &["state"])?,
            queue_jobs: own.gauges(
                "queue_jobs",
                "Jobs of unfinished batches; ready: messages that no worker has",
                &["lane", "state"],
            )?,
            queue_oldest: own.float(
                "queue_oldest_seconds",
                "Age of the oldest unfinished batch that is not paused",
            )?,
            backlog: own.add(GaugeVec::new(
                Opts::new("excite_backlog_gpu_seconds", "Estimated compute seconds left"),
                &["model"],
            )?)?,
            drain: own.float("drain_seconds", "Seconds until the backlog is done; -1: unknown")?,
            canary_age: own.float("canary_age_seconds", "Since a canary was concluded well")?,
            canary_duration: own.add(Histogram::with_opts(duration.buckets(buckets))?)?,
            outcomes: own.counters("outcomes_total", "Outcomes received", &["kind"])?,
            stale_outcomes: own.add(IntCounter::new(
                "excite_stale_outcomes_total",
                "Outcomes that changed nothing",
            )?)?,
            unreadable: own.add(IntCounter::new(
                "excite_unreadable_total",
                "Messages that could not be read and were put aside",
            )?)?,
            mirror_errors: own.add(IntCounter::new(
                "excite_mirror_errors_total",
                "Failed calls to the progress store",
            )?)?,
            leader: own.gauge("leader", "1 for the dispatcher that leads")?,
            epoch: own.gauge("epoch", "Epoch of this dispatcher's last lead")?,
            broker_connected: own.gauge("broker_connected", "1 while the broker is reached")?,
            broker_blocked: own.gauge("broker_blocked", "1 while the broker takes nothing")?,
        })
    }
}

struct Registering<'a>(&'a Registry);

impl Registering<'_> {
    fn add<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        collector: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("excite_{name}"), help)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Self::opts(name, help), labels)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Self::opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(Self::opts(name, help))?)
    }

    fn float(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::with_opts(Self::opts(name, help))?)
    }
}

#[cfg(test)]
mod tests {
    use excite_service::described::{described, table};
    use prometheus::core::Collector;

    use super::*;

    #[test]
    fn the_page_of_metrics_has_them() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        // Without `..`, so that none is forgotten.
        let Metrics {
            published,
            retries,
            dead,
            dead_jobs,
            batches,
            queue_jobs,
            queue_oldest,
            backlog,
            drain,
            canary_age,
            canary_duration,
            outcomes,
            stale_outcomes,
            unreadable,
            mirror_errors,
            leader,
            epoch,
            broker_connected,
            broker_blocked,
        } = &metrics;
        let all: [&dyn Collector; 19] = [
            published,
            retries,
            dead,
            dead_jobs,
            batches,
            queue_jobs,
            queue_oldest,
            backlog,
            drain,
            canary_age,
            canary_duration,
            outcomes,
            stale_outcomes,
            unreadable,
            mirror_errors,
            leader,
            epoch,
            broker_connected,
            broker_blocked,
        ];
        let table = table(all.into_iter().flat_map(described).collect());
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(&table), "put this into docs/metrics.md, the leader's:\n{table}");
    }
}
