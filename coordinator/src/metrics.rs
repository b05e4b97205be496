//! Prometheus metrics. Labels are bounded: names of states, operations and classes only.

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, Opts, Registry, TextEncoder,
};

/// All series.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) stages: GaugeVec,
    pub(crate) slots: GaugeVec,
    pub(crate) oldest_ready_seconds: Gauge,
    pub(crate) claims_total: IntCounterVec,
    pub(crate) dispatch_seconds: Histogram,
    pub(crate) results_total: IntCounterVec,
    pub(crate) stale_writes_total: IntCounterVec,
    pub(crate) workers_lost_total: IntCounter,
    pub(crate) plans_total: IntCounterVec,
    pub(crate) attached_total: IntCounter,
    pub(crate) content_hits_total: IntCounter,
    pub(crate) log_bytes_total: IntCounter,
    pub(crate) removed_total: IntCounterVec,
    pub(crate) requests_seconds: HistogramVec,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauges = |name: &str, help: &str, label: &str| -> prometheus::Result<GaugeVec> {
            let gauges = GaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let oldest_ready_seconds =
            Gauge::new("slipway_stage_oldest_ready_seconds", "Age of the oldest ready stage.")?;
        registry.register(Box::new(oldest_ready_seconds.clone()))?;
        let dispatch_seconds = Histogram::with_opts(
            HistogramOpts::new("slipway_dispatch_seconds", "Time from ready to claimed.")
                .buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0]),
        )?;
        registry.register(Box::new(dispatch_seconds.clone()))?;
        let requests_seconds = HistogramVec::new(
            HistogramOpts::new("slipway_http_request_seconds", "Time to answer, by route."),
            &["route", "status"],
        )?;
        registry.register(Box::new(requests_seconds.clone()))?;
        Ok(Self {
            stages: gauges("slipway_stages", "Stages that have not ended, by state.", "state")?,
            slots: gauges("slipway_worker_slots", "Slots of live workers.", "state")?,
            oldest_ready_seconds,
            claims_total: counters("slipway_claims_total", "Claims, by result.", "result")?,
            dispatch_seconds,
            results_total: counters("slipway_stage_results_total", "Ended attempts.", "outcome")?,
            stale_writes_total: counters(
                "slipway_stale_writes_rejected_total",
                "Writes of workers that no longer hold the lease.",
                "operation",
            )?,
            workers_lost_total: counter("slipway_workers_lost_total", "Workers given up.")?,
            plans_total: counters("slipway_plans_total", "Planned builds, by result.", "result")?,
            content_hits_total: counter(
                "slipway_content_hits_total",
                "Steps that were found in the cache by what they read.",
            )?,
            attached_total: counter(
                "slipway_stages_attached_total",
                "Stages that share the run of another one.",
            )?,
            removed_total: counters(
                "slipway_removed_total",
                "Cache records, objects and builds that were removed.",
                "what",
            )?,
            log_bytes_total: counter("slipway_log_bytes_total", "Bytes of log lines received.")?,
            requests_seconds,
            registry,
        })
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self) -> prometheus::Result<String> {
        let mut bytes = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
