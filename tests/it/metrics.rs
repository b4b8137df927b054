//! Metrics and their labels.

mod embedded;

use std::collections::BTreeMap;
use std::time::Duration;

use lambda_websocket::authorizer::{Authorization, Authorizer, Denied};
use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::Recorder;
use lambda_websocket::reply::{Task, Worker};
use lambda_websocket::route::{Error, ErrorCode, StatusCode};
use lambda_websocket::{Event, Json, Message, Pusher, Router};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::{fixture, worker};

/// The counters, and the number of values in each histogram, as in `websocket_events{route=say,code=ok}`.
type Metrics = BTreeMap<String, u64>;

/// Runs a future in virtual time, and returns the metrics that it recorded.
fn recorded(future: impl Future<Output = ()>) -> Metrics {
    let recorder = DebuggingRecorder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(future));
    let recorded = recorder.snapshotter().snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let key = key.key();
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = match labels.is_empty() {
            true => key.name().to_owned(),
            false => format!("{}{{{}}}", key.name(), labels.join(",")),
        };
        let number = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => {
                assert!(values.iter().all(|value| value.is_finite() && **value >= 0.0), "{name}: {values:?}");
                u64::try_from(values.len()).unwrap()
            }
            DebugValue::Gauge(_) => panic!("{name} is a gauge"),
        };
        (name, number)
    });
    recorded.collect()
}

fn expect(found: &Metrics, expected: &[(&str, u64)]) {
    let expected: Metrics = expected.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
    assert_eq!(*found, expected);
}

fn router() -> Router {
    Router::new()
        .on("say", |Json(text): Json<String>| async move {
            match text.as_str() {
                "panic" => panic!("as the client asks"),
                "fail" => Err(Error::message("a secret")),
                "refuse" => Err(Error::client(ErrorCode::new("sold_out"), "no")),
                "wait" => std::future::pending().await,
                _ => Ok(Json("hello")),
            }
        })
        .on("$default", |_: Message| async { Ok(()) })
}

#[test]
fn events_are_counted_by_route_and_error_code() {
    let found = recorded(async {
        let router = router();
        for body in [r#""a""#, r#""b""#, r#""panic""#, r#""fail""#, r#""refuse""#, "7"] {
            router.handle(fixture::message("say", body)).await.unwrap();
        }
        router.handle(fixture::message("$default", "anything")).await.unwrap();
        router.handle(fixture::event("connect")).await.unwrap();
        let waits = router.handle(fixture::message("say", r#""wait""#));
        tokio::time::timeout(Duration::from_secs(1), waits).await.unwrap_err();
    });
    expect(
        &found,
        &[
            ("websocket_events{route=say,code=ok}", 2),
            ("websocket_events{route=say,code=internal}", 2),
            ("websocket_events{route=say,code=sold_out}", 1),
            ("websocket_events{route=say,code=invalid_message}", 1),
            ("websocket_events{route=say,code=canceled}", 1),
            ("websocket_events{route=$default,code=ok}", 1),
            ("websocket_events{route=$connect,code=ok}", 1),
            ("websocket_event_duration_seconds{route=say}", 7),
            ("websocket_event_duration_seconds{route=$default}", 1),
            ("websocket_event_duration_seconds{route=$connect}", 1),
        ],
    );
}

#[test]
fn pushed_reply_counts_as_event_and_push() {
    let found = recorded(async {
        let recorder = Recorder::new();
        let router = router().push_replies(Pusher::new(recorder.clone()).without_retries());
        router.handle(fixture::message("say", r#""a""#)).await.unwrap();
        router.handle(fixture::message("say", "7")).await.unwrap();
        recorder.answer(StatusCode::FORBIDDEN);
        router.handle(fixture::message("say", r#""a""#)).await.unwrap();
        recorder.hang_up(&fixture::message("say", "").request_context().connection_id);
        router.handle(fixture::message("say", r#""a""#)).await.unwrap();
    });
    expect(
        &found,
        &[
            ("websocket_events{route=say,code=ok}", 2),
            ("websocket_events{route=say,code=invalid_message}", 1),
            ("websocket_events{route=say,code=internal}", 1),
            ("websocket_event_duration_seconds{route=say}", 4),
            ("websocket_pushes{operation=send,outcome=delivered}", 2),
            ("websocket_pushes{operation=send,outcome=forbidden}", 1),
            ("websocket_pushes{operation=send,outcome=gone}", 1),
            ("websocket_push_duration_seconds{operation=send}", 4),
        ],
    );
}

#[test]
fn client_close_codes_share_one_label() {
    let found = recorded(async {
        for code in [1001, 1006, 3000, 4999] {
            let json = fixture::changed("disconnect", "/requestContext/disconnectStatusCode", code);
            router().handle(Event::from_slice(&json).unwrap()).await.unwrap();
        }
    });
    assert_eq!(found["websocket_disconnects{status_code=1001}"], 1);
    assert_eq!(found["websocket_disconnects{status_code=1006}"], 1);
    assert_eq!(found["websocket_disconnects{status_code=application}"], 2);
    assert_eq!(found["websocket_connection_duration_seconds"], 4);
    assert_eq!(found.keys().filter(|name| name.starts_with("websocket_disconnects")).count(), 3);
}

#[test]
fn retries_and_429s_are_counted_separately_from_outcomes() {
    let found = recorded(async {
        let recorder = Recorder::new();
        let pusher = Pusher::new(recorder.clone()).with_random(|| 0.5);
        let id = ConnectionId::new("L0SM9cOFvHcCIhw=").unwrap();
        recorder.answer(StatusCode::TOO_MANY_REQUESTS);
        recorder.answer(StatusCode::SERVICE_UNAVAILABLE);
        pusher.send_text(&id, "hello").await.unwrap();
        pusher.close(&id).await.unwrap();
        pusher.info(&id).await.unwrap_err();
        recorder.answer(StatusCode::TOO_MANY_REQUESTS);
        pusher.clone().without_retries().send_text(&id, "hello").await.unwrap_err();
        let waits = pusher.send_text(&id, "x".repeat(200_000)).await;
        waits.unwrap_err();
    });
    expect(
        &found,
        &[
            ("websocket_pushes{operation=send,outcome=delivered}", 1),
            ("websocket_pushes{operation=send,outcome=throttled}", 1),
            ("websocket_pushes{operation=close,outcome=delivered}", 1),
            ("websocket_pushes{operation=info,outcome=gone}", 1),
            ("websocket_push_duration_seconds{operation=send}", 2),
            ("websocket_push_duration_seconds{operation=close}", 1),
            ("websocket_push_duration_seconds{operation=info}", 1),
            ("websocket_push_retries", 2),
            ("websocket_push_throttles", 2),
        ],
    );
}

#[test]
fn a_broadcast_is_counted_once_and_its_pushes_by_outcome() {
    let found = recorded(async {
        let recorder = Recorder::new();
        let ids: Vec<_> = (0..100).map(|n| ConnectionId::new(format!("connection{n:03}=")).unwrap()).collect();
        recorder.hang_up(&ids[7]);
        recorder.answer(StatusCode::TOO_MANY_REQUESTS);
        recorder.answer(StatusCode::FORBIDDEN);
        let report = Pusher::new(recorder).broadcast(ids, "hello").unwrap().await;
        assert_eq!((report.throttles, report.retries), (1, 1), "{report}");
    });
    expect(
        &found,
        &[
            ("websocket_pushes{operation=broadcast,outcome=delivered}", 98),
            ("websocket_pushes{operation=broadcast,outcome=gone}", 1),
            ("websocket_pushes{operation=broadcast,outcome=forbidden}", 1),
            ("websocket_broadcast_duration_seconds", 1),
            ("websocket_push_retries", 1),
            ("websocket_push_throttles", 1),
        ],
    );
}

#[test]
fn an_authorizers_decisions_are_counted() {
    let found = recorded(async {
        for decision in ["allow", "deny", "forbidden", "unauthorized", "fail"] {
            let authorizer = Authorizer::new(move |request| async move {
                match decision {
                    "allow" => Ok(Authorization::allow("user")),
                    "deny" => Ok(Authorization::deny("user")),
                    "forbidden" => Err(Denied::Forbidden),
                    "unauthorized" => Err(Denied::Unauthorized),
                    _ => Err(format!("the database is away: {request:?}").into()),
                }
            });
            let _ = authorizer.handle(fixture::request("authorizer")).await;
        }
    });
    expect(
        &found,
        &[
            ("websocket_authorizations{decision=allow}", 1),
            ("websocket_authorizations{decision=deny}", 2),
            ("websocket_authorizations{decision=unauthorized}", 1),
            ("websocket_authorizations{decision=error}", 1),
        ],
    );
}

#[test]
fn jobs_are_counted_by_outcome_and_undelivered_results_by_reason() {
    let found = recorded(async {
        let recorder = Recorder::new();
        recorder.hang_up(&ConnectionId::new("connection-q3").unwrap());
        let worker = Worker::new(Pusher::new(recorder), worker::keys(), |task: Task<String>| async move {
            match task.job.as_str() {
                "fail" => Err(Error::message("no database")),
                _ => Ok(task.job),
            }
        });
        let jobs = [("", "ok"), ("", "fail"), ("", "undecodable"), ("", "ok")];
        worker.clone().handle(worker::sqs(&jobs, false), worker::soon()).await.unwrap();
    });
    expect(
        &found,
        &[
            ("websocket_jobs{outcome=done}", 2),
            ("websocket_jobs{outcome=retried}", 1),
            ("websocket_jobs{outcome=rejected}", 1),
            ("websocket_job_duration_seconds", 4),
            ("websocket_undelivered_results{reason=gone}", 1),
            ("websocket_pushes{operation=send,outcome=delivered}", 1),
            ("websocket_pushes{operation=send,outcome=gone}", 1),
            ("websocket_push_duration_seconds{operation=send}", 2),
        ],
    );
}

#[test]
fn sweeps_are_counted_by_outcome() {
    use lambda_websocket::hub::Hub;
    use lambda_websocket::registry::{InMemory, Namespace};

    let found = recorded(async {
        let hub = Hub::builder(InMemory::new(), Pusher::new(Recorder::new())).build();
        hub.sweep(&Namespace::new("a/dev").unwrap()).await.require_all().unwrap();
    });
    expect(&found, &[("websocket_sweep_duration_seconds", 1)]);
}
