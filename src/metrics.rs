//! Metrics, recorded through the [`metrics`](https://docs.rs/metrics) facade.
//!
//! The crate only records. The recorder that the program installs decides where the numbers go:
//! CloudWatch's embedded metric format (EMF) by
//! [`metrics_cloudwatch_embedded`](https://docs.rs/metrics_cloudwatch_embedded), Prometheus, or
//! OpenTelemetry. Without a recorder nothing is recorded. The example `observability` writes EMF
//! after each invocation.
//!
//! | metric | type | unit | labels |
//! |---|---|---|---|
//! | `websocket_events` | counter | | `route`, `code` |
//! | `websocket_event_duration_seconds` | histogram | seconds | `route` |
//! | `websocket_disconnects` | counter | | `status_code` |
//! | `websocket_connection_duration_seconds` | histogram | seconds | |
//! | `websocket_authorizations` | counter | | `decision` |
//! | `websocket_pushes` | counter | | `operation`, `outcome` |
//! | `websocket_push_duration_seconds` | histogram | seconds | `operation` |
//! | `websocket_push_retries` | counter | | |
//! | `websocket_push_throttles` | counter | | |
//! | `websocket_broadcast_duration_seconds` | histogram | seconds | |
//! | `websocket_sweep_connections` | counter | | `outcome` |
//! | `websocket_sweep_duration_seconds` | histogram | seconds | |
//! | `websocket_jobs` | counter | | `outcome` |
//! | `websocket_job_duration_seconds` | histogram | seconds | |
//! | `websocket_undelivered_results` | counter | | `reason` |
//!
//! Labels have few values, because CloudWatch bills each combination as a separate metric.
//! Connections, principals, and request ids are fields of spans instead, for logs and traces.
//!
//! - `route` is the key of the API's route. `code` is `ok`, the [error
//!   code](crate::route::ErrorCode) that the client receives, or `canceled` when the event was
//!   dropped before its response. Custom codes should be a fixed set.
//! - `status_code` is the close code from 1000 to 1015, `application` for one of 3000 to 4999,
//!   which clients choose, or `none`.
//! - `decision` is `allow`, `deny`, `unauthorized`, or `error`.
//! - `operation` is `send`, `info`, `close`, or `broadcast`; each token frame of a stream is a
//!   `send`. `outcome` is `delivered`, `not_tried`, or the kind of the
//!   [`PushError`](crate::push::PushError), such as `gone`, `throttled`, `slow_consumer`,
//!   `timed_out`.
//! - `websocket_push_throttles` counts 429 responses, including those followed by a retry.
//!   `websocket_push_retries` counts all attempts but the first of each push.
//! - `outcome` of a sweep is `alive`, `removed`, `expired`, `withheld`, or `failed`.
//! - `outcome` of a job is `done`, `retried`, `given_up`, or `rejected`. `reason` is the kind of
//!   the push's error.
//!
//! Durations are real time, even if tokio's clock is paused.
//!
//! See the [embedded metric
//! format](https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
//!
//! # Examples
#![cfg_attr(feature = "metrics", doc = "```")]
#![cfg_attr(not(feature = "metrics"), doc = "```text")]
//! # fn install_recorder() {}
//! install_recorder(); // for instance `metrics_cloudwatch_embedded::Builder::new().cloudwatch_namespace("chat").init()`
//! lambda_websocket::metrics::describe();
//! ```
// Without the feature all of this compiles to nothing, so that callers need no `cfg`.
#![cfg_attr(not(feature = "metrics"), allow(unused_variables, unused_macros))]
#![cfg_attr(
    not(all(feature = "metrics", feature = "hub", feature = "worker")),
    allow(dead_code, reason = "some metrics depend on features")
)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
#[cfg(feature = "metrics")]
use std::time::Instant;

macro_rules! count {
    ($name:literal, $number:expr $(, $label:literal => $value:expr)*) => {{
        #[cfg(feature = "metrics")]
        ::metrics::counter!($name $(, $label => $value)*).increment(u64::try_from($number).unwrap_or(u64::MAX));
    }};
}

macro_rules! time {
    ($name:literal, $duration:expr $(, $label:literal => $value:expr)*) => {{
        #[cfg(feature = "metrics")]
        ::metrics::histogram!($name $(, $label => $value)*).record($duration.as_secs_f64());
    }};
}

/// Describes every metric and its unit to the installed recorder.
///
/// Call it once, after installing the recorder. It tells a CloudWatch recorder that durations are
/// in seconds.
#[cfg(feature = "metrics")]
pub fn describe() {
    use ::metrics::{Unit, describe_counter, describe_histogram};

    describe_counter!("websocket_events", Unit::Count, "Events by route and error code");
    describe_histogram!("websocket_event_duration_seconds", Unit::Seconds, "Time from an event to its response");
    describe_counter!("websocket_disconnects", Unit::Count, "Disconnects by close code");
    describe_histogram!("websocket_connection_duration_seconds", Unit::Seconds, "Age of connections that ended");
    describe_counter!("websocket_authorizations", Unit::Count, "Decisions of the authorizer");
    describe_counter!("websocket_pushes", Unit::Count, "Calls to @connections by operation and outcome");
    describe_histogram!("websocket_push_duration_seconds", Unit::Seconds, "Duration of a push with its retries");
    describe_counter!("websocket_push_retries", Unit::Count, "Attempts other than the first of each push");
    describe_counter!("websocket_push_throttles", Unit::Count, "Attempts that failed with 429");
    describe_histogram!("websocket_broadcast_duration_seconds", Unit::Seconds, "Time of a broadcast");
    describe_counter!("websocket_sweep_connections", Unit::Count, "Connections that sweeps checked");
    describe_histogram!("websocket_sweep_duration_seconds", Unit::Seconds, "Time of a sweep");
    describe_counter!("websocket_jobs", Unit::Count, "Jobs from queues by outcome");
    describe_histogram!("websocket_job_duration_seconds", Unit::Seconds, "Time of a job with its reply");
    describe_counter!("websocket_undelivered_results", Unit::Count, "Results that were not delivered to their client");
}

/// An event without a response yet. Dropped before its end, it counts as canceled.
pub(crate) struct EventTimer {
    #[cfg(feature = "metrics")]
    running: Option<(Instant, String)>,
}

impl EventTimer {
    pub(crate) fn start(route: &str) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            running: Some((Instant::now(), route.to_owned())),
        }
    }

    /// Ends with `ok`, or with an error code.
    pub(crate) fn end(&mut self, code: &str) {
        #[cfg(feature = "metrics")]
        if let Some((start, route)) = self.running.take() {
            let route = ::metrics::SharedString::from(route);
            time!("websocket_event_duration_seconds", start.elapsed(), "route" => route.clone());
            count!("websocket_events", 1_u64, "route" => route, "code" => code.to_owned());
        }
    }
}

#[cfg(feature = "metrics")]
impl Drop for EventTimer {
    fn drop(&mut self) {
        self.end("canceled");
    }
}

pub(crate) fn disconnected(status_code: Option<u16>, age: Duration) {
    #[cfg(feature = "metrics")]
    {
        // Clients choose too many different codes for a label.
        let code = match status_code {
            Some(code @ 1000..=1015) => ::metrics::SharedString::from(code.to_string()),
            Some(_) => "application".into(),
            None => "none".into(),
        };
        count!("websocket_disconnects", 1_u64, "status_code" => code);
        time!("websocket_connection_duration_seconds", age);
    }
}

pub(crate) fn authorized(decision: &'static str) {
    count!("websocket_authorizations", 1_u64, "decision" => decision);
}

/// A call of `@connections` with its retries, unless it is part of a broadcast.
pub(crate) struct PushTimer {
    #[cfg(feature = "metrics")]
    start: Instant,
    operation: &'static str,
    attempts: AtomicU64,
    throttles: AtomicU64,
}

impl PushTimer {
    pub(crate) fn start(operation: &'static str) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            start: Instant::now(),
            operation,
            attempts: AtomicU64::new(0),
            throttles: AtomicU64::new(0),
        }
    }

    /// Counts an attempt.
    pub(crate) fn attempt(&self) {
        self.attempts.fetch_add(1, Relaxed);
    }

    /// Counts a 429 response.
    pub(crate) fn throttled(&self) {
        self.throttles.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(self, outcome: &'static str) {
        time!("websocket_push_duration_seconds", self.start.elapsed(), "operation" => self.operation);
        pushed(self.operation, outcome, 1);
        attempted(self.attempts.into_inner().saturating_sub(1), self.throttles.into_inner());
    }
}

pub(crate) fn broadcast_ended(elapsed: Duration, retries: usize, throttles: usize) {
    time!("websocket_broadcast_duration_seconds", elapsed);
    attempted(u64::try_from(retries).unwrap_or(u64::MAX), u64::try_from(throttles).unwrap_or(u64::MAX));
}

/// Counts pushes with the same outcome.
pub(crate) fn pushed(operation: &'static str, outcome: &'static str, pushes: usize) {
    if pushes > 0 {
        count!("websocket_pushes", pushes, "operation" => operation, "outcome" => outcome);
    }
}

fn attempted(retries: u64, throttles: u64) {
    if retries > 0 {
        count!("websocket_push_retries", retries);
    }
    if throttles > 0 {
        count!("websocket_push_throttles", throttles);
    }
}

pub(crate) fn swept(elapsed: Duration, outcomes: &[(&'static str, usize)]) {
    time!("websocket_sweep_duration_seconds", elapsed);
    for (outcome, connections) in outcomes.iter().filter(|(_, connections)| *connections > 0) {
        count!("websocket_sweep_connections", *connections, "outcome" => *outcome);
    }
}

/// A message of a queue, from its receipt to its outcome.
pub(crate) struct JobTimer {
    #[cfg(feature = "metrics")]
    start: Instant,
}

impl JobTimer {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            start: Instant::now(),
        }
    }

    pub(crate) fn end(self, outcome: &'static str) {
        time!("websocket_job_duration_seconds", self.start.elapsed());
        count!("websocket_jobs", 1_u64, "outcome" => outcome);
    }
}

pub(crate) fn undelivered(reason: &'static str) {
    count!("websocket_undelivered_results", 1_u64, "reason" => reason);
}
