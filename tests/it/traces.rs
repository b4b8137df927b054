//! One trace from the browser's message to the frame with its result.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lambda_websocket::event::TraceContext;
use lambda_websocket::local::Gateway;
use lambda_websocket::push::Recorder;
use lambda_websocket::reply::{Accepted, Job, Task, Worker};
use lambda_websocket::{Message, Pusher, Result, Router};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanId, TracerProvider as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::{fixture, worker};

const TRACE_ID: &str = "5759e988bd862e3fe1be46a994272793";
const BROWSER: &str = "53995c3f42cd8ad8";

/// Sets the parent of a span in OpenTelemetry.
fn join(span: &tracing::Span, trace: TraceContext) {
    let carrier = HashMap::from([("traceparent".to_owned(), trace.traceparent().unwrap())]);
    span.set_parent(TraceContextPropagator::new().extract(&carrier)).unwrap();
}

/// Returns the current span as the parent of later spans in other functions.
fn current() -> TraceContext {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&tracing::Span::current().context(), &mut carrier);
    carrier["traceparent"].parse().unwrap()
}

/// Prints each span below its parent, which may have ended in another function.
fn tree(spans: &[SpanData], parent: SpanId, depth: usize, lines: &mut Vec<String>) {
    for span in spans.iter().filter(|span| span.parent_span_id == parent) {
        lines.push(format!("{}{}", "  ".repeat(depth), span.name));
        tree(spans, span.span_context.span_id(), depth + 1, lines);
    }
}

#[tokio::test]
async fn message_route_queue_worker_and_push_are_one_trace() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let (queue, mut jobs) = mpsc::channel::<String>(1);
    let router = Router::new()
        .on("sum", move |event: Message<Value>| {
            let queue = queue.clone();
            async move {
                let address = event.reply_address()?.with_trace(current());
                let job = Job::seal(&event.body["numbers"], &address, &worker::keys())?;
                queue.send(serde_json::to_string(&job)?).await?;
                Ok(Accepted::for_address(&address))
            }
        })
        .on_trace(join)
        .accept_traceparent();
    let gateway = Gateway::builder("dev").router(router).route_response("sum").start().await.unwrap();
    let function = Worker::new(gateway.pusher(), worker::keys(), |task: Task<Vec<u64>>| async move {
        tracing::info_span!("sum").in_scope(|| Ok(task.job.iter().sum::<u64>()))
    })
    .on_trace(join);

    let mut client = gateway.connect("").await.unwrap();
    let traceparent = format!("00-{TRACE_ID}-{BROWSER}-01");
    client
        .send_json(&json!({"action": "sum", "id": 7, "numbers": [1, 2, 3], "traceparent": traceparent}))
        .await
        .unwrap();
    assert_eq!(client.next_json().await.unwrap(), json!({"id": 7, "accepted": true}));
    let mut event = worker::sqs(&[("", "ok")], false);
    event["Records"][0]["body"] = json!(jobs.recv().await.unwrap());
    function.handle(event, worker::soon()).await.unwrap();
    assert_eq!(client.next_json().await.unwrap(), json!({"id": 7, "result": 6}));

    let spans = exporter.get_finished_spans().unwrap();
    let of_trace: Vec<SpanData> =
        spans.into_iter().filter(|span| span.span_context.trace_id().to_string() == TRACE_ID).collect();
    let mut lines = vec!["browser".to_owned()];
    tree(&of_trace, SpanId::from_hex(BROWSER).unwrap(), 1, &mut lines);
    println!("{}", lines.join("\n"));
    assert_eq!(lines, ["browser", "  websocket", "    job", "      sum", "      push"]);
}

/// Handles a message with this trace, and returns the trace that its route sees.
async fn seen(router: Router, message: Value) -> Option<String> {
    let seen = Arc::new(Mutex::new(None));
    let sees = Arc::clone(&seen);
    let router = router.on("say", move |event: Message| {
        *sees.lock().unwrap() = event.request_context().trace().map(|trace| trace.trace_id());
        async { Ok(()) }
    });
    router.handle(fixture::message("say", &message.to_string())).await.unwrap();
    seen.lock().unwrap().take()
}

#[tokio::test]
async fn client_traceparent_is_ignored_by_default() {
    let message = |traceparent: Value| json!({"action": "say", "traceparent": traceparent});
    let good = format!("00-{TRACE_ID}-{BROWSER}-01");
    assert_eq!(seen(Router::new(), message(json!(good))).await, None);
    let accepts = || Router::new().accept_traceparent();
    assert_eq!(seen(accepts(), message(json!(good))).await.as_deref(), Some(TRACE_ID));
    let zero = format!("00-{}-{BROWSER}-01", "0".repeat(32));
    for other in [json!(null), json!(7), json!(""), json!("00-1-2-01"), json!({"traceparent": good}), json!(zero)] {
        assert_eq!(seen(accepts(), message(other.clone())).await, None, "{other}");
    }
    // The string may be anywhere in a message, and twice.
    for other in [json!({"action": "say", "text": "\"traceparent\""}), json!([good]), json!("\"traceparent\"")] {
        assert_eq!(seen(accepts(), other.clone()).await, None, "{other}");
    }
}

#[tokio::test]
async fn queue_trace_is_used_when_the_address_has_none() {
    let header = format!("Root=1-5759e988-bd862e3fe1be46a994272793;Parent={BROWSER};Sampled=1");
    let mut event = worker::sqs(&[("", "ok")], false);
    event["Records"][0]["attributes"]["AWSTraceHeader"] = json!(header);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let function = Worker::new(Pusher::new(Recorder::new()), worker::keys(), move |task: Task<String>| {
        sees.lock().unwrap().push(task.trace());
        async move { Result::Ok(task.job) }
    });
    function.handle(event, worker::soon()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [Some(header.parse::<TraceContext>().unwrap())]);
}

#[test]
fn address_without_a_trace_can_be_opened() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use lambda_websocket::reply::SealedAddress;

    let lambda_websocket::Event::Message(message) = fixture::event("message") else { panic!() };
    let now = message.request_context().request_time;
    let address = message.reply_address().unwrap().with_trace(format!("00-{TRACE_ID}-{BROWSER}-01").parse().unwrap());
    let text = address.unsigned().as_str().to_owned();
    let opened = SealedAddress::from(text.clone()).open_unchecked(now).unwrap();
    assert_eq!(opened.trace(), address.trace());
    // As a version without trace support sealed it.
    let content = text.split('.').nth(2).unwrap();
    let mut json: Vec<Value> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(content).unwrap()).unwrap();
    json.pop();
    let before = text.replace(content, &URL_SAFE_NO_PAD.encode(serde_json::to_vec(&json).unwrap()));
    let opened = SealedAddress::from(before).open_unchecked(now).unwrap();
    assert_eq!((opened.trace(), opened.connection_id()), (None, address.connection_id()));
}
