//! Broadcasts: the report matches what happened.

mod slow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use lambda_websocket::Pusher;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::{ConnectionInfo, MAX_PAYLOAD_BYTES, Payload, Push, PushError, Recorder, Report};
use lambda_websocket::route::StatusCode;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use crate::stub::{Behavior, Log, STALLED, connection_id};

fn ids(count: usize) -> Vec<ConnectionId> {
    (0..count).map(connection_id).collect()
}

/// The stub as an in-memory transport, for use with a paused clock.
#[derive(Debug, Clone, Default)]
struct InMemory {
    behavior: Behavior,
    log: Log,
    /// The current and the maximum number of concurrent attempts.
    under_way: Arc<Mutex<(usize, usize)>>,
}

struct Under(Arc<Mutex<(usize, usize)>>);

impl Drop for Under {
    fn drop(&mut self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

#[async_trait::async_trait]
impl Push for InMemory {
    async fn post(&self, id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        let _under = {
            let mut under_way = self.under_way.lock().unwrap();
            under_way.0 += 1;
            under_way.1 = under_way.1.max(under_way.0);
            Under(Arc::clone(&self.under_way))
        };
        if !self.behavior.latency.is_zero() {
            sleep(self.behavior.latency).await;
        }
        let status = self.behavior.log(&self.log, id.as_str());
        if status == STALLED {
            std::future::pending::<()>().await;
        }
        let status = StatusCode::from_u16(status).unwrap();
        PushError::from_response(id, payload.bytes().len(), status, None, b"").map_or(Ok(()), Err)
    }
    async fn info(&self, _: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        std::future::pending().await
    }
    async fn close(&self, _: &ConnectionId) -> Result<(), PushError> {
        std::future::pending().await
    }
}

fn in_memory(behavior: Behavior) -> (Pusher, InMemory) {
    let transport = InMemory { behavior, ..InMemory::default() };
    (Pusher::new(transport.clone()), transport)
}

/// Checks that the report adds up, lists no connection twice, and matches the stub's log.
pub fn is_true(report: &Report, log: &Log, count: usize) {
    let log = log.lock().unwrap();
    assert_eq!(report.ids(), count, "{report}");
    assert_eq!(report.delivered + report.gone.len() + report.failed.len() + report.not_tried.len(), count);
    let mut named = BTreeSet::new();
    let lists =
        report.gone.iter().chain(&report.not_tried).chain(report.failed.iter().map(|failed| &failed.connection_id));
    for id in lists {
        assert!(named.insert(id.as_str()), "{id} twice");
    }
    let last = |id: &ConnectionId| log.get(id.as_str()).and_then(|answers| answers.last()).copied();
    let mut attempts = 0;
    let mut delivered = 0;
    for (id, answers) in log.iter() {
        attempts += answers.len();
        if answers.last() == Some(&200) && !named.contains(id.as_str()) {
            delivered += 1;
        }
        assert!(answers.iter().filter(|status| **status == 200).count() <= 1, "{id} has it twice");
    }
    assert_eq!(report.delivered, delivered, "delivered is what the stub took");
    for id in &report.gone {
        assert_eq!(last(id), Some(410));
    }
    for id in &report.not_tried {
        assert_eq!(last(id), None, "not tried, and yet seen");
    }
    for failure in &report.failed {
        let seen = last(&failure.connection_id);
        match &failure.error {
            PushError::Throttled { .. } | PushError::SlowConsumer { .. } => assert_eq!(seen, Some(429)),
            PushError::Unavailable { .. } => assert_eq!(seen, Some(500)),
            PushError::Forbidden { .. } => assert_eq!(seen, Some(403)),
            // The stub may have responded just at the deadline.
            PushError::TimedOut { .. } | PushError::Interrupted => {}
            other => panic!("{other}"),
        }
    }
    let tried = report.ids() - report.not_tried.len();
    // A push that reached its deadline before it was sent still counts as tried.
    let unseen = report.failed.iter().filter(|failure| last(&failure.connection_id).is_none()).count();
    assert!(report.retries + tried >= attempts && report.retries + tried <= attempts + unseen + report.failed.len());
}

#[tokio::test(start_paused = true)]
async fn payload_is_serialized_once() {
    let recorder = Recorder::new();
    let report = Pusher::new(recorder.clone()).broadcast(ids(1000), &serde_json::json!({"a": 1})).unwrap().await;
    assert_eq!((report.delivered, report.ids(), report.retries), (1000, 1000, 0));
    assert!(report.is_success() && report.is_complete);
    assert_eq!(report.to_string(), "1000 connections: 1000 delivered, 0 gone, 0 failed, 0 not tried; 0 retries, 0 ms");
    let pushes = recorder.pushes();
    let payload = &pushes[0].payload;
    assert!(pushes.iter().all(|push| push.payload.as_ptr() == payload.as_ptr()), "the same bytes");
    let reached: BTreeSet<&str> = pushes.iter().map(|push| push.connection_id.as_str()).collect();
    assert_eq!(reached.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn empty_broadcast_succeeds() {
    let report = Pusher::new(Recorder::new()).broadcast([], "x").unwrap().await;
    assert!(report.ids() == 0 && report.is_success());
}

#[tokio::test(start_paused = true)]
async fn mgt_6_oversized_payload_fails_before_any_push() {
    let recorder = Recorder::new();
    let pusher = Pusher::new(recorder.clone());
    let error = pusher.broadcast(ids(3), &"x".repeat(MAX_PAYLOAD_BYTES)).unwrap_err();
    assert!(matches!(error, PushError::TooLarge { size: 131_074 }));
    let sizes = [1, MAX_PAYLOAD_BYTES, 2].into_iter().map(|size| "x".repeat(size));
    let report = pusher.broadcast_with(stream::iter(ids(3).into_iter().zip(sizes))).await;
    assert_eq!(report.delivered, 2);
    let too_large: Vec<_> = report.failed_with(|error| matches!(error, PushError::TooLarge { .. })).collect();
    assert_eq!(too_large, [&connection_id(1)]);
}

#[tokio::test(start_paused = true)]
async fn lim_5_concurrency_is_bounded_and_reduced_when_throttled() {
    let latency = Duration::from_millis(20);
    let (pusher, transport) = in_memory(Behavior { latency, ..Behavior::default() });
    let start = Instant::now();
    let report = pusher.with_concurrency(50).broadcast(ids(5000), "x").unwrap().await;
    assert_eq!(report.delivered, 5000);
    assert_eq!(transport.under_way.lock().unwrap().1, 50);
    let ideal = latency * 100;
    assert!(start.elapsed() <= ideal.mul_f64(1.2), "{:?} of {ideal:?}", start.elapsed());

    // Half of all attempts are refused: concurrency drops, and every push is still delivered.
    let (pusher, transport) = in_memory(Behavior { latency, throttled: 0.5, ..Behavior::default() });
    let pusher = pusher.with_concurrency(50).with_timeout(Duration::from_secs(600));
    let report = pusher.broadcast(ids(3000), "x").unwrap().await;
    assert_eq!(report.delivered, 3000, "{report}");
    assert!(transport.under_way.lock().unwrap().1 <= 50);
}

#[tokio::test(start_paused = true)]
async fn deadline_stops_broadcast_and_reports_untried_connections() {
    let latency = Duration::from_millis(100);
    let (pusher, transport) = in_memory(Behavior { latency, ..Behavior::default() });
    let start = Instant::now();
    let pusher = pusher.with_concurrency(10).with_timeout(Duration::from_millis(1050));
    let report = pusher.broadcast(ids(1000), "x").unwrap().await;
    assert_eq!(start.elapsed().as_millis() / 10, 105);
    assert_eq!((report.delivered, report.failed.len(), report.not_tried.len()), (100, 10, 890));
    assert!(report.is_complete && !report.is_success());
    is_true(&report, &transport.log, 1000);
}

#[tokio::test(start_paused = true)]
async fn mgt_7_throttling_endpoint_does_not_delay_the_deadline() {
    let (pusher, transport) = in_memory(Behavior { throttled: 1.0, ..Behavior::default() });
    let start = Instant::now();
    let report = pusher.with_timeout(Duration::from_secs(2)).broadcast(ids(2000), "x").unwrap().await;
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((report.delivered, report.ids()), (0, 2000), "{report}");
    assert!(report.failed.iter().all(|failure| matches!(failure.error, PushError::Throttled { .. })));
    is_true(&report, &transport.log, 2000);
}

#[tokio::test(start_paused = true)]
async fn pending_source_does_not_delay_the_deadline() {
    use futures_util::StreamExt as _;
    let (pusher, _) = in_memory(Behavior::default());
    let source = stream::iter(ids(5)).chain(stream::pending());
    let start = Instant::now();
    let report = pusher.with_timeout(Duration::from_secs(3)).broadcast_stream(source, "x").unwrap().await;
    assert_eq!((report.delivered, report.ids(), report.is_complete), (5, 5, false));
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn interrupted_broadcast_reports_progress() {
    let latency = Duration::from_millis(100);
    let (pusher, transport) = in_memory(Behavior { latency, ..Behavior::default() });
    let mut broadcast = pusher.with_concurrency(10).broadcast(ids(1000), "x").unwrap();
    let report = tokio::select! {
        report = &mut broadcast => report,
        () = sleep(Duration::from_millis(550)) => broadcast.interrupt(),
    };
    assert_eq!((report.delivered, report.failed.len()), (50, 10));
    assert!(report.failed.iter().all(|failure| matches!(failure.error, PushError::Interrupted)));
    assert!(!report.is_complete);
    is_true(&report, &transport.log, 60);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(transport.log.lock().unwrap().len(), 50, "nothing goes on behind the report");
}

#[tokio::test(start_paused = true)]
async fn payloads_for_the_same_connection_arrive_in_order() {
    let recorder = Recorder::new();
    for _ in 0..20 {
        recorder.answer(StatusCode::TOO_MANY_REQUESTS);
    }
    let messages = (0..600).map(|number| (connection_id(number % 7), number));
    let report = Pusher::new(recorder.clone()).broadcast_with(stream::iter(messages)).await;
    assert_eq!(report.delivered, 600);
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for push in recorder.pushes() {
        let number: usize = push.text().parse().unwrap();
        if let Some(before) = last.insert(push.connection_id.to_string(), number) {
            assert_eq!(before + 7, number);
        }
    }
}

/// A transport that never responds for connection 0.
#[derive(Debug, Clone)]
struct Deaf(Recorder);

#[async_trait::async_trait]
impl Push for Deaf {
    async fn post(&self, id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        if *id == connection_id(0) {
            std::future::pending::<()>().await;
        }
        self.0.post(id, payload).await
    }
    async fn info(&self, id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.0.info(id).await
    }
    async fn close(&self, id: &ConnectionId) -> Result<(), PushError> {
        self.0.close(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn queued_connection_does_not_block_others() {
    let recorder = Recorder::new();
    let pusher = Pusher::new(Deaf(recorder.clone())).with_concurrency(10).with_timeout(Duration::from_secs(3));
    let messages = [0, 0, 0].into_iter().chain(1..500).map(|number| (connection_id(number), number));
    let mut broadcast = pusher.broadcast_with(stream::iter(messages));
    tokio::select! {
        _ = &mut broadcast => panic!("connection 0 has not answered"),
        () = sleep(Duration::from_secs(1)) => assert_eq!(recorder.pushes().len(), 499),
    }
    let report = broadcast.await;
    assert_eq!((report.delivered, report.failed.len(), report.not_tried.len()), (499, 1, 2), "{report}");
    // At most as many messages wait as pushes may run concurrently; further messages have to wait, too.
    let messages = [0; 50].into_iter().chain(1..500).map(|number| (connection_id(number), number));
    let report = pusher.broadcast_with(stream::iter(messages)).await;
    assert_eq!((report.delivered, report.failed.len(), report.not_tried.len()), (0, 1, 548), "{report}");
}

#[tokio::test]
async fn long_broadcast_yields_to_other_tasks() {
    let pusher = Pusher::new(Recorder::new());
    let mut broadcast = Box::pin(pusher.broadcast(ids(20_000), "x").unwrap());
    let mut turns = 0;
    loop {
        tokio::select! {
            biased;
            report = &mut broadcast => {
                assert_eq!(report.delivered, 20_000);
                break;
            }
            () = tokio::task::yield_now() => turns += 1,
        }
    }
    assert!(turns > 20, "{turns}");
}

fn behaviors() -> impl Strategy<Value = Behavior> {
    (any::<u64>(), 0_u64..40, [0.0..0.3_f64, 0.0..0.5, 0.0..0.3, 0.0..0.1, 0.0..0.1]).prop_map(
        |(seed, latency, rates)| {
            let [gone, throttled, failed, forbidden, stalled] = rates;
            let latency = Duration::from_millis(latency);
            Behavior { latency, gone, throttled, failed, forbidden, stalled, seed, forgets: false }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn report_matches_the_server_log_under_random_faults(
        behavior in behaviors(),
        (count, concurrency, seconds) in (0_usize..300, 1_usize..80, 1_u64..20),
        (random, interrupted) in (0.0..1.0_f64, proptest::option::of(1_u64..3000)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let (pusher, transport) = in_memory(behavior);
            let pusher = pusher
                .with_concurrency(concurrency)
                .with_timeout(Duration::from_secs(seconds))
                .with_attempt_timeout(Duration::from_millis(500))
                .with_random(move || random);
            let start = Instant::now();
            let mut broadcast = pusher.broadcast(ids(count), "x").unwrap();
            let report = match interrupted {
                None => broadcast.await,
                Some(after) => tokio::select! {
                    report = &mut broadcast => report,
                    () = sleep(Duration::from_millis(after)) => broadcast.interrupt(),
                },
            };
            assert!(start.elapsed() <= Duration::from_secs(seconds) + Duration::from_millis(2), "{:?}", start.elapsed());
            if report.is_complete {
                is_true(&report, &transport.log, count);
            } else {
                is_true(&report, &transport.log, report.ids());
            }
        });
    }
}
