//! What accepting and HTTP count: name, help and labels in one place.
//!
//! Labels are routes as they are written here, methods and statuses: never a path as it came.

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

/// Typed handles.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `excite_http_requests_total{method,route,status}`.
    pub requests: IntCounterVec,
    /// `excite_http_request_duration_seconds{method,route}`.
    pub request_seconds: HistogramVec,
    /// `excite_accept_lines_total`.
    pub accept_lines: IntCounter,
    /// `excite_accept_bytes_total`.
    pub accept_bytes: IntCounter,
    /// `excite_accept_total{result}`: `accepted`, `known`, `dry_run`, `refused`, `failed`.
    pub accepts: IntCounterVec,
    /// `excite_scale_desired{pool}`.
    pub scale_desired: prometheus::IntGaugeVec,
}

impl Metrics {
    /// Registers all.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("excite_{name}"), help);
        let duration = HistogramOpts::new(
            "excite_http_request_duration_seconds",
            "Time to answer a request, without its body's way back",
        );
        // From a mirror that is near to an upload of a million lines.
        let duration = duration.buckets(vec![0.005, 0.02, 0.1, 0.5, 2., 10., 60., 300.]);
        let metrics = Self {
            requests: IntCounterVec::new(
                opts("http_requests_total", "Requests by route and status"),
                &["method", "route", "status"],
            )?,
            request_seconds: HistogramVec::new(duration, &["method", "route"])?,
            accept_lines: IntCounter::with_opts(opts(
                "accept_lines_total",
                "Lines that were checked, also of batches that were refused",
            ))?,
            accept_bytes: IntCounter::with_opts(opts(
                "accept_bytes_total",
                "Bytes of them, unzipped",
            ))?,
            accepts: IntCounterVec::new(
                opts("accept_total", "Uploads by what became of them"),
                &["result"],
            )?,
            scale_desired: prometheus::IntGaugeVec::new(
                opts("scale_desired", "Workers wanted, as it was answered last"),
                &["pool"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.request_seconds.clone()))?;
        registry.register(Box::new(metrics.accept_lines.clone()))?;
        registry.register(Box::new(metrics.accept_bytes.clone()))?;
        registry.register(Box::new(metrics.accepts.clone()))?;
        registry.register(Box::new(metrics.scale_desired.clone()))?;
        Ok(metrics)
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
            requests,
            request_seconds,
            accept_lines,
            accept_bytes,
            accepts,
            scale_desired,
        } = &metrics;
        let all: [&dyn Collector; 6] =
            [requests, request_seconds, accept_lines, accept_bytes, accepts, scale_desired];
        let table = table(all.into_iter().flat_map(described).collect());
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(&table), "put this into docs/metrics.md, the dispatcher's:\n{table}");
    }
}
