//! A `Pusher` over any transport, under a paused clock.

mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_websocket::Pusher;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::{ConnectionInfo, MAX_PAYLOAD_BYTES, Payload, Push, PushError, Recorder};
use lambda_websocket::route::StatusCode;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

fn id() -> ConnectionId {
    ConnectionId::new("L0SM9-OF_HcCIhw=").unwrap()
}

#[tokio::test(start_paused = true)]
async fn json_text_and_bytes_arrive_verbatim() {
    let recorder = Recorder::new();
    let pusher = Pusher::new(recorder.clone());
    pusher.send(&id(), &json!({"a": 1})).await.unwrap();
    pusher.send_text(&id(), "text é").await.unwrap();
    pusher.send_bytes(&id(), vec![b'a', 0xff]).await.unwrap();
    let texts: Vec<String> = recorder.pushes().iter().map(|push| push.text()).collect();
    assert_eq!(texts, ["{\"a\":1}", "text é", "a\u{fffd}"]);
    assert!(recorder.pushes().iter().all(|push| push.connection_id == id()));
    pusher.info(&id()).await.unwrap();
    pusher.close(&id()).await.unwrap();
    assert!(matches!(pusher.send_text(&id(), "late").await, Err(PushError::Gone { .. })));
}

#[tokio::test(start_paused = true)]
async fn mgt_6_oversized_payload_is_refused_before_sending() {
    let recorder = Recorder::new();
    let pusher = Pusher::new(recorder.clone());
    pusher.send_bytes(&id(), vec![b'x'; MAX_PAYLOAD_BYTES]).await.unwrap();
    let error = pusher.send_bytes(&id(), vec![b'x'; MAX_PAYLOAD_BYTES + 1]).await.unwrap_err();
    assert_eq!(error.to_string(), "the payload has 131073 bytes, more than the maximum of 131072 for one push");
    let value = "x".repeat(MAX_PAYLOAD_BYTES);
    assert!(matches!(pusher.send(&id(), &value).await, Err(PushError::TooLarge { size: 131_074 })));
    assert_eq!(recorder.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_transient_errors_are_retried() {
    for (status, retried) in [
        (400, false),
        (403, false),
        (404, false),
        (410, false),
        (413, false),
        (418, false),
        (429, true),
        (500, true),
        (501, false),
        (502, true),
        (503, true),
        (504, true),
    ] {
        let recorder = Recorder::new();
        recorder.answer(StatusCode::from_u16(status).unwrap());
        let pushed = Pusher::new(recorder.clone()).send_text(&id(), "x").await;
        assert_eq!((pushed.is_ok(), recorder.attempts()), (retried, 1 + usize::from(retried)), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn backoff_grows_with_full_jitter_up_to_two_seconds() {
    /// Records the time of each call, and always responds with 429.
    #[derive(Debug)]
    struct Throttling(Arc<std::sync::Mutex<Vec<Instant>>>);

    #[async_trait::async_trait]
    impl Push for Throttling {
        async fn post(&self, connection_id: &ConnectionId, _: &Payload) -> Result<(), PushError> {
            self.0.lock().unwrap().push(Instant::now());
            Err(PushError::Throttled { connection_id: connection_id.clone() })
        }
        async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
            unreachable!()
        }
        async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
            unreachable!()
        }
    }

    for (random, expected) in
        [(1.0, [50, 100, 200, 400, 800, 1600, 2000, 2000]), (0.5, [25, 50, 100, 200, 400, 800, 1000, 1000])]
    {
        let times = Arc::default();
        let pusher = Pusher::new(Throttling(Arc::clone(&times))).with_random(move || random);
        let pusher = pusher.with_throttle_timeout(Duration::from_secs(10));
        let start = Instant::now();
        let error = pusher.send_text(&id(), "x").await.unwrap_err();
        assert!(matches!(error, PushError::Throttled { .. }), "the error of the last attempt: {error}");
        assert!(start.elapsed() < Duration::from_secs(10), "before the deadline: {:?}", start.elapsed());
        let times = times.lock().unwrap().clone();
        // The timer counts whole milliseconds and rounds up.
        for (pair, expected) in times.windows(2).zip(expected) {
            let delay = (pair[1] - pair[0]).as_millis();
            assert!((expected..=expected + 1).contains(&delay), "{delay} instead of {expected}");
        }
        assert!(times.len() > 8);
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_push_ends_within_its_timeout() {
    let recorder = Recorder::new();
    for _ in 0..1000 {
        recorder.answer(StatusCode::TOO_MANY_REQUESTS);
    }
    let pusher = Pusher::new(recorder.clone()).with_timeout(Duration::from_secs(2)).with_random(|| 0.7);
    let start = Instant::now();
    assert!(matches!(pusher.send_text(&id(), "x").await, Err(PushError::Throttled { .. })));
    assert!(start.elapsed() <= Duration::from_secs(2));
    assert!(recorder.attempts() > 3);
}

#[tokio::test(start_paused = true)]
async fn mgt_7_send_to_client_that_does_not_read_times_out_after_five_seconds() {
    for (throttle_timeout, least, most) in [(None, 2, 5), (Some(20), 15, 20), (Some(0), 0, 0)] {
        let over = |recorder: &Recorder| {
            let pusher = Pusher::new(recorder.clone()).with_timeout(Duration::from_secs(29)).with_random(|| 1.0);
            match throttle_timeout {
                Some(seconds) => pusher.with_throttle_timeout(Duration::from_secs(seconds)),
                None => pusher,
            }
        };
        let recorder = Recorder::new();
        (0..1000).for_each(|_| recorder.answer(StatusCode::TOO_MANY_REQUESTS));
        let pusher = over(&recorder);
        let start = Instant::now();
        assert!(matches!(pusher.send_text(&id(), "x").await, Err(PushError::Throttled { .. })));
        let took = start.elapsed().as_secs_f64();
        assert!((f64::from(least)..=f64::from(most)).contains(&took), "{took}");
        if most == 0 {
            assert_eq!(recorder.attempts(), 1);
        }
        // Other errors are retried until the deadline.
        let recorder = Recorder::new();
        (0..1000).for_each(|_| recorder.answer(StatusCode::SERVICE_UNAVAILABLE));
        let start = Instant::now();
        assert!(over(&recorder).send_text(&id(), "x").await.is_err());
        assert!(start.elapsed() > Duration::from_secs(25), "{:?}", start.elapsed());
    }
}

/// Is unreachable for the first n attempts.
#[derive(Debug)]
struct Flaky(AtomicUsize, Recorder);

#[async_trait::async_trait]
impl Push for Flaky {
    async fn post(&self, id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        if self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(PushError::Unreachable { source: "refused".into() });
        }
        self.1.post(id, payload).await
    }
    async fn info(&self, id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.1.info(id).await
    }
    async fn close(&self, id: &ConnectionId) -> Result<(), PushError> {
        self.1.close(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn refused_or_broken_tcp_connection_is_retried() {
    let recorder = Recorder::new();
    let pusher = Pusher::new(Flaky(AtomicUsize::new(3), recorder.clone()));
    pusher.send_text(&id(), "x").await.unwrap();
    let pusher = Pusher::new(Flaky(AtomicUsize::new(3), recorder.clone()));
    let report = pusher.broadcast([id()], "x").unwrap().await;
    assert_eq!((report.delivered, report.retries, recorder.pushes().len()), (1, 3, 2), "{report}");
}

/// Never responds.
#[derive(Debug, Default)]
struct Silent(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Push for Silent {
    async fn post(&self, _: &ConnectionId, _: &Payload) -> Result<(), PushError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
    async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        std::future::pending().await
    }
    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn missing_response_times_out() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let pusher = Pusher::new(Silent(Arc::clone(&attempts))).with_random(|| 0.0);
    let start = Instant::now();
    let error = pusher.send_text(&id(), "x").await.unwrap_err();
    assert_eq!(error.to_string(), "no response within 10000 ms");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(attempts.load(Ordering::SeqCst), 2, "an attempt has five seconds");
    let quick = pusher.with_attempt_timeout(Duration::from_millis(100)).with_timeout(Duration::from_millis(150));
    assert!(matches!(quick.info(&id()).await, Err(PushError::TimedOut { .. })));
    assert!(matches!(quick.close(&id()).await, Err(PushError::TimedOut { .. })));
}

#[cfg(feature = "runtime")]
#[tokio::test(start_paused = true)]
async fn push_in_a_route_ends_before_the_invocation_deadline() {
    use std::time::{SystemTime, UNIX_EPOCH};

    use lambda_runtime::LambdaEvent;
    use lambda_websocket::{Message, Router};
    use tower::ServiceExt as _;

    // `None` is what `cargo lambda watch` passes: ten minutes after the Unix epoch.
    let cases = [(Some(3_000), 2_800), (Some(60_000), 59_800), (Some(300), 100), (None, 28_800)];
    // The time of day moves with the clock of the runtime, which each case advances.
    let (begin, began_at) = (Instant::now(), SystemTime::now());
    for (left, expected) in cases {
        let now = (began_at + begin.elapsed()).duration_since(UNIX_EPOCH).unwrap();
        let deadline = left.map_or(600_000, |left: u64| u64::try_from(now.as_millis()).unwrap() + left);
        let pusher = Pusher::new(Silent::default()).with_random(|| 0.0);
        let router = Router::new()
            .on("$default", move |event: Message| {
                let pusher = pusher.clone();
                async move { Ok(pusher.send_text(event.connection_id(), "x").await?) }
            })
            .fail_invocation_on_error();
        let mut context = lambda_runtime::Context::default();
        context.deadline = deadline;
        let start = Instant::now();
        let event = LambdaEvent::new(crate::fixture::event("message"), context);
        let error = router.oneshot(event).await.unwrap_err();
        assert!(error.to_string().starts_with("no response within"), "{error}");
        // A few milliseconds of real time pass meanwhile, and timers have millisecond precision.
        let took = i128::try_from(start.elapsed().as_millis()).unwrap();
        assert!((i128::from(expected) - 100..=i128::from(expected) + 2).contains(&took), "{took} of {deadline}");
    }
}

#[test]
fn mgt_11_response_is_classified_by_status_then_type_then_body() {
    let meaning = |status: u16, error_type: Option<&str>, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        PushError::from_response(&id(), 5, status, error_type, body.as_bytes())
    };
    assert!(meaning(200, None, "").is_none());
    assert!(meaning(204, Some("GoneException"), "").is_none());
    // MGT-3: an empty body is enough.
    for body in ["", "{}", "not json", r#"{"message":null}"#, "\u{0}"] {
        assert!(matches!(meaning(410, None, body), Some(PushError::Gone { .. })));
        assert!(matches!(meaning(413, None, body), Some(PushError::TooLarge { size: 5 })));
        assert!(matches!(meaning(429, None, body), Some(PushError::Throttled { .. })));
        assert!(matches!(meaning(403, None, body), Some(PushError::Forbidden { .. })));
        assert!(matches!(meaning(400, None, body), Some(PushError::BadRequest { .. })));
        assert!(matches!(meaning(503, None, body), Some(PushError::Unavailable { .. })));
        assert!(matches!(meaning(404, None, body), Some(PushError::Unexpected { .. })));
    }
    // The status takes precedence over the type, and the type over the body.
    assert!(matches!(meaning(410, Some("LimitExceededException"), ""), Some(PushError::Gone { .. })));
    for kind in ["GoneException", "GoneException:http://x", "com.amazonaws#GoneException:x"] {
        assert!(
            matches!(meaning(404, Some(kind), r#"{"__type":"ForbiddenException"}"#), Some(PushError::Gone { .. })),
            "{kind}"
        );
    }
    assert!(matches!(meaning(404, None, r#"{"__type":"LimitExceededException"}"#), Some(PushError::Throttled { .. })));
    assert!(matches!(meaning(404, None, r#"{"code":"PayloadTooLargeException"}"#), Some(PushError::TooLarge { .. })));
}

#[test]
fn error_source_has_the_gateway_message() {
    use std::error::Error as _;

    let said = |status: u16, error_type: Option<&str>, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        let error = PushError::from_response(&id(), 5, status, error_type, body.as_bytes()).unwrap();
        (error.to_string(), error.source().unwrap().to_string())
    };
    let (text, source) = said(400, Some("BadRequestException"), r#"{"message":"Invalid connectionId: x"}"#);
    assert_eq!(text, "API Gateway refused the request about the connection L0SM9-OF_HcCIhw=");
    assert_eq!(source, "BadRequestException: Invalid connectionId: x");
    let (text, source) = said(403, Some("AccessDeniedException"), r#"{"Message":"User: arn:… is not authorized"}"#);
    assert_eq!(
        text,
        "not allowed to push to L0SM9-OF_HcCIhw=: the role needs `execute-api:ManageConnections` on this API and stage, \
         and the endpoint must be this API's"
    );
    assert_eq!(source, "AccessDeniedException: User: arn:… is not authorized");
    assert_eq!(said(500, None, "<html>").1, "the response has no error message");
}

proptest! {
    /// For any sequence of responses, a push ends within its timeout and returns the last response's error.
    #[test]
    fn any_sequence_of_responses_ends_within_the_timeout(statuses in proptest::collection::vec(200_u16..600, 0..40), random in 0.0..=1.0) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let recorder = Recorder::new();
            for status in &statuses {
                recorder.answer(StatusCode::from_u16(*status).unwrap());
            }
            let pusher = Pusher::new(recorder.clone()).with_random(move || random);
            let start = Instant::now();
            let pushed = pusher.send_text(&id(), "x").await;
            assert!(start.elapsed() <= Duration::from_secs(10));
            let first_final = statuses.iter().position(|status| !matches!(status, 429 | 500 | 502 | 503 | 504));
            if let (Some(last), true) = (first_final, recorder.attempts() > first_final.unwrap_or(usize::MAX)) {
                assert_eq!(recorder.attempts(), last + 1);
                assert_eq!(pushed.is_ok(), (200..300).contains(&statuses[last]));
            }
        });
    }
}
