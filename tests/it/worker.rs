//! The worker: which messages are done, which are retried, and what clients receive.

mod failing;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use lambda_websocket::Pusher;
use lambda_websocket::event::{ApiId, ConnectionId, CorrelationId, Stage};
use lambda_websocket::push::{ConnectionInfo, Endpoint, Payload, Push, PushError, Recorder};
use lambda_websocket::reply::{
    Claim, IdempotencyKey, IdempotencyStore, InMemory, Job, Keys, LeaseOwner, MessageRejection, ReplyAddress, Task,
    Worker,
};
use lambda_websocket::route::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

type Error = Box<dyn std::error::Error + Send + Sync>;

pub fn keys() -> Keys {
    Keys::new("k", [7; 32]).unwrap()
}

pub fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

fn address(correlation: &str) -> ReplyAddress {
    let endpoint = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev".parse().unwrap();
    // A separate connection for each request, so that single ones can be stale.
    let id = ConnectionId::new(format!("connection-{correlation}")).unwrap();
    ReplyAddress::new(id, endpoint, CorrelationId::new(correlation).unwrap(), soon())
}

fn body(correlation: &str, job: &str) -> String {
    let address = address(correlation);
    let json = |job: Job| serde_json::to_string(&job).unwrap();
    match job {
        "undecodable" => "{}".to_owned(),
        "forged" => json(Job::unsigned(job, &address).unwrap()),
        "unbound" => json(Job::from_parts(address.seal_unbound(&keys()), r#""unbound""#)),
        "exchanged" => {
            json(Job::from_parts(Job::seal("ok", &address, &keys()).unwrap().reply_to().clone(), r#""exchanged""#))
        }
        "expired" => {
            let address = address.with_expiry(SystemTime::UNIX_EPOCH + Duration::from_secs(5));
            json(Job::seal(job, &address, &keys()).unwrap())
        }
        "of another stage" => {
            let url = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/prod";
            json(Job::seal(job, &address.with_endpoint(url.parse().unwrap()), &keys()).unwrap())
        }
        _ => json(Job::seal(job, &address, &keys()).unwrap()),
    }
}

fn record(index: usize, body: &str) -> Value {
    json!({
        "messageId": format!("m{index}"), "receiptHandle": "r", "body": body,
        "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {},
        "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-central-1:1:q", "awsRegion": "eu-central-1",
    })
}

/// Returns an SQS event: for each message its group, unless empty, and its job.
pub fn sqs(jobs: &[(&str, &str)], is_fifo: bool) -> Value {
    let records = jobs.iter().enumerate().map(|(index, (group, job))| {
        let mut record = record(index, &body(&format!("q{index}"), job));
        if is_fifo {
            record["eventSourceARN"] = json!("arn:aws:sqs:eu-central-1:1:q.fifo");
            record["attributes"]["SequenceNumber"] = json!(format!("{index:020}"));
        }
        if !group.is_empty() {
            record["attributes"]["MessageGroupId"] = json!(group);
        }
        record
    });
    json!({"Records": records.collect::<Vec<_>>()})
}

/// Returns a worker whose jobs say what they do, and the order in which jobs began.
fn worker(recorder: &Recorder) -> (Worker<String, String>, Arc<Mutex<Vec<String>>>) {
    worker_at(recorder.clone())
}

fn worker_at(transport: impl Push + 'static) -> (Worker<String, String>, Arc<Mutex<Vec<String>>>) {
    let begun = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&begun);
    let worker = Worker::new(Pusher::new(transport).with_random(|| 0.0), keys(), move |task: Task<String>| {
        seen.lock().unwrap().push(task.correlation_id().as_json().trim_matches('"').to_owned());
        async move {
            match task.job.as_str() {
                "fail" => Err("it fails".into()),
                "panic" => panic!("on purpose"),
                "stall" => std::future::pending().await,
                "large" => Ok("x".repeat(140_000)),
                "progress" => {
                    task.progress(&json!({"percent": 50})).await?;
                    Ok("finished".to_owned())
                }
                job => Ok(job.to_owned()),
            }
        }
    });
    (worker, begun)
}

/// Returns the ids of the messages that are retried.
pub async fn again(worker: &Worker<String, String>, event: Value, deadline: SystemTime) -> Vec<String> {
    let response = worker.handle(event, deadline).await.unwrap().unwrap();
    let response = serde_json::to_value(response).unwrap();
    let failures = response["batchItemFailures"].as_array().unwrap().iter();
    failures.map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn failed_messages_become_batch_item_failures() {
    // Each row: the jobs, all of one group; the retried ones of a standard queue, and those of a FIFO queue.
    type Row = (&'static [&'static str], &'static [usize], &'static [usize]);
    let table: [Row; 12] = [
        (&["ok", "ok", "ok"], &[], &[]),
        (&["ok", "fail", "ok"], &[1], &[1, 2]),
        (&["ok", "panic", "ok"], &[1], &[1, 2]),
        (&["ok", "gone", "ok"], &[], &[]),
        (&["ok", "undecodable", "ok"], &[1], &[1, 2]),
        (&["ok", "forged", "ok"], &[1], &[1, 2]),
        (&["ok", "exchanged", "ok"], &[1], &[1, 2]),
        (&["ok", "unbound", "ok"], &[1], &[1, 2]),
        (&["ok", "expired", "ok"], &[], &[]),
        (&["ok", "large", "ok"], &[], &[]),
        (&["ok", "stall", "ok"], &[1], &[1, 2]),
        (&["stall", "panic", "fail"], &[0, 1, 2], &[0, 1, 2]),
    ];
    for (jobs, standard, fifo) in table {
        for (is_fifo, expected) in [(false, standard), (true, fifo)] {
            let recorder = Recorder::new();
            for (index, job) in jobs.iter().enumerate() {
                if *job == "gone" {
                    Pusher::new(recorder.clone())
                        .close(&format!("connection-q{index}").parse().unwrap())
                        .await
                        .unwrap();
                }
            }
            let (worker, begun) = worker(&recorder);
            let named: Vec<(&str, &str)> = jobs.iter().map(|job| ("group", *job)).collect();
            let event = sqs(&named, is_fifo);
            let expected: Vec<String> = expected.iter().map(|index| format!("m{index}")).collect();
            let deadline = SystemTime::now() + Duration::from_secs(5);
            assert_eq!(again(&worker, event, deadline).await, expected, "{jobs:?}, FIFO: {is_fifo}");
            if is_fifo {
                let begun = begun.lock().unwrap();
                let mut sorted = begun.clone();
                sorted.sort();
                assert_eq!(*begun, sorted, "one after the other");
            }
        }
    }
}

#[tokio::test]
async fn fifo_message_groups_run_concurrently() {
    let recorder = Recorder::new();
    let (worker, _) = worker(&recorder);
    let jobs = [("a", "ok"), ("b", "fail"), ("a", "ok"), ("b", "ok"), ("c", "panic"), ("a", "ok"), ("c", "ok")];
    assert_eq!(again(&worker, sqs(&jobs, true), soon()).await, ["m1", "m3", "m4", "m6"]);
    assert_eq!(recorder.pushes().len(), 3);
}

#[tokio::test]
async fn progress_and_result_carry_the_correlation_id() {
    let recorder = Recorder::new();
    let (worker, _) = worker(&recorder);
    assert!(again(&worker, sqs(&[("", "progress")], false), soon()).await.is_empty());
    let texts: Vec<String> = recorder.pushes().iter().map(|push| push.text()).collect();
    assert_eq!(texts, [r#"{"id":"q0","progress":{"percent":50}}"#, r#"{"id":"q0","result":"finished"}"#]);
    assert_eq!(recorder.pushes()[1].connection_id.as_str(), "connection-q0");
}

#[tokio::test]
async fn standard_queue_with_message_groups_is_not_treated_as_fifo() {
    let recorder = Recorder::new();
    let (worker, _) = worker(&recorder);
    let jobs = [("tenant", "fail"), ("tenant", "ok"), ("tenant", "ok")];
    assert_eq!(again(&worker, sqs(&jobs, false), soon()).await, ["m0"]);
    assert_eq!(recorder.pushes().len(), 2);
    // Each of these members alone marks a FIFO queue.
    for member in ["/Records/0/eventSourceARN", "/Records/0/attributes/SequenceNumber"] {
        let mut event = sqs(&jobs, true);
        for record in event["Records"].as_array_mut().unwrap() {
            match member {
                "/Records/0/eventSourceARN" => record["eventSourceARN"] = json!("arn:aws:sqs:eu-central-1:1:q"),
                _ => drop(record["attributes"].as_object_mut().unwrap().remove("SequenceNumber")),
            }
        }
        assert_eq!(again(&worker, event, soon()).await, ["m0", "m1", "m2"], "without {member}");
    }
}

/// Records everything that is passed to a worker's hooks.
fn heard(worker: Worker<String, String>) -> (Worker<String, String>, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (undelivered, rejected) = (Arc::clone(&heard), Arc::clone(&heard));
    let worker = worker
        .on_undelivered(move |result| {
            let text = format!(
                "{} {} bytes: {}",
                result.correlation_id.as_json().trim_matches('"'),
                result.result.len(),
                result.reason
            );
            assert!(!format!("{result:?}").contains(&result.result), "{result:?}");
            undelivered.lock().unwrap().push(text);
            async {}
        })
        .on_rejection(move |rejection| {
            let source = std::error::Error::source(rejection).map(ToString::to_string).unwrap_or_default();
            rejected.lock().unwrap().push(format!("{rejection}: {source}"));
        });
    (worker, heard)
}

#[tokio::test]
async fn undeliverable_results_are_reported_to_the_hook() {
    let recorder = Recorder::new();
    Pusher::new(recorder.clone()).close(&"connection-q0".parse().unwrap()).await.unwrap();
    let (worker, heard) = heard(worker(&recorder).0);
    let jobs = ["lonely", "undecodable", "forged", "expired", "exchanged", "unbound"].map(|job| ("", job));
    assert_eq!(again(&worker, sqs(&jobs, false), soon()).await, ["m1", "m2", "m4", "m5"]);
    assert!(recorder.pushes().is_empty());
    let heard = heard.lock().unwrap();
    assert!(heard[3].starts_with("the message m3 has no address to reply to: the reply address has expired"));
    assert_eq!(
        [&heard[0], &heard[1], &heard[2], &heard[4], &heard[5]],
        [
            "q0 6 bytes: the connection connection-q0 is gone, or not open yet: API Gateway opens it only after \
             `$connect` has returned",
            "the message m1 is not a job: expected `replyTo` and `job`, both strings: ",
            "the message m2 has no address to reply to: the reply address is not signed",
            "the message m4 has no address to reply to: the reply address was sealed with another job: expected exactly the \
             bytes that were sealed",
            "the message m5 has no address to reply to: the reply address is not bound to a job: seal it with `Job::seal`"
        ]
    );
}

#[tokio::test]
async fn undeliverable_result_is_not_retried() {
    let recorder = Recorder::new();
    let (worker, begun) = worker(&recorder);
    let (worker, heard) = heard(worker);
    assert!(again(&worker, sqs(&[("", "large")], false), soon()).await.is_empty());
    recorder.answer(StatusCode::BAD_REQUEST);
    assert!(again(&worker, sqs(&[("", "malformed")], false), soon()).await.is_empty());
    assert_eq!(begun.lock().unwrap().len(), 2);
    let texts: Vec<String> = recorder.pushes().iter().map(|push| push.text()).collect();
    assert_eq!(
        texts,
        [concat!(
            r#"{"id":"q0","error":{"code":"too_large","message":"the reply has 140023 bytes, "#,
            r#"more than the maximum of 131072 for one message"}}"#
        )]
    );
    assert_eq!(
        *heard.lock().unwrap(),
        [
            "q0 140000 bytes: the payload has 140023 bytes, more than the maximum of 131072 for one push",
            "q0 9 bytes: API Gateway refused the request about the connection connection-q0"
        ]
    );
}

#[tokio::test]
async fn unserializable_result_sends_an_error_to_the_client() {
    let recorder = Recorder::new();
    // A JSON object cannot have lists as keys.
    let worker = Worker::new(Pusher::new(recorder.clone()), keys(), |_: Task<String>| async {
        Ok(std::collections::BTreeMap::from([(vec![1], 1)]))
    });
    let response = worker.handle(sqs(&[("", "ok")], false), soon()).await.unwrap().unwrap();
    assert!(response.batch_item_failures.is_empty());
    assert_eq!(
        recorder.pushes()[0].text(),
        r#"{"id":"q0","error":{"code":"internal","message":"Internal server error"}}"#
    );
}

#[tokio::test]
async fn access_denied_result_is_retried() {
    let recorder = Recorder::new();
    for _ in 0..3 {
        recorder.answer(StatusCode::FORBIDDEN);
    }
    let (worker, heard) = heard(worker(&recorder).0);
    assert_eq!(again(&worker, sqs(&[("", "ok"), ("", "ok")], false), soon()).await, ["m0", "m1"]);
    assert!(heard.lock().unwrap().is_empty(), "it may be delivered yet");
}

#[tokio::test]
async fn result_for_another_stage_uses_its_own_pusher() {
    let (dev, prod) = (Recorder::new(), Recorder::new());
    let jobs = [("", "of another stage"), ("", "ok")];
    let (here, begun) = worker_at(At { endpoint: Some(dev_endpoint()), recorder: dev.clone() });
    let (here, heard) = heard(here);
    assert_eq!(again(&here, sqs(&jobs, false), soon()).await, ["m0"]);
    assert_eq!((begun.lock().unwrap().clone(), dev.pushes().len()), (vec!["q1".to_owned()], 1), "it was not run");
    assert_eq!(
        *heard.lock().unwrap(),
        ["the message m0 is for a client of a1b2c3d4e5/prod, for which the worker has no pusher: add one with \
          `Worker::with_pusher_for`: "]
    );

    let (both, _) = worker_at(At { endpoint: Some(dev_endpoint()), recorder: dev.clone() });
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("prod").unwrap());
    let both = both.with_pusher_for(api_id, stage, Pusher::new(prod.clone()));
    assert!(again(&both, sqs(&jobs, false), soon()).await.is_empty());
    assert_eq!((prod.pushes()[0].connection_id.as_str(), dev.pushes().len()), ("connection-q0", 2));
}

fn dev_endpoint() -> Endpoint {
    "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev".parse().unwrap()
}

/// A recorder with an endpoint.
#[derive(Debug)]
struct At {
    endpoint: Option<Endpoint>,
    recorder: Recorder,
}

#[async_trait]
impl Push for At {
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        self.recorder.post(connection_id, payload).await
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.recorder.info(connection_id).await
    }

    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.recorder.close(connection_id).await
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }
}

/// A connection that opens at a given time.
#[derive(Debug)]
struct OpensAt(Instant, Recorder);

#[async_trait]
impl Push for OpensAt {
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        if Instant::now() < self.0 {
            return Err(PushError::Gone { connection_id: connection_id.clone() });
        }
        self.1.post(connection_id, payload).await
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        self.1.info(connection_id).await
    }

    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.1.close(connection_id).await
    }
}

// CON-6
#[tokio::test(start_paused = true)]
async fn connecting_client_gets_progress_and_result() {
    // Each row: when the client's `$connect` returns, and whether the worker waits for it.
    for (opens_after, is_waited_for) in [(0, true), (29, true), (31, false)] {
        for is_connecting in [true, false] {
            let start = Instant::now();
            let recorder = Recorder::new();
            let opens_at = start + Duration::from_secs(opens_after);
            let (worker, heard) = heard(worker_at(OpensAt(opens_at, recorder.clone())).0);
            let address = address("q0");
            // The address of a `$connect` event may not be open yet; that of a message is.
            let address = match is_connecting {
                true => address.with_connecting_since(SystemTime::now()),
                false => address,
            };
            let job = serde_json::to_string(&Job::seal("progress", &address, &keys()).unwrap()).unwrap();
            let event = json!({"Records": [record(0, &job)]});
            let deadline = SystemTime::now() + Duration::from_secs(300);
            assert!(again(&worker, event, deadline).await.is_empty());
            let is_delivered = opens_after == 0 || (is_connecting && is_waited_for);
            assert_eq!(recorder.pushes().len(), if is_delivered { 2 } else { 0 }, "{opens_after} {is_connecting}");
            assert_eq!(heard.lock().unwrap().len(), usize::from(!is_delivered));
            let took = start.elapsed();
            assert!(took <= Duration::from_secs(31), "{took:?}");
            assert!(is_connecting || took < Duration::from_millis(10), "nobody is waited for who was connected");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn worker_reports_unfinished_messages_before_the_deadline() {
    for deadline_in in [600, 5000] {
        let (worker, _) = worker(&Recorder::new());
        let start = Instant::now();
        let deadline = SystemTime::now() + Duration::from_millis(deadline_in);
        assert_eq!(again(&worker, sqs(&[("", "stall"), ("", "ok")], false), deadline).await, ["m0"]);
        let left = Duration::from_millis(deadline_in).saturating_sub(start.elapsed());
        // A little real time passes while tokio's clock is paused.
        assert!((490..=600).contains(&left.as_millis()), "{left:?} left of {deadline_in} ms");
    }
}

#[tokio::test]
async fn requests_of_different_clients_do_not_suppress_each_other() {
    let recorder = Recorder::new();
    let store = InMemory::new(Duration::from_secs(30), Duration::from_secs(3600));
    let worker = worker(&recorder).0.with_idempotency_store(store);
    let job = |connection: &str, job: &str| {
        let (id, endpoint) = (connection.parse().unwrap(), dev_endpoint());
        let address = ReplyAddress::new(id, endpoint, CorrelationId::new("1").unwrap(), soon());
        json!({"Records": [record(0, &serde_json::to_string(&Job::seal(job, &address, &keys()).unwrap()).unwrap())]})
    };
    // Bob numbers his requests as Alice does, she restarts her count after reconnecting, and a request may have two jobs.
    let events =
        [job("alice", "a"), job("bob", "b"), job("alice-again", "c"), job("alice-again", "d"), job("alice-again", "d")];
    for event in &events {
        for _ in 0..2 {
            assert!(again(&worker, event.clone(), soon()).await.is_empty());
        }
    }
    let got: Vec<String> =
        recorder.pushes().iter().map(|push| format!("{} {}", push.connection_id, push.text())).collect();
    let expected = [("alice", "a"), ("bob", "b"), ("alice-again", "c"), ("alice-again", "d"), ("alice-again", "d")];
    assert_eq!(got, expected.map(|(id, job)| format!(r#"{id} {{"id":"1","result":"{job}"}}"#)));
}

#[tokio::test(start_paused = true)]
async fn redelivered_job_runs_once() {
    let recorder = Recorder::new();
    let store = InMemory::new(Duration::from_secs(30), Duration::from_secs(3600));
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let worker = Worker::new(Pusher::new(recorder.clone()), keys(), move |task: Task<String>| {
        let run = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match task.job.as_str() {
                "fail first" if run == 0 => Err("not yet".into()),
                "stall first" if run == 2 => std::future::pending().await,
                job => Ok(job.to_owned()),
            }
        }
    })
    .with_idempotency_store(store);
    let event = sqs(&[("", "fail first")], false);
    assert_eq!(again(&worker, event.clone(), soon()).await, ["m0"], "it failed, and may be tried again");
    for _ in 0..5 {
        assert!(again(&worker, event.clone(), soon()).await.is_empty());
    }
    assert_eq!((runs.load(Ordering::SeqCst), recorder.pushes().len()), (2, 1));
    // A job that reaches its deadline releases its lease.
    let event = sqs(&[("", "stall first")], false);
    let deadline = SystemTime::now() + Duration::from_secs(2);
    assert_eq!(again(&worker, event.clone(), deadline).await, ["m0"]);
    assert!(again(&worker, event, soon() + Duration::from_secs(60)).await.is_empty());
    assert_eq!(recorder.pushes().len(), 2);
}

/// A store that acquires leases, but whose responses do not arrive.
struct Unanswered {
    store: InMemory,
    acquired: Mutex<Vec<(IdempotencyKey, LeaseOwner)>>,
    released: Arc<Mutex<Vec<(IdempotencyKey, LeaseOwner)>>>,
    /// Whether the response is an error.
    fails: bool,
}

#[async_trait]
impl IdempotencyStore for Unanswered {
    async fn acquire(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<Claim, Error> {
        assert_eq!(self.store.acquire(key, owner).await?, Claim::Acquired);
        self.acquired.lock().unwrap().push((key.clone(), owner.clone()));
        if self.fails { Err("the answer is lost".into()) } else { std::future::pending().await }
    }

    async fn complete(&self, key: &IdempotencyKey) -> Result<(), Error> {
        self.store.complete(key).await
    }

    async fn release(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<(), Error> {
        assert!(self.acquired.lock().unwrap().contains(&(key.clone(), owner.clone())));
        self.released.lock().unwrap().push((key.clone(), owner.clone()));
        self.store.release(key, owner).await
    }
}

#[tokio::test(start_paused = true)]
async fn unconfirmed_lease_is_released() {
    for fails in [false, true] {
        let store = InMemory::new(Duration::from_secs(900), Duration::from_secs(3600));
        let released = Arc::default();
        let unanswered =
            Unanswered { store: store.clone(), acquired: Mutex::default(), released: Arc::clone(&released), fails };
        let (first, begun) = worker(&Recorder::new());
        let event = sqs(&[("", "ok")], false);
        let deadline = SystemTime::now() + Duration::from_secs(5);
        assert_eq!(again(&first.with_idempotency_store(unanswered), event.clone(), deadline).await, ["m0"]);
        assert!(begun.lock().unwrap().is_empty());
        assert_eq!(released.lock().unwrap().len(), 1);
        // The next attempt need not wait until the lease expires.
        let (second, _) = worker(&Recorder::new());
        let second = second.with_idempotency_store(store);
        assert!(again(&second, event, soon() + Duration::from_secs(60)).await.is_empty());
    }
}

#[tokio::test]
async fn lease_of_another_worker_defers_the_message() {
    let store = InMemory::new(Duration::from_secs(30), Duration::from_secs(3600));
    let event = sqs(&[("", "ok")], false);
    let (first, begun) = worker(&Recorder::new());
    let first = first.with_idempotency_store(store.clone());
    let job: Job = serde_json::from_str(event["Records"][0]["body"].as_str().unwrap()).unwrap();
    let (key, owner) = (job.open(&keys(), SystemTime::now()).unwrap().idempotency_key(), LeaseOwner::random());
    assert_eq!(store.acquire(&key, &owner).await.unwrap(), Claim::Acquired);
    assert_eq!(again(&first, event.clone(), soon()).await, ["m0"]);
    store.release(&key, &owner).await.unwrap();
    assert!(again(&first, event, soon()).await.is_empty());
    assert_eq!(begun.lock().unwrap().len(), 1);
}

/// A job whose members a service may reorder.
#[derive(serde::Serialize)]
struct OutOfOrder {
    b: &'static str,
    a: f64,
    fails: bool,
}

#[tokio::test]
async fn jobs_arrive_through_sns_and_eventbridge() {
    let recorder = Recorder::new();
    let worker = Worker::new(Pusher::new(recorder.clone()), keys(), |task: Task<Value>| async move {
        assert_eq!(task.job["b"], "\u{e9}\"\u{2028}");
        if task.job["fails"] == true { Err("it fails".into()) } else { Ok("ok") }
    });
    // JSON that services change when they serialize it again.
    let sealed =
        Job::seal(&OutOfOrder { b: "\u{e9}\"\u{2028}", a: 1.0, fails: false }, &address("q0"), &keys()).unwrap();
    let job = || serde_json::to_string(&sealed).unwrap();
    let sns_message = |message: String, attributes: Value| {
        json!({"Type": "Notification", "MessageId": "s1", "TopicArn": "arn:aws:sns:eu-central-1:1:t", "Message": message,
            "Timestamp": "2026-11-22T10:00:00.000Z", "SignatureVersion": "1", "Signature": "x",
            "SigningCertUrl": "https://x", "UnsubscribeUrl": "https://x", "MessageAttributes": attributes})
    };
    let sns = |message: Value| {
        json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0",
        "EventSubscriptionArn": "arn:aws:sns:eu-central-1:1:t:s", "Sns": message}]})
    };
    let bridge = |detail: Value| {
        json!({"version": "0", "id": "e1", "detail-type": "Job", "source": "app", "account": "1",
        "time": "2026-11-22T10:00:00Z", "region": "eu-central-1", "resources": [], "detail": detail})
    };
    let in_sqs = |body: String, attributes: Value| {
        let mut event = sqs(&[("", "ok")], false);
        event["Records"][0]["body"] = json!(body);
        event["Records"][0]["messageAttributes"] = attributes;
        event
    };
    // A `Value` sorts the members of objects.
    let detail: Value = serde_json::from_str(&job()).unwrap();
    let anew = |event: Value| serde_json::to_string_pretty(&event).unwrap().replace('\u{e9}', "\\u00e9");
    let sqs_attribute = json!({"replyTo": {"stringValue": sealed.reply_to().as_str(), "dataType": "String"}});
    let sns_attribute = json!({"replyTo": {"Type": "String", "Value": sealed.reply_to().as_str()}});
    let bare = || sealed.json().to_owned();
    let events = [
        in_sqs(job(), json!({})),
        in_sqs(bare(), sqs_attribute),
        in_sqs(sns_message(job(), json!({})).to_string(), json!({})),
        in_sqs(anew(sns_message(bare(), sns_attribute.clone())), json!({})),
        in_sqs(anew(bridge(detail.clone())), json!({})),
        sns(sns_message(job(), json!({}))),
        sns(sns_message(bare(), sns_attribute.clone())),
        bridge(detail),
    ];
    for (index, event) in events.into_iter().enumerate() {
        let is_sqs = event.pointer("/Records/0/eventSource").is_some();
        let response = worker.handle(event, soon()).await.unwrap();
        assert_eq!(response.is_some(), is_sqs);
        assert!(response.is_none_or(|response| response.batch_item_failures.is_empty()), "event {index}");
        assert_eq!(recorder.pushes().len(), index + 1, "event {index}");
        assert_eq!(recorder.pushes()[index].text(), r#"{"id":"q0","result":"ok"}"#);
    }
    // From every service, the worker refuses another job with this address.
    let told = recorder.pushes().len();
    let other = || sealed.json().replace("1.0", "2.0");
    let exchanged = serde_json::to_value(Job::from_parts(sealed.reply_to().clone(), other())).unwrap();
    let response = worker.handle(in_sqs(exchanged.to_string(), json!({})), soon()).await.unwrap().unwrap();
    assert_eq!(response.batch_item_failures.len(), 1);
    for event in [bridge(exchanged), sns(sns_message(other(), sns_attribute))] {
        let error = worker.handle(event, soon()).await.unwrap_err().to_string();
        assert!(error.contains("the reply address was sealed with another job"), "{error}");
    }
    assert_eq!(recorder.pushes().len(), told);
    // These sources do not support partial batch responses.
    let failing =
        Job::seal(&OutOfOrder { b: "\u{e9}\"\u{2028}", a: 1.0, fails: true }, &address("q0"), &keys()).unwrap();
    let failing = serde_json::to_value(failing).unwrap();
    assert_eq!(
        worker.handle(bridge(failing), soon()).await.unwrap_err().to_string(),
        "a job must be retried: it fails"
    );
    for other in
        [json!({}), json!([]), json!(null), json!({"Records": []}), json!({"Records": [{"eventSource": "aws:s3"}]})]
    {
        let error = worker.handle(other, soon()).await.unwrap_err().to_string();
        assert_eq!(error, "unexpected event: expected one of SQS, SNS or EventBridge");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_jobs_are_bounded() {
    let running = Arc::new(Mutex::new((0_usize, 0_usize)));
    let seen = Arc::clone(&running);
    let worker = Worker::new(Pusher::new(Recorder::new()), keys(), move |_: Task<String>| {
        let running = Arc::clone(&seen);
        async move {
            {
                let mut running = running.lock().unwrap();
                running.0 += 1;
                running.1 = running.1.max(running.0);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            running.lock().unwrap().0 -= 1;
            Ok(())
        }
    })
    .with_concurrency(3);
    let jobs = [("", "ok"); 20];
    let response = worker.handle(sqs(&jobs, false), soon()).await.unwrap().unwrap();
    assert!(response.batch_item_failures.is_empty());
    assert_eq!(running.lock().unwrap().1, 3);
}

#[tokio::test]
async fn without_signatures_accepts_any_address() {
    let recorder = Recorder::new();
    let unsigned = worker(&recorder).0.without_signatures();
    let jobs = [("", "forged"), ("", "ok"), ("", "unbound")];
    assert!(again(&unsigned, sqs(&jobs, false), soon()).await.is_empty());
    let told: Vec<String> = recorder.pushes().iter().map(|push| push.text()).collect();
    assert_eq!(
        told,
        ["forged", "ok", "unbound"]
            .iter()
            .enumerate()
            .map(|(index, job)| { format!(r#"{{"id":"q{index}","result":"{job}"}}"#) })
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn with_unbound_addresses_accepts_unbound_addresses() {
    let recorder = Recorder::new();
    let worker = worker(&recorder).0.with_unbound_addresses();
    let jobs = [("", "unbound"), ("", "exchanged"), ("", "forged"), ("", "ok")];
    assert_eq!(again(&worker, sqs(&jobs, false), soon()).await, ["m1", "m2"], "a bound one stays so");
    assert_eq!(recorder.pushes().len(), 2);
}

#[tokio::test]
async fn rejection_does_not_quote_the_message() {
    let (worker, _) = worker(&Recorder::new());
    let shown = Arc::new(Mutex::new(String::new()));
    let show = Arc::clone(&shown);
    let worker = worker.on_rejection(move |rejection| {
        show.lock().unwrap().push_str(&format!("{rejection} {rejection:?}"));
        assert!(matches!(rejection, MessageRejection::NotAJob { .. } | MessageRejection::Address { .. }));
    });
    let of_another_type = Job::seal(&["s3cret"], &address("q0"), &keys()).unwrap();
    for text in [
        "s3cret",
        r#"{"replyTo":"s3cret","job":"s3cret"}"#,
        r#"{"replyTo":7,"job":["s3cret"]}"#,
        r#""s3cret""#,
        &serde_json::to_string(&of_another_type).unwrap(),
    ] {
        let mut event = sqs(&[("", "ok")], false);
        event["Records"][0]["body"] = json!(text);
        assert_eq!(again(&worker, event, soon()).await, ["m0"]);
    }
    let shown = shown.lock().unwrap();
    assert!(shown.contains("expected JSON") && shown.contains("expected a value of the worker's job type"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn panicking_hook_fails_only_its_message() {
    let recorder = Recorder::new();
    let worker = worker(&recorder).0.on_rejection(|_| panic!("on purpose"));
    assert_eq!(again(&worker, sqs(&[("", "ok"), ("", "undecodable"), ("", "ok")], false), soon()).await, ["m1"]);
    assert_eq!(recorder.pushes().len(), 2);
}

#[test]
#[should_panic(expected = "configure a worker before cloning it")]
fn configuring_a_cloned_worker_panics() {
    let (worker, _) = worker(&Recorder::new());
    let _clone = worker.clone();
    let _ = worker.without_signatures();
}
