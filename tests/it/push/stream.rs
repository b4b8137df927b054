//! Tokens for one client, with a clock that the test owns.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use lambda_websocket::Pusher;
use lambda_websocket::event::{ConnectionId, CorrelationId};
use lambda_websocket::push::{
    ConnectionInfo, LARGEST_PAYLOAD, Payload, Push, PushError, Recorder, StreamEnd, StreamError,
};
use lambda_websocket::route::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::id;

const PUSH: Duration = Duration::from_millis(20);
const TOKEN: Duration = Duration::from_millis(5);

/// What happens to one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// The client gets the frame, and the caller hears nothing of it.
    AnswerLost,
    /// The client gets the frame half a second after it was given up, when it has later ones.
    Late,
    Unanswered,
    Throttled,
    Unavailable,
    Gone,
}

/// A line to one client.
#[derive(Debug, Clone, Default)]
struct Line {
    latency: Duration,
    fates: Arc<Mutex<VecDeque<Fate>>>,
    frames: Arc<Mutex<Vec<(Instant, String)>>>,
    under_way: Arc<AtomicUsize>,
}

impl Line {
    fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
        Self { latency: PUSH, fates: Arc::new(Mutex::new(fates.into_iter().collect())), ..Self::default() }
    }

    fn pusher(&self) -> Pusher {
        Pusher::new(self.clone()).with_attempt_timeout(Duration::from_millis(300)).with_random(|| 0.5)
    }

    fn frames(&self) -> Vec<String> {
        self.frames.lock().unwrap().iter().map(|(_, frame)| frame.clone()).collect()
    }

    fn arrive(&self, payload: &[u8]) {
        assert!(payload.len() <= LARGEST_PAYLOAD);
        let text = String::from_utf8(payload.to_vec()).unwrap();
        self.frames.lock().unwrap().push((Instant::now(), text));
    }

    /// What a client has that drops repeated numbers.
    fn read(&self) -> Reader {
        let mut reader = Reader::default();
        self.frames().iter().for_each(|frame| reader.accept(frame));
        reader
    }
}

#[async_trait::async_trait]
impl Push for Line {
    async fn post(&self, id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        struct Ends<'a>(&'a AtomicUsize);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        assert_eq!(self.under_way.fetch_add(1, Ordering::SeqCst), 0, "one push is under way at a time");
        let _ends = Ends(&self.under_way);
        let fate = self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Delivered);
        let status = match fate {
            Fate::Delivered | Fate::AnswerLost => StatusCode::OK,
            Fate::Late => {
                let (line, payload) = (self.clone(), payload.bytes().clone());
                tokio::spawn(async move {
                    sleep(Duration::from_millis(800)).await;
                    line.arrive(&payload);
                });
                return std::future::pending().await;
            }
            Fate::Unanswered => return std::future::pending().await,
            Fate::Throttled => StatusCode::TOO_MANY_REQUESTS,
            Fate::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Fate::Gone => StatusCode::GONE,
        };
        sleep(self.latency).await;
        if let Some(error) = PushError::of_answer(id, payload.bytes().len(), status, None, b"") {
            return Err(error);
        }
        self.arrive(payload.bytes());
        match fate {
            Fate::AnswerLost => std::future::pending().await,
            _ => Ok(()),
        }
    }
    async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        unreachable!()
    }
    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        unreachable!()
    }
}

/// A client that drops the frames whose numbers it has seen.
#[derive(Debug, Default)]
struct Reader {
    next: u64,
    dropped: usize,
    text: String,
    done: bool,
    error: Option<Value>,
}

impl Reader {
    fn accept(&mut self, frame: &str) {
        let frame: Value = serde_json::from_str(frame).unwrap();
        let seq = frame["seq"].as_u64().unwrap();
        if seq < self.next {
            self.dropped += 1;
            return;
        }
        assert_eq!(seq, self.next, "no frame is missing");
        assert!(!self.done && self.error.is_none(), "nothing comes after the last frame");
        self.next += 1;
        self.text.push_str(frame["chunk"].as_str().unwrap_or_default());
        self.done = frame.get("done").is_some_and(|done| done == true);
        self.error = frame.get("error").cloned();
    }
}

/// Tells when it is dropped.
struct Watched(Arc<AtomicBool>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Tokens `0 `, `1 `, … with a pause before each, how many were taken, and whether the source is dropped.
fn tokens(count: usize, pause: Duration) -> (impl Stream<Item = String> + Send, Arc<AtomicUsize>, Arc<AtomicBool>) {
    let (taken, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let state = (0, Arc::clone(&taken), Watched(Arc::clone(&dropped)));
    let source = stream::unfold(state, move |(number, taken, watched)| async move {
        if number == count {
            return None;
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
        taken.fetch_add(1, Ordering::SeqCst);
        Some((format!("{number} "), (number + 1, taken, watched)))
    });
    (source, taken, dropped)
}

fn text(count: usize) -> String {
    (0..count).map(|number| format!("{number} ")).collect()
}

#[tokio::test(start_paused = true)]
async fn thousand_tokens_travel_in_few_frames_in_order_and_on_time() {
    for (latency, most_frames) in [(None, 101), (Some(0), 251)] {
        let line = Line::new([]);
        let (source, _, _) = tokens(1000, TOKEN);
        let start = Instant::now();
        let pusher = line.pusher();
        let streaming = pusher.stream(&id(), source).with_id(&CorrelationId::new("L0SM9fXm").unwrap());
        let report = match latency {
            Some(latency) => streaming.with_max_latency(Duration::from_millis(latency)),
            None => streaming,
        };
        let report = report.await;
        println!("{report}, {:?} of the clock", start.elapsed());
        let reader = line.read();
        assert_eq!((reader.text, reader.done, reader.dropped), (text(1000), true, 0));
        assert_eq!((report.tokens, report.bytes), (1000, text(1000).len() as u64));
        assert!(report.is_success() && report.frames as usize == line.frames().len());
        assert!(report.frames <= most_frames, "{report}");
        assert!(report.elapsed < TOKEN * 1000 + Duration::from_millis(100 + 1000), "{report}");
        let frames = line.frames();
        assert_eq!(frames[0], r#"{"id":"L0SM9fXm","seq":0,"chunk":"0 "}"#, "the first token does not wait");
        assert!(frames.last().unwrap().ends_with(r#""done":true}"#));
        // No token waits longer than the maximum latency, a push and the one before.
        let arrived = line.frames.lock().unwrap().iter().map(|(at, _)| *at).collect::<Vec<_>>();
        let wait = Duration::from_millis(latency.unwrap_or(50)) + PUSH * 2;
        assert!(arrived.windows(2).all(|pair| pair[1] - pair[0] <= wait + TOKEN), "{arrived:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reader_that_drops_repeated_numbers_gets_no_duplicate() {
    use Fate::{AnswerLost, Delivered, Late, Throttled, Unanswered, Unavailable};
    let fates = [AnswerLost, Late, AnswerLost, AnswerLost, Throttled, Late, Delivered, Unanswered, Unavailable];
    let line = Line::new(fates);
    let (source, _, _) = tokens(1000, TOKEN);
    let report = line.pusher().stream(&id(), source).await;
    let reader = line.read();
    assert_eq!((reader.text, reader.done, reader.dropped), (text(1000), true, 5));
    assert_eq!((report.frames, report.tokens), (reader.next, 1000));
    report.require_all().unwrap();
}

#[tokio::test(start_paused = true)]
async fn source_is_dropped_as_soon_as_the_client_is_gone() {
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
    // The source is slow, silent, or faster than the line.
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
        assert_eq!(error, format!("the stream ended after {} bytes: the time was up", reader.text.len()));
    }
}

#[tokio::test(start_paused = true)]
async fn text_that_is_complete_in_time_ends_without_an_error() {
    // The last token comes shortly before the time for the last frames begins, while a push is under way.
    let line = Line { latency: Duration::from_millis(400), ..Line::new([]) };
    let (source, _, _) = tokens(4, Duration::from_millis(990));
    let pusher = line.pusher().with_attempt_timeout(Duration::from_secs(1));
    let report = pusher.stream(&id(), source).with_timeout(Duration::from_secs(5)).await;
    assert!(report.is_success(), "{report}");
    assert!(line.read().done);
}

#[tokio::test(start_paused = true)]
async fn line_that_does_not_answer_is_given_up_at_the_deadline() {
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
async fn stream_in_a_route_ends_before_the_invocation_does() {
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
async fn error_of_the_source_ends_the_stream_with_an_error_frame() {
    let huge = "x".repeat(LARGEST_PAYLOAD);
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

#[tokio::test(start_paused = true)]
async fn source_is_not_polled_while_a_full_frame_waits() {
    let line = Line { latency: Duration::from_secs(1), ..Line::new([]) };
    let (source, taken, _) = tokens(1_000_000, Duration::ZERO);
    let pusher = line.pusher().with_attempt_timeout(Duration::from_secs(5));
    let streaming = pusher.stream(&id(), source).with_max_frame_bytes(1000).into_future();
    assert!(tokio::time::timeout(Duration::from_millis(500), streaming).await.is_err());
    let taken = text(taken.load(Ordering::SeqCst)).len();
    assert!((1000..2100).contains(&taken), "one frame is under way, and one waits: {taken} bytes");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_any_size_and_content_arrive_whole() {
    let large = "é\u{1}\"".repeat(50_000);
    let odd = ["", "\u{0}\n\t\\\"", "👩", "\u{200d}", "👩", "\u{200d}", "👧", "", "\u{feff}\u{2028}\u{7f}", ""];
    for max_frame_bytes in [0, 1000, usize::MAX] {
        let line = Line { latency: Duration::ZERO, ..Line::new([]) };
        let parts: Vec<&str> = odd.into_iter().chain([large.as_str()]).chain(odd).collect();
        let streaming = line.pusher().with_timeout(Duration::from_secs(60)).stream(&id(), stream::iter(parts.clone()));
        let report = streaming.with_max_frame_bytes(max_frame_bytes).await;
        assert!(report.is_success(), "{report}");
        assert_eq!(line.read().text, parts.concat());
        assert_eq!((report.tokens, report.bytes), (21, parts.concat().len() as u64));
        let largest = line.frames().iter().map(String::len).max().unwrap();
        let bound = max_frame_bytes.clamp(256, LARGEST_PAYLOAD);
        assert!(largest <= bound && largest > bound - 40, "{largest} of {bound}");
    }
    // Nothing but nothing.
    for parts in [vec![], vec![""], vec!["", ""]] {
        let line = Line::new([]);
        let count = parts.len() as u64;
        let report = line.pusher().stream(&id(), stream::iter(parts)).await;
        assert_eq!(line.frames(), [r#"{"seq":0,"done":true}"#]);
        assert_eq!((report.frames, report.tokens, report.bytes), (1, count, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn id_that_cannot_be_sent_ends_the_stream_before_anything_is_sent() {
    let recorder = Recorder::new();
    let pusher = Pusher::new(recorder.clone());
    let report = pusher.stream(&id(), stream::iter(["x"])).with_id(&"x".repeat(LARGEST_PAYLOAD)).await;
    assert!(matches!(report.end, StreamEnd::Failed(PushError::TooLarge { .. })), "{report}");
    let no_json = std::collections::BTreeMap::from([((), ())]);
    let report = pusher.stream(&id(), stream::iter(["x"])).with_id(&no_json).await;
    assert!(matches!(report.end, StreamEnd::Failed(PushError::NotJson { .. })), "{report}");
    assert_eq!(recorder.attempts(), 0);
    // A long id has its room beside the text.
    let report = pusher.stream(&id(), stream::iter(["x"])).with_id(&"i".repeat(1000)).with_max_frame_bytes(256).await;
    assert!(report.is_success(), "{report}");
    assert_eq!(recorder.pushes().len(), 1);
}

#[test]
fn stream_can_be_spawned() {
    fn is_spawnable(_: impl Future<Output = impl Send> + Send + 'static) {}
    let pusher = Pusher::new(Recorder::new());
    // Tokens need not be `Send` on their own: the stream makes and drops them.
    is_spawnable(pusher.stream(&id(), stream::iter(["x"])).into_future());
}

#[cfg(all(feature = "local", feature = "sdk"))]
#[tokio::test]
async fn answers_that_the_gateway_loses_repeat_no_text() {
    use lambda_websocket::local::{Fault, Gateway, When};
    use lambda_websocket::{Json, Message, Router};

    let router = Router::new().on("whoami", |event: Message| async move { Ok(Json(event.connection_id().clone())) });
    let gateway = Gateway::builder("dev").router(router).two_way("whoami").seed(3).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    client.send_json(&json!({"action": "whoami"})).await.unwrap();
    let id: ConnectionId = serde_json::from_value(client.next_json().await.unwrap()).unwrap();
    gateway.inject(Fault::PostAnswerLost, When::Next(3));
    let pusher = gateway.pusher().with_attempt_timeout(Duration::from_millis(100)).with_random(|| 0.0);
    let (source, _, _) = tokens(50, Duration::from_millis(1));
    let report = pusher.stream(&id, source).await;
    let mut reader = Reader::default();
    while !reader.done {
        reader.accept(&client.next_text().await.unwrap());
    }
    assert_eq!((reader.text, reader.dropped), (text(50), 3));
    assert_eq!(report.frames, reader.next);
    // The client leaves in the middle.
    let (source, _, dropped) = tokens(1_000_000, Duration::from_millis(1));
    let streaming = tokio::spawn(pusher.stream(&id, source).into_future());
    client.next_text().await.unwrap();
    drop(client);
    let report = streaming.await.unwrap();
    assert!(matches!(report.end, StreamEnd::Gone), "{report}");
    assert!(dropped.load(Ordering::SeqCst));
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Delivered),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Late),
        1 => Just(Fate::Unanswered),
        1 => Just(Fate::Throttled),
        1 => Just(Fate::Unavailable),
    ]
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => ".{0,12}",
        2 => proptest::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter),
        1 => (any::<char>(), 0_usize..2000).prop_map(|(character, count)| character.to_string().repeat(count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn chunks_are_the_tokens_whatever_their_sizes_timings_and_faults(
        parts in proptest::collection::vec((token(), 0_u64..120), 0..60),
        fates in proptest::collection::vec(fate(), 0..20),
        latency in 0_u64..60,
        max_latency in 0_u64..200,
        max_frame_bytes in 0_usize..4000,
        gone_after in proptest::option::of(0_usize..30),
        timeout in proptest::option::of(1_u64..4000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut fates = fates;
            if let Some(after) = gone_after {
                fates.resize(after, Fate::Delivered);
                fates.push(Fate::Gone);
            }
            let line = Line { latency: Duration::from_millis(latency), ..Line::new(fates) };
            let whole: String = parts.iter().map(|(token, _)| token.as_str()).collect();
            let count = parts.len() as u64;
            let source = stream::iter(parts).then(|(token, pause)| async move {
                if pause > 20 {
                    sleep(Duration::from_millis(pause)).await;
                }
                token
            });
            let streaming = line.pusher().with_throttle_timeout(Duration::from_secs(60)).stream(&id(), source);
            let streaming = streaming
                .with_max_latency(Duration::from_millis(max_latency))
                .with_max_frame_bytes(max_frame_bytes);
            let report = match timeout {
                Some(timeout) => streaming.with_timeout(Duration::from_millis(timeout)).await,
                None => streaming.await,
            };
            let reader = line.read();
            assert!(whole.starts_with(&reader.text), "what arrives is a beginning");
            assert!(line.frames().iter().all(|frame| frame.len() <= max_frame_bytes.max(256)));
            // A frame that has arrived and whose answers were all lost may not be counted.
            assert!(report.bytes <= reader.text.len() as u64 && report.frames <= reader.next && reader.next <= report.frames + 1);
            match &report.end {
                StreamEnd::Completed => {
                    assert_eq!((&reader.text, reader.done), (&whole, true));
                    assert_eq!((report.tokens, report.bytes), (count, whole.len() as u64));
                }
                StreamEnd::Gone => assert!(gone_after.is_some()),
                StreamEnd::Deadline => assert!(timeout.is_some()),
                end => panic!("{end}: {report}"),
            }
            if let Some(timeout) = timeout {
                assert!(report.elapsed <= Duration::from_millis(timeout + 2), "{report}");
            }
        });
    }
}
