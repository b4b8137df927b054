//! Streams of tokens to one client, under a paused clock.

mod ends;
mod random;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use lambda_websocket::Pusher;
use lambda_websocket::event::{ConnectionId, CorrelationId};
use lambda_websocket::push::{
    ConnectionInfo, MAX_PAYLOAD_BYTES, Payload, Push, PushError, Recorder, StreamEnd, StreamError,
};
use lambda_websocket::route::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::id;

const PUSH: Duration = Duration::from_millis(20);
const TOKEN: Duration = Duration::from_millis(5);

/// The outcome of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// The client gets the frame, and the caller gets no response.
    AnswerLost,
    /// The client gets the frame half a second after the attempt was abandoned, when it already has later ones.
    Late,
    Unanswered,
    Throttled,
    Unavailable,
    Gone,
}

/// A connection to one client.
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
        assert!(payload.len() <= MAX_PAYLOAD_BYTES);
        let text = String::from_utf8(payload.to_vec()).unwrap();
        self.frames.lock().unwrap().push((Instant::now(), text));
    }

    /// Returns the state of a client that drops repeated numbers.
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
        if let Some(error) = PushError::from_response(id, payload.bytes().len(), status, None, b"") {
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

/// A client that drops frames whose numbers it has already received.
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

/// Records that it was dropped.
struct Watched(Arc<AtomicBool>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Returns the tokens `0 `, `1 `, … with a pause before each, the number taken, and whether the source is dropped.
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
async fn thousand_tokens_arrive_in_few_frames_in_order_and_on_time() {
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
        // A token waits at most for the maximum latency, its own push, and the one before.
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
async fn source_is_not_polled_while_a_full_frame_is_pending() {
    let line = Line { latency: Duration::from_secs(1), ..Line::new([]) };
    let (source, taken, _) = tokens(1_000_000, Duration::ZERO);
    let pusher = line.pusher().with_attempt_timeout(Duration::from_secs(5));
    let streaming = pusher.stream(&id(), source).with_max_frame_bytes(1000).into_future();
    assert!(tokio::time::timeout(Duration::from_millis(500), streaming).await.is_err());
    let taken = text(taken.load(Ordering::SeqCst)).len();
    assert!((1000..2100).contains(&taken), "one frame is under way, and one waits: {taken} bytes");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_any_size_and_content_arrive_intact() {
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
        let bound = max_frame_bytes.clamp(256, MAX_PAYLOAD_BYTES);
        assert!(largest <= bound && largest > bound - 40, "{largest} of {bound}");
    }
    // An empty source sends only the final frame.
    for parts in [vec![], vec![""], vec!["", ""]] {
        let line = Line::new([]);
        let count = parts.len() as u64;
        let report = line.pusher().stream(&id(), stream::iter(parts)).await;
        assert_eq!(line.frames(), [r#"{"seq":0,"done":true}"#]);
        assert_eq!((report.frames, report.tokens, report.bytes), (1, count, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_id_ends_the_stream_before_sending() {
    let recorder = Recorder::new();
    let pusher = Pusher::new(recorder.clone());
    let report = pusher.stream(&id(), stream::iter(["x"])).with_id(&"x".repeat(MAX_PAYLOAD_BYTES)).await;
    assert!(matches!(report.end, StreamEnd::Failed(PushError::TooLarge { .. })), "{report}");
    let no_json = std::collections::BTreeMap::from([((), ())]);
    let report = pusher.stream(&id(), stream::iter(["x"])).with_id(&no_json).await;
    assert!(matches!(report.end, StreamEnd::Failed(PushError::NotJson { .. })), "{report}");
    assert_eq!(recorder.attempts(), 0);
    // A long id takes space from the text.
    let report = pusher.stream(&id(), stream::iter(["x"])).with_id(&"i".repeat(1000)).with_max_frame_bytes(256).await;
    assert!(report.is_success(), "{report}");
    assert_eq!(recorder.pushes().len(), 1);
}

#[test]
fn stream_future_is_send() {
    fn is_spawnable(_: impl Future<Output = impl Send> + Send + 'static) {}
    let pusher = Pusher::new(Recorder::new());
    // Tokens need not be `Send` on their own: the stream creates and drops them.
    is_spawnable(pusher.stream(&id(), stream::iter(["x"])).into_future());
}

#[cfg(all(feature = "local", feature = "sdk"))]
#[tokio::test]
async fn lost_push_responses_duplicate_no_tokens() {
    use lambda_websocket::local::{Fault, Gateway, When};
    use lambda_websocket::{Json, Message, Router};

    let router = Router::new().on("whoami", |event: Message| async move { Ok(Json(event.connection_id().clone())) });
    let gateway = Gateway::builder("dev").router(router).route_response("whoami").seed(3).start().await.unwrap();
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
    // The client disconnects in the middle.
    let (source, _, dropped) = tokens(1_000_000, Duration::from_millis(1));
    let streaming = tokio::spawn(pusher.stream(&id, source).into_future());
    client.next_text().await.unwrap();
    drop(client);
    let report = streaming.await.unwrap();
    assert!(matches!(report.end, StreamEnd::Gone), "{report}");
    assert!(dropped.load(Ordering::SeqCst));
}
