//! Recipients that do not read, and an account over its rate: API Gateway responds to both with 429.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use lambda_websocket::Pusher;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::{ConnectionInfo, Payload, Push, PushError, Report};
use tokio::time::{Instant, sleep};

use super::ids;
use crate::stub::connection_id;

const LATENCY: Duration = Duration::from_millis(15);
/// A connection that never responds.
const STALLED: usize = 99_999;

/// A simulated API Gateway with clients that do not read, and with a rate limit for the account.
#[derive(Debug, Clone)]
struct Api {
    latency: Duration,
    slow: Arc<HashSet<ConnectionId>>,
    /// Pushes per second, and the token bucket that enforces it.
    rate: Option<f64>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    tokens: f64,
    filled: Instant,
    last_delivery: Instant,
    attempts: HashMap<ConnectionId, usize>,
    delivered: Vec<(ConnectionId, Vec<u8>)>,
}

impl Api {
    fn new(slow: impl IntoIterator<Item = usize>, rate: Option<f64>) -> Self {
        let now = Instant::now();
        let seen = Seen {
            tokens: rate.unwrap_or_default() / 10.0,
            filled: now,
            last_delivery: now,
            attempts: HashMap::new(),
            delivered: Vec::new(),
        };
        Self {
            latency: LATENCY,
            slow: Arc::new(slow.into_iter().map(connection_id).collect()),
            rate,
            seen: Arc::new(Mutex::new(seen)),
        }
    }

    fn attempts(&self, id: &ConnectionId) -> usize {
        self.seen.lock().unwrap().attempts.get(id).copied().unwrap_or_default()
    }
}

#[async_trait::async_trait]
impl Push for Api {
    async fn post(&self, id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        sleep(self.latency).await;
        if *id == connection_id(STALLED) {
            std::future::pending::<()>().await;
        }
        let mut seen = self.seen.lock().unwrap();
        let now = Instant::now();
        *seen.attempts.entry(id.clone()).or_default() += 1;
        let refused = Err(PushError::Throttled { connection_id: id.clone() });
        if let Some(rate) = self.rate {
            // The bucket holds a tenth of a second's worth of tokens.
            seen.tokens = (seen.tokens + rate * (now - seen.filled).as_secs_f64()).min((rate / 10.0).max(1.0));
            seen.filled = now;
            if seen.tokens < 1.0 {
                return refused;
            }
            seen.tokens -= 1.0;
        }
        if self.slow.contains(id) {
            return refused;
        }
        seen.last_delivery = now;
        seen.delivered.push((id.clone(), payload.bytes().to_vec()));
        Ok(())
    }
    async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        unreachable!()
    }
    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        unreachable!()
    }
}

/// Runs a broadcast. Returns its report, the time of the last delivery, and its duration.
async fn broadcast(pusher: &Pusher, api: &Api, count: usize) -> (Report, Duration, Duration) {
    let start = Instant::now();
    let report = pusher.broadcast(ids(count), "x").unwrap().await;
    let last = api.seen.lock().unwrap().last_delivery;
    (report, last - start, start.elapsed())
}

fn pusher(api: &Api) -> Pusher {
    let seed = Arc::new(Mutex::new(fastrand_like(7)));
    Pusher::new(api.clone()).with_timeout(Duration::from_secs(29)).with_random(move || seed.lock().unwrap()())
}

/// Returns a reproducible sequence of numbers from 0 to 1.
fn fastrand_like(mut seed: u64) -> impl FnMut() -> f64 + Send {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[tokio::test(start_paused = true)]
async fn mgt_7_slow_recipients_do_not_delay_others() {
    let api = Api::new([], None);
    let (_, alone, _) = broadcast(&pusher(&api), &api, 10_000).await;
    for count in [1, 8, 64, 500] {
        let places: [(&str, Vec<usize>); 3] = [
            ("first", (0..count).collect()),
            ("spread", (0..count).map(|number| number * (10_000 / count)).collect()),
            ("last", (10_000 - count..10_000).collect()),
        ];
        for (place, slow) in places {
            let api = Api::new(slow, None);
            let (report, last, whole) = broadcast(&pusher(&api), &api, 10_000).await;
            let what = format!("{count} slow, {place}: {report}; alone {alone:?}, last delivery {last:?}");
            assert_eq!((report.delivered, report.not_tried.len()), (10_000 - count, 0), "{what}");
            assert!(last <= alone.mul_f64(1.3), "{what}");
            assert!(whole - last <= Duration::from_secs(5), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mgt_7_account_throttling_lowers_the_pace_and_all_are_delivered() {
    for (rate, latency, concurrency) in [
        (200.0, 15, 64),
        (1000.0, 15, 64),
        (2000.0, 15, 64),
        (4000.0, 15, 64),
        (1000.0, 60, 64),
        (1000.0, 5, 16),
        (500.0, 15, 256),
        (5000.0, 40, 256),
    ] {
        let mut api = Api::new([], Some(rate));
        api.latency = Duration::from_millis(latency);
        let pusher = pusher(&api).with_concurrency(concurrency).with_timeout(Duration::from_secs(600));
        let (report, last, _) = broadcast(&pusher, &api, 10_000).await;
        let ideal = (10_000.0 / rate).max(10_000.0 / concurrency as f64 * api.latency.as_secs_f64());
        let what = format!("{rate}/s, {latency} ms, {concurrency}: {report}; ideal {ideal:.1} s, {last:?}");
        assert_eq!(report.delivered, 10_000, "{what}");
        assert!(last.as_secs_f64() <= ideal * 1.6 + 1.0, "{what}");
        assert!(report.retries < 10_000, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn mgt_7_slow_recipients_are_detected_during_account_throttling() {
    let api = Api::new((0..64).map(|number| number * 150), Some(2000.0));
    let (report, _, whole) = broadcast(&pusher(&api), &api, 10_000).await;
    assert_eq!((report.delivered, report.failed.len()), (9936, 64), "{report}");
    assert!(whole < Duration::from_secs(20), "{whole:?}");
}

#[tokio::test(start_paused = true)]
async fn mgt_7_slow_recipients_are_reported_after_few_attempts() {
    let api = Api::new([3], None);
    let messages = (0..1000).chain([3, 3, 3]).map(|number| (connection_id(number), number));
    let report = pusher(&api).broadcast_with(stream::iter(messages)).await;
    assert_eq!((report.delivered, report.failed.len()), (999, 4), "{report}");
    assert!(report.slow_consumers().all(|id| *id == connection_id(3)));
    assert_eq!(report.slow_consumers().count(), 4);
    assert_eq!(report.failed[0].error.to_string(), "the client of 0000000000003Aa= does not read its messages");
    assert_eq!(api.attempts(&connection_id(3)), 4 + 3, "once it is known, each payload has one attempt");
}

/// Refuses the first n pushes to each of these connections.
#[derive(Debug, Clone)]
struct Refusing {
    api: Api,
    times: usize,
}

#[async_trait::async_trait]
impl Push for Refusing {
    async fn post(&self, id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        if self.api.slow.contains(id) && self.api.attempts(id) >= self.times {
            return Api { slow: Arc::default(), ..self.api.clone() }.post(id, payload).await;
        }
        self.api.post(id, payload).await
    }
    async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        unreachable!()
    }
    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        unreachable!()
    }
}

#[tokio::test(start_paused = true)]
async fn backoff_keeps_payload_order_and_does_not_delay_others() {
    let transport = Refusing { api: Api::new([0], None), times: 2 };
    let messages = [0, 1, 2].map(|number| (connection_id(0), number)).into_iter();
    let messages = messages.chain((1..1000).map(|number| (connection_id(number), number)));
    let start = Instant::now();
    let report = Pusher::new(transport.clone()).with_random(|| 1.0).broadcast_with(stream::iter(messages)).await;
    assert_eq!((report.delivered, report.retries), (1002, 2), "{report}");
    let delivered = transport.api.seen.lock().unwrap().delivered.clone();
    let place = |id: usize| delivered.iter().rposition(|(to, _)| *to == connection_id(id)).unwrap();
    assert!(place(999) < place(0), "the others are through before");
    let own: Vec<&[u8]> = delivered.iter().filter(|(to, _)| *to == connection_id(0)).map(|(_, what)| &**what).collect();
    assert_eq!(own, [b"0", b"1", b"2"]);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn interrupted_broadcast_accounts_for_recipients_in_backoff() {
    let api = Api::new([1, 2], None);
    let messages = [0, 1, 1, 2].into_iter().map(|number| (connection_id(number), number));
    let mut broadcast = pusher(&api).broadcast_with(stream::iter(messages).chain(stream::pending()));
    let report = tokio::select! {
        report = &mut broadcast => report,
        () = sleep(LATENCY * 3) => broadcast.interrupt(),
    };
    assert_eq!((report.delivered, report.failed.len(), report.not_tried.len()), (1, 2, 1), "{report}");
    assert!(report.failed.iter().all(|failure| matches!(failure.error, PushError::Throttled { .. })), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_recipients_in_backoff_with_their_last_error() {
    let api = Api::new([1], None);
    let pusher = pusher(&api).with_concurrency(1).with_timeout(Duration::from_millis(400));
    let messages = [0, 1, STALLED, 1].into_iter().map(|number| (connection_id(number), number));
    let start = Instant::now();
    let report = pusher.broadcast_with(stream::iter(messages).chain(stream::pending())).await;
    // The unresponsive connection occupies the only slot, so the other gets no second attempt.
    assert_eq!((report.delivered, report.failed.len(), report.not_tried.len()), (1, 2, 1), "{report}");
    assert_eq!(report.failed_with(|error| matches!(error, PushError::Throttled { .. })).count(), 1, "{report:?}");
    assert_eq!(report.failed_with(|error| matches!(error, PushError::TimedOut { .. })).count(), 1, "{report:?}");
    assert!(start.elapsed() <= Duration::from_millis(401), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn source_is_not_polled_while_the_backoff_queue_is_full() {
    let api = Api::new(0..5000, None);
    let (read, mut most) = (Arc::new(Mutex::new(0_usize)), 0);
    let counted = Arc::clone(&read);
    let source = stream::iter(0..5000).map(move |number| {
        *counted.lock().unwrap() += 1;
        connection_id(number)
    });
    let mut broadcast = pusher(&api).broadcast_stream(source, "x").unwrap();
    for _ in 0..2000 {
        tokio::select! {
            _ = &mut broadcast => break,
            () = sleep(Duration::from_millis(1)) => most = most.max(*read.lock().unwrap()),
        }
    }
    assert!((1024..=1024 + 64).contains(&most), "{most}");
    // With a large payload per connection, the memory limit applies first.
    let (large, read) = ("x".repeat(100_000), Arc::new(Mutex::new(0_usize)));
    let counted = Arc::clone(&read);
    let messages = stream::iter(0..5000).map(move |number| {
        *counted.lock().unwrap() += 1;
        (connection_id(number), large.clone())
    });
    let mut broadcast = pusher(&api).broadcast_with(messages);
    tokio::select! {
        _ = &mut broadcast => {}
        () = sleep(Duration::from_millis(100)) => {}
    }
    assert!((168..=168 + 64).contains(&*read.lock().unwrap()), "{}", read.lock().unwrap());
}
