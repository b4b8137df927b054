//! A function with JSON logs, CloudWatch metrics, and traces.
//!
//! The route is `pushtowebsocket` again. Each log line is one JSON object, in [Lambda's JSON
//! format](https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html),
//! and names its request, connection, and trace. Metrics are written in the embedded metric format:
//! CloudWatch creates them from the lines that contain `_aws`.
//!
//! ```sh
//! cargo build --release --example observability --features metrics
//! ```
//!
//! Spans are written to the log as text, so that the example needs no collector. In production, use
//! the exporter of `opentelemetry-otlp` instead.

use std::collections::HashMap;
use std::io;

use lambda_websocket::event::TraceContext;
use lambda_websocket::{Json, Message, Pusher, Result, Router};
use metrics_cloudwatch_embedded::{Builder, Collector};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tower::ServiceBuilder;
use tracing::{Instrument as _, info, info_span, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[derive(serde::Deserialize)]
struct Push {
    message: String,
}

#[derive(serde::Serialize)]
struct Pushed {
    echoed: String,
}

async fn push_to_websocket(event: Message<Push>) -> Result<Json<Pushed>> {
    // Your own span and metric.
    let echoed = async { event.body.message }.instrument(info_span!("echo")).await;
    metrics::counter!("echoed_bytes").increment(echoed.len() as u64);
    info!(bytes = echoed.len(), "echoed");
    Ok(Json(Pushed { echoed }))
}

/// Makes the crate's span a child of the span that Lambda or the client names.
fn continue_trace(span: &tracing::Span, trace: TraceContext) {
    let carrier = HashMap::from([("traceparent".to_owned(), trace.traceparent().unwrap_or_default())]);
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
}

fn start_tracing() -> SdkTracerProvider {
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(opentelemetry_stdout::SpanExporter::default()).build();
    let log = tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false);
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("observability"));
    tracing_subscriber::registry()
        .with(log.with_filter(LevelFilter::INFO))
        .with(traces.with_filter(LevelFilter::INFO))
        .init();
    provider
}

fn start_metrics() -> Result<&'static Collector, lambda_runtime::Error> {
    let metrics = Builder::new().cloudwatch_namespace("observability").init()?;
    lambda_websocket::metrics::describe();
    Ok(metrics)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let (traces, metrics) = (start_tracing(), start_metrics()?);
    let router = Router::new()
        .on("pushtowebsocket", push_to_websocket)
        .push_replies(Pusher::from_env().await?)
        .on_trace(continue_trace)
        .accept_traceparent();
    // Lambda may freeze the process after an invocation, so flush everything before it ends.
    let flushing = ServiceBuilder::new().map_future(move |invocation| {
        let traces = traces.clone();
        async move {
            let answer = invocation.await;
            if let Err(error) = metrics.flush(io::stdout()) {
                warn!(%error, "the metrics were not written");
            }
            let _ = traces.force_flush();
            answer
        }
    });
    lambda_websocket::run(flushing.service(router)).await
}
