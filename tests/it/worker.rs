//! The worker: which messages are done and which come again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lambda_websocket::Pusher;
use lambda_websocket::event::{ConnectionId, CorrelationId};
use lambda_websocket::push::Recorder;
use lambda_websocket::reply::{Claim, InMemory, Job, Keys, Once, ReplyAddress, Task, Worker};
use lambda_websocket::route::StatusCode;
use serde_json::{Value, json};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn keys() -> Keys {
    Keys::new("k", [7; 32]).unwrap()
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

fn address(question: &str) -> ReplyAddress {
    let endpoint = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev".parse().unwrap();
    // A connection for each question, so that one of them can be gone.
    let id = ConnectionId::new(format!("connection-{question}")).unwrap();
    ReplyAddress::new(id, endpoint, CorrelationId::new(question).unwrap(), soon())
}

fn body(question: &str, job: &str) -> String {
    match job {
        "undecodable" => "{}".to_owned(),
        "forged" => serde_json::to_string(&Job::new(address(question).unsigned(), job)).unwrap(),
        "expired" => {
            let address = address(question).with_expiry(SystemTime::UNIX_EPOCH + Duration::from_secs(5));
            serde_json::to_string(&Job::new(address.seal(&keys()), job)).unwrap()
        }
        _ => serde_json::to_string(&Job::new(address(question).seal(&keys()), job)).unwrap(),
    }
}

/// An event of SQS: for each message its job; of a FIFO queue also its group.
fn sqs(jobs: &[(&str, &str)], is_fifo: bool) -> Value {
    let records = jobs.iter().enumerate().map(|(index, (group, job))| {
        let question = format!("q{index}");
        let mut record = json!({
            "messageId": format!("m{index}"), "receiptHandle": "r", "body": body(&question, job),
            "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {},
            "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-central-1:1:q", "awsRegion": "eu-central-1",
        });
        if is_fifo {
            record["attributes"]["MessageGroupId"] = json!(group);
        }
        record
    });
    json!({"Records": records.collect::<Vec<_>>()})
}

/// A worker whose jobs say what they do, what it pushes, and in which order jobs began.
fn worker(recorder: &Recorder) -> (Worker<String, String>, Arc<Mutex<Vec<String>>>) {
    let begun = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&begun);
    let worker = Worker::new(Pusher::new(recorder.clone()).with_random(|| 0.0), keys(), move |task: Task<String>| {
        seen.lock().unwrap().push(task.correlation_id().to_string());
        async move {
            match task.job.as_str() {
                "fail" => Err(Error::from("it fails")),
                "panic" => panic!("on purpose"),
                "stall" => std::future::pending().await,
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

fn worker_with_guard(recorder: &Recorder, once: InMemory) -> Worker<String, String> {
    worker(recorder).0.once(once)
}

/// The messages that come again.
async fn again(worker: &Worker<String, String>, event: Value, deadline: SystemTime) -> Vec<String> {
    let response = worker.handle(event, deadline).await.unwrap().unwrap();
    let response = serde_json::to_value(response).unwrap();
    let failures = response["batchItemFailures"].as_array().unwrap().iter();
    failures.map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn exactly_those_messages_come_again_that_must() {
    // Each row: the jobs, in one group or by themselves; which come again of a standard queue, and of a FIFO queue.
    type Row = (&'static [&'static str], &'static [usize], &'static [usize]);
    let table: [Row; 9] = [
        (&["ok", "ok", "ok"], &[], &[]),
        (&["ok", "fail", "ok"], &[1], &[1, 2]),
        (&["ok", "panic", "ok"], &[1], &[1, 2]),
        (&["ok", "gone", "ok"], &[], &[]),
        (&["ok", "undecodable", "ok"], &[1], &[1, 2]),
        (&["ok", "forged", "ok"], &[1], &[1, 2]),
        (&["ok", "expired", "ok"], &[], &[]),
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
async fn groups_of_a_fifo_queue_do_not_wait_for_each_other() {
    let recorder = Recorder::new();
    let (worker, _) = worker(&recorder);
    let jobs = [("a", "ok"), ("b", "fail"), ("a", "ok"), ("b", "ok"), ("c", "panic"), ("a", "ok"), ("c", "ok")];
    assert_eq!(again(&worker, sqs(&jobs, true), soon()).await, ["m1", "m3", "m4", "m6"]);
    assert_eq!(recorder.pushes().len(), 3);
}

#[tokio::test]
async fn the_client_gets_progress_and_result_with_its_question() {
    let recorder = Recorder::new();
    let (worker, _) = worker(&recorder);
    assert!(again(&worker, sqs(&[("", "progress")], false), soon()).await.is_empty());
    let texts: Vec<String> = recorder.pushes().iter().map(|push| push.text()).collect();
    assert_eq!(
        texts,
        [r#"{"correlationId":"q0","progress":{"percent":50}}"#, r#"{"correlationId":"q0","result":"finished"}"#]
    );
    assert_eq!(recorder.pushes()[1].connection_id.as_str(), "connection-q0");
}

#[tokio::test]
async fn a_result_without_a_client_goes_to_the_hook() {
    let recorder = Recorder::new();
    Pusher::new(recorder.clone()).close(&"connection-q0".parse().unwrap()).await.unwrap();
    let (stored, unreadable) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (store, note) = (Arc::clone(&stored), Arc::clone(&unreadable));
    let worker = worker(&recorder)
        .0
        .on_unanswered(move |gone| {
            store.lock().unwrap().push((gone.correlation_id.to_string(), gone.result));
            async {}
        })
        .on_undecodable(move |undecodable| note.lock().unwrap().push(undecodable.to_string()));
    let jobs = [("", "lonely"), ("", "undecodable"), ("", "forged"), ("", "expired")];
    assert_eq!(again(&worker, sqs(&jobs, false), soon()).await, ["m1", "m2"]);
    assert_eq!(*stored.lock().unwrap(), [("q0".to_owned(), "lonely".to_owned())]);
    let mut unreadable = unreadable.lock().unwrap().clone();
    unreadable.sort();
    assert_eq!(
        unreadable,
        [
            "the message m1 is not a job: expected what the worker takes, with its address",
            "the message m2 says nowhere to answer to",
            "the message m3 says nowhere to answer to"
        ]
    );
}

#[tokio::test]
async fn a_result_that_cannot_be_delivered_comes_again() {
    let recorder = Recorder::new();
    for _ in 0..3 {
        recorder.answer(StatusCode::FORBIDDEN);
    }
    let (worker, _) = worker(&recorder);
    assert_eq!(again(&worker, sqs(&[("", "ok"), ("", "ok")], false), soon()).await, ["m0", "m1"]);
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_once_though_it_comes_twice() {
    let recorder = Recorder::new();
    let once = InMemory::new(Duration::from_secs(30), Duration::from_secs(3600));
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let worker = Worker::new(Pusher::new(recorder.clone()), keys(), move |task: Task<String>| {
        let run = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match task.job.as_str() {
                "fail first" if run == 0 => Err(Error::from("not yet")),
                job => Ok(job.to_owned()),
            }
        }
    })
    .once(once.clone());
    let event = || sqs(&[("", "fail first")], false);
    assert_eq!(again(&worker, event(), soon()).await, ["m0"], "it failed, and may be tried again");
    for _ in 0..5 {
        assert!(again(&worker, event(), soon()).await.is_empty());
    }
    assert_eq!((runs.load(Ordering::SeqCst), recorder.pushes().len()), (2, 1));

    // Whose time was up gives its claim up.
    let stalled = worker_with_guard(&recorder, once.clone());
    let deadline = SystemTime::now() + Duration::from_secs(2);
    let mut event = sqs(&[("", "ok"), ("", "stall")], false);
    event["Records"].as_array_mut().unwrap().remove(0);
    assert_eq!(again(&stalled, event, deadline).await, ["m1"]);
    let id = CorrelationId::new("q1").unwrap();
    assert_eq!(once.claim(&id).await.unwrap(), Claim::First);

    // Who died with a claim does not keep it.
    let id = CorrelationId::new("q9").unwrap();
    assert_eq!(once.claim(&id).await.unwrap(), Claim::First);
    assert_eq!(once.claim(&id).await.unwrap(), Claim::Elsewhere);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(once.claim(&id).await.unwrap(), Claim::First);
    once.answered(&id).await.unwrap();
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert_eq!(once.claim(&id).await.unwrap(), Claim::Answered);
}

#[tokio::test]
async fn jobs_come_through_sns_and_eventbridge_too() {
    let recorder = Recorder::new();
    let (worker, _) = worker(&recorder);
    let job = || body("q0", "ok");
    let sealed = address("q0").seal(&keys());
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
    let detail: Value = serde_json::from_str(&job()).unwrap();
    let sqs_attribute = json!({"replyTo": {"stringValue": sealed.as_str(), "dataType": "String"}});
    let sns_attribute = json!({"replyTo": {"Type": "String", "Value": sealed.as_str()}});
    let events = [
        in_sqs(job(), json!({})),
        in_sqs("\"ok\"".to_owned(), sqs_attribute),
        in_sqs(sns_message(job(), json!({})).to_string(), json!({})),
        in_sqs(sns_message("\"ok\"".to_owned(), sns_attribute.clone()).to_string(), json!({})),
        in_sqs(bridge(detail.clone()).to_string(), json!({})),
        sns(sns_message(job(), json!({}))),
        sns(sns_message("\"ok\"".to_owned(), sns_attribute)),
        bridge(detail),
    ];
    for (index, event) in events.into_iter().enumerate() {
        let is_sqs = event.pointer("/Records/0/eventSource").is_some();
        let response = worker.handle(event, soon()).await.unwrap();
        assert_eq!(response.is_some(), is_sqs);
        assert!(response.is_none_or(|response| response.batch_item_failures.is_empty()), "event {index}");
        assert_eq!(recorder.pushes().len(), index + 1, "event {index}");
        assert_eq!(recorder.pushes()[index].text(), r#"{"correlationId":"q0","result":"ok"}"#);
    }
    // These know no partial failure.
    let failing: Value = serde_json::from_str(&body("q0", "fail")).unwrap();
    assert_eq!(worker.handle(bridge(failing), soon()).await.unwrap_err().to_string(), "a job is not done: it fails");
    for other in
        [json!({}), json!([]), json!(null), json!({"Records": []}), json!({"Records": [{"eventSource": "aws:s3"}]})]
    {
        let error = worker.handle(other, soon()).await.unwrap_err().to_string();
        assert_eq!(error, "the event is of another kind: expected one of SQS, SNS or EventBridge");
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_jobs_run_at_a_time_as_are_allowed() {
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
            Ok::<_, Error>(())
        }
    })
    .with_concurrency(3);
    let jobs = [("", "ok"); 20];
    let response = worker.handle(sqs(&jobs, false), soon()).await.unwrap().unwrap();
    assert!(response.batch_item_failures.is_empty());
    assert_eq!(running.lock().unwrap().1, 3);
}

#[tokio::test]
async fn without_signatures_any_address_is_taken() {
    let recorder = Recorder::new();
    let worker = worker(&recorder).0.without_signatures();
    assert!(again(&worker, sqs(&[("", "forged"), ("", "ok")], false), soon()).await.is_empty());
    assert_eq!(recorder.pushes().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_read_is_not_quoted() {
    let (worker, _) = worker(&Recorder::new());
    let shown = Arc::new(Mutex::new(String::new()));
    let show = Arc::clone(&shown);
    let worker = worker.on_undecodable(move |undecodable| {
        show.lock().unwrap().push_str(&format!("{undecodable} {undecodable:?}"));
    });
    for text in ["s3cret", r#"{"replyTo":"s3cret","job":"s3cret"}"#, r#"{"replyTo":7,"job":["s3cret"]}"#, r#""s3cret""#]
    {
        let mut event = sqs(&[("", "ok")], false);
        event["Records"][0]["body"] = json!(text);
        assert_eq!(again(&worker, event, soon()).await, ["m0"]);
    }
    let shown = shown.lock().unwrap();
    assert!(shown.contains("expected JSON") && !shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn a_hook_that_panics_takes_only_its_message_with_it() {
    let recorder = Recorder::new();
    let worker = worker(&recorder).0.on_undecodable(|_| panic!("on purpose"));
    assert_eq!(again(&worker, sqs(&[("", "ok"), ("", "undecodable"), ("", "ok")], false), soon()).await, ["m1"]);
    assert_eq!(recorder.pushes().len(), 2);
}

#[test]
#[should_panic(expected = "a worker is set up before it is cloned")]
fn what_is_set_up_too_late_is_not_passed_over() {
    let (worker, _) = worker(&Recorder::new());
    let _clone = worker.clone();
    let _ = worker.without_signatures();
}
