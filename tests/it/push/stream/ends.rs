//! How a stream ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn source_is_dropped_when_the_client_disconnects() {
    let line = Line::new([Fate::Delivered, Fate::Delivered, Fate::Gone]);
    let (source, taken, dropped) = tokens(1000, TOKEN);
    let start = Instant::now();
    let report = line.pusher().stream(&id(), source).await;
    assert!(matches!(report.end, StreamEnd::Gone), "{report}");
    assert!(dropped.load(Ordering::SeqCst));
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    assert!(taken.load(Ordering::SeqCst) < 40);
    assert_eq!((report.frames, report.bytes), (2, line.read().text.len() as u64));
    let error = report.require_all().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the stream ended after {} bytes: the connection is gone", line.read().text.len())
    );
    assert_eq!(error.into_report().frames, 2);
}

#[tokio::test(start_paused = true)]
async fn dropped_future_drops_its_source() {
    let line = Line::new([]);
    let (source, _, dropped) = tokens(1000, TOKEN);
    let streaming = line.pusher().stream(&id(), source).into_future();
    assert!(tokio::time::timeout(Duration::from_millis(500), streaming).await.is_err());
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(line.under_way.load(Ordering::SeqCst), 0);
    let reader = line.read();
    assert!(!reader.done && text(1000).starts_with(&reader.text));
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_a_stream_with_an_error_frame_and_a_report() {
    // The source is slow, silent, or faster than the connection.
    for (pause, count) in [(TOKEN, 10_000), (Duration::from_secs(3600), 1), (Duration::ZERO, 10_000_000)] {
        let line = Line::new([]);
        let (source, taken, dropped) = tokens(count, pause);
        let start = Instant::now();
        let report = line.pusher().stream(&id(), source).with_timeout(Duration::from_secs(5)).await;
        assert!(matches!(report.end, StreamEnd::Deadline), "{report}");
        assert!(dropped.load(Ordering::SeqCst));
        let took = start.elapsed().as_millis();
        assert!((4000..4100).contains(&took), "{took}");
        let reader = line.read();
        assert_eq!(reader.error, Some(json!({"code": "timeout", "message": "the stream ran out of time"})));
        assert_eq!((report.frames, report.bytes), (reader.next, reader.text.len() as u64));
        assert!(text(taken.load(Ordering::SeqCst)).starts_with(&reader.text));
        if pause == TOKEN {
            assert_eq!(report.tokens as usize, taken.load(Ordering::SeqCst), "what had come has arrived");
        }
        let error = report.require_all().unwrap_err().to_string();
        assert_eq!(error, format!("the stream ended after {} bytes: the deadline passed", reader.text.len()));
    }
}

#[tokio::test(start_paused = true)]
async fn stream_completed_before_the_deadline_has_no_error() {
    // The last token arrives shortly before the time reserved for the last frames, while a push is running.
    let line = Line { latency: Duration::from_millis(400), ..Line::new([]) };
    let (source, _, _) = tokens(4, Duration::from_millis(990));
    let pusher = line.pusher().with_attempt_timeout(Duration::from_secs(1));
    let report = pusher.stream(&id(), source).with_timeout(Duration::from_secs(5)).await;
    assert!(report.is_success(), "{report}");
    assert!(line.read().done);
}

#[tokio::test(start_paused = true)]
async fn unresponsive_endpoint_is_abandoned_at_the_deadline() {
    let line = Line::new(std::iter::repeat_n(Fate::Unanswered, 1000));
    let (source, _, dropped) = tokens(1000, TOKEN);
    let start = Instant::now();
    let report = line.pusher().stream(&id(), source).with_timeout(Duration::from_secs(2)).await;
    assert!(matches!(report.end, StreamEnd::Deadline), "{report}");
    assert!(start.elapsed() <= Duration::from_millis(2001) && dropped.load(Ordering::SeqCst));
    assert_eq!((report.frames, report.tokens, report.bytes), (0, 0, 0));
}

#[cfg(feature = "runtime")]
#[tokio::test(start_paused = true)]
async fn stream_in_a_route_ends_before_the_invocation_deadline() {
    use std::time::{SystemTime, UNIX_EPOCH};

    use lambda_runtime::LambdaEvent;
    use lambda_websocket::{Message, Router};
    use tower::ServiceExt as _;

    let line = Line::new([]);
    let pusher = line.pusher();
    let reported = Arc::new(Mutex::new(None));
    let report = Arc::clone(&reported);
    let router = Router::new().on("$default", move |event: Message| {
        let (pusher, report) = (pusher.clone(), Arc::clone(&report));
        async move {
            let (source, _, _) = tokens(100_000, TOKEN);
            *report.lock().unwrap() = Some(pusher.stream(event.connection_id(), source).await);
            Ok(())
        }
    });
    let mut context = lambda_runtime::Context::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    context.deadline = u64::try_from(now.as_millis()).unwrap() + 29_000;
    let start = Instant::now();
    router.oneshot(LambdaEvent::new(crate::fixture::event("message"), context)).await.unwrap();
    let took = start.elapsed().as_millis();
    assert!((27_000..28_800).contains(&took), "{took}");
    let report = reported.lock().unwrap().take().unwrap();
    assert!(matches!(report.end, StreamEnd::Deadline), "{report}");
    assert_eq!(line.read().text.len() as u64, report.bytes);
    assert!(line.read().error.is_some());
}

#[tokio::test(start_paused = true)]
async fn push_that_fails_ends_the_stream_with_its_error() {
    let line = Line::new(std::iter::once(Fate::Delivered).chain(std::iter::repeat_n(Fate::Throttled, 1000)));
    let (source, taken, dropped) = tokens(100_000, TOKEN);
    let start = Instant::now();
    let report = line.pusher().stream(&id(), source).await;
    assert!(matches!(&report.end, StreamEnd::Failed(PushError::Throttled { .. })), "{report}");
    assert!(start.elapsed() < Duration::from_secs(6), "as long as `send` waits for a throttled client");
    assert!(dropped.load(Ordering::SeqCst) && taken.load(Ordering::SeqCst) > 100);
    assert_eq!((report.frames, report.tokens), (1, 1));
    assert_eq!(
        report.require_all().unwrap_err().to_string(),
        "the stream ended after 2 bytes: a push failed: the push to L0SM9-OF_HcCIhw= was throttled"
    );
}

#[tokio::test(start_paused = true)]
async fn source_error_ends_the_stream_with_an_error_frame() {
    let huge = "x".repeat(MAX_PAYLOAD_BYTES);
    let cases: [(Box<dyn std::error::Error + Send + Sync>, Value); 3] = [
        (
            StreamError::new("overloaded", "the model is overloaded").into(),
            json!({"code": "overloaded", "message": "the model is overloaded"}),
        ),
        ("password=secret".into(), json!({"code": "internal", "message": "the stream failed"})),
        (StreamError::new("too_long", huge).into(), json!({"code": "internal", "message": "the stream failed"})),
    ];
    for (error, expected) in cases {
        let line = Line::new([]);
        let said = error.to_string();
        let source = stream::iter([Ok("some"), Ok(" text"), Err(error), Ok("never")]);
        let report = line.pusher().try_stream(&id(), source).with_id(&json!({"request": 7})).await;
        let StreamEnd::Source(source) = &report.end else { panic!("{report}") };
        assert_eq!(source.to_string(), said);
        assert_eq!((report.frames, report.tokens, report.bytes), (2, 2, 9));
        let reader = line.read();
        assert_eq!((reader.text.as_str(), reader.error), ("some text", Some(expected)));
        assert!(line.frames().iter().all(|frame| frame.starts_with(r#"{"id":{"request":7},"seq":"#)));
        assert!(!report.to_string().contains(&said), "a log line does not quote it");
    }
}
