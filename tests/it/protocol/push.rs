//! Replies that are pushed instead of returned in the route response.

use std::time::{Duration, SystemTime};

use lambda_websocket::event::Invocation;
use lambda_websocket::push::Recorder;
use lambda_websocket::route::{FailureKind, StatusCode};
use lambda_websocket::{Connect, Event, Pusher, Router};
use serde_json::{Value, json};

use super::{hook, routes, shown};
use crate::fixture;

fn router() -> (Router, Recorder) {
    let recorder = Recorder::new();
    (routes().push_replies(Pusher::new(recorder.clone()).with_random(|| 0.0)), recorder)
}

fn pushed(recorder: &Recorder) -> Vec<Value> {
    recorder.pushes().iter().map(|push| serde_json::from_str(&push.text()).unwrap()).collect()
}

#[tokio::test]
async fn pushed_reply_leaves_the_response_body_empty() {
    for (body, status, expected) in [
        (r#"{"id":1,"do":"json","value":2}"#, 200, json!({"id": 1, "result": 2})),
        (r#"{"do":"json","value":2}"#, 200, json!(2)),
        (r#"{"id":1,"do":"nothing"}"#, 200, json!({"id": 1, "result": null})),
        (r#"{"id":1,"do":"status"}"#, 409, json!({"id": 1, "error": {"code": "conflict", "message": "taken"}})),
        (r#"{"do":"?"}"#, 400, json!({"action": "do", "error": {"code": "invalid_message", "message": "what?"}})),
        (
            r#"{"id":1,"do":"large"}"#,
            500,
            json!({"id": 1, "error": {"code": "too_large",
            "message": "the reply has 131093 bytes, more than the maximum of 131072 for one message"}}),
        ),
    ] {
        let (router, recorder) = router();
        let answer = router.handle(fixture::message("do", body)).await.unwrap();
        assert_eq!(serde_json::to_value(&answer).unwrap(), json!({"statusCode": status}), "{body}");
        assert_eq!(pushed(&recorder), [expected]);
        assert_eq!(recorder.pushes()[0].connection_id.as_str(), "Kb7p2d5_vHcCIhw=");
    }
    let (router, recorder) = router();
    assert_eq!(router.handle(fixture::message("unit", "{}")).await.unwrap().status(), 200);
    assert!(recorder.pushes().is_empty(), "nothing to say");
}

#[tokio::test]
async fn connect_returns_its_response_when_replies_are_pushed() {
    let (router, recorder) = router();
    let router = router.on("$connect", |_: Connect| async {
        Err::<(), _>(lambda_websocket::route::Error::client(StatusCode::FORBIDDEN, "no"))
    });
    let answer = router.handle(fixture::event("connect")).await.unwrap();
    assert_eq!(answer.status(), 403);
    let body: Value = serde_json::from_str(answer.text().unwrap()).unwrap();
    assert_eq!(body, json!({"action": "$connect", "error": {"code": "forbidden", "message": "no"}}));
    assert!(recorder.pushes().is_empty());
}

#[tokio::test]
async fn failed_reply_push_is_an_error_unless_the_connection_is_stale() {
    let message = || fixture::message("do", r#"{"id":1,"do":"nothing"}"#);
    let (router, recorder) = router();
    let (hook, seen) = hook();
    let router = router.on_error(hook);
    recorder.answer(StatusCode::FORBIDDEN);
    let answer = router.handle(message()).await.unwrap();
    assert_eq!(serde_json::to_value(&answer).unwrap(), json!({"statusCode": 500}));
    {
        let seen = seen.lock().unwrap();
        let (kind, code, status, text) = shown(&seen[0]);
        assert_eq!((kind, code.as_str(), status), (FailureKind::ReplyNotPushed, "internal", 500));
        assert!(text.starts_with("not allowed to push to Kb7p2d5_vHcCIhw="), "{text}");
    }
    recorder.answer(StatusCode::FORBIDDEN);
    let failing = router.clone().fail_invocation_on_error();
    assert!(failing.handle(message()).await.unwrap_err().to_string().starts_with("not allowed to push"));
    Pusher::new(recorder.clone()).close(&"Kb7p2d5_vHcCIhw=".parse().unwrap()).await.unwrap();
    assert_eq!(router.handle(message()).await.unwrap().status(), 200);
    assert_eq!(seen.lock().unwrap().len(), 2, "a disconnected client need not hear");
}

#[tokio::test]
async fn failed_invocation_sends_an_error_reply() {
    let (router, recorder) = router();
    let failing = router.fail_invocation_on_error();
    for what in ["internal", "panic"] {
        failing.handle(fixture::message("do", &format!(r#"{{"id":"{what}","do":"{what}"}}"#))).await.unwrap_err();
    }
    let told = pushed(&recorder);
    assert_eq!(told.iter().map(|frame| &frame["id"]).collect::<Vec<_>>(), ["internal", "panic"]);
    assert!(told.iter().all(|frame| frame["error"]["code"] == "internal"));
}

/// A transport to an API other than the event's.
#[derive(Debug)]
struct Elsewhere(lambda_websocket::push::Endpoint);

#[async_trait::async_trait]
impl lambda_websocket::push::Push for Elsewhere {
    async fn post(
        &self,
        _: &lambda_websocket::event::ConnectionId,
        _: &lambda_websocket::push::Payload,
    ) -> Result<(), lambda_websocket::push::PushError> {
        panic!("it would be another's connection")
    }

    async fn info(
        &self,
        _: &lambda_websocket::event::ConnectionId,
    ) -> Result<lambda_websocket::push::ConnectionInfo, lambda_websocket::push::PushError> {
        unreachable!()
    }

    async fn close(&self, _: &lambda_websocket::event::ConnectionId) -> Result<(), lambda_websocket::push::PushError> {
        unreachable!()
    }

    fn endpoint(&self) -> Option<&lambda_websocket::push::Endpoint> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn pusher_of_another_stage_is_not_used() {
    let endpoint = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/prod".parse().unwrap();
    let (hook, seen) = hook();
    let router = routes().push_replies(Pusher::new(Elsewhere(endpoint))).on_error(hook);
    assert_eq!(router.handle(fixture::message("do", r#"{"id":1}"#)).await.unwrap().status(), 500);
    let seen = seen.lock().unwrap();
    assert!(seen[0].to_string().contains("no pusher for a1b2c3d4e5/dev"), "{}", seen[0]);
}

#[cfg(feature = "runtime")]
#[tokio::test(start_paused = true)]
async fn reply_push_ends_before_the_invocation_deadline() {
    use lambda_runtime::{Context, LambdaEvent, Service as _};

    let recorder = Recorder::new();
    let mut router = routes().push_replies(Pusher::new(recorder.clone()).with_random(|| 0.5));
    for _ in 0..100 {
        recorder.answer(StatusCode::SERVICE_UNAVAILABLE);
    }
    let start = tokio::time::Instant::now();
    let deadline = SystemTime::now() + Duration::from_secs(3);
    let mut context = Context::default();
    context.deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
    let event: Event =
        fixture::message("do", r#"{"id":1,"do":"nothing"}"#).with_invocation(Invocation::new("i", deadline));
    let answer = router.call(LambdaEvent::new(event, context)).await.unwrap();
    assert_eq!(answer.status(), 500);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
