//! What the client of a failing job receives.

use lambda_websocket::Pusher;
use lambda_websocket::push::Recorder;
use lambda_websocket::reply::{InMemory, Task, Worker};
use lambda_websocket::route::{Error, ErrorCode};
use serde_json::{Value, json};
use std::time::Duration;

use super::{keys, soon, sqs};

/// Returns a worker with three deliveries, whose jobs say when they succeed.
fn worker(recorder: &Recorder) -> Worker<String, String> {
    Worker::new(Pusher::new(recorder.clone()), keys(), |task: Task<String>| async move {
        match (task.job.as_str(), task.receive_count()) {
            ("refused", _) => Err(Error::client(ErrorCode::CONFLICT, "taken")),
            ("second", Some(2)) | ("done", _) => Ok("done".to_owned()),
            ("large", _) => Ok("x".repeat(200_000)),
            ("panic", _) => panic!("on purpose"),
            ("killed", _) => std::future::pending().await,
            _ => Err("not yet".into()),
        }
    })
    .with_max_receive_count(3)
}

async fn deliver<T, R>(worker: &Worker<T, R>, event: &Value, count: u32) -> usize
where
    T: serde::de::DeserializeOwned + Send + Sync + 'static,
    R: serde::Serialize + Send + Sync + 'static,
{
    let mut event = event.clone();
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = json!(count.to_string());
    worker.handle(event, soon()).await.unwrap().unwrap().batch_item_failures.len()
}

fn told(recorder: &Recorder) -> Vec<Value> {
    recorder.pushes().iter().map(|push| serde_json::from_str(&push.text()).unwrap()).collect()
}

#[tokio::test]
async fn client_gets_one_reply_for_refused_failed_or_retried_jobs() {
    let internal = json!({"id": "q0", "error": {"code": "internal", "message": "Internal server error"}});
    let refused = json!({"id": "q0", "error": {"code": "conflict", "message": "taken"}});
    for (job, failures, expected) in [
        ("refused", vec![0], refused),
        ("second", vec![1, 0], json!({"id": "q0", "result": "done"})),
        ("never", vec![1, 1, 1], internal.clone()),
        ("panic", vec![1, 1, 1], internal.clone()),
    ] {
        let recorder = Recorder::new();
        let store = InMemory::new(Duration::from_secs(30), Duration::from_secs(3600));
        let worker = worker(&recorder).with_idempotency_store(store.clone());
        let event = sqs(&[("", job)], false);
        for (count, failed) in (1..).zip(&failures) {
            assert_eq!(deliver(&worker, &event, count).await, *failed, "{job}, delivery {count}");
        }
        assert_eq!(told(&recorder), std::slice::from_ref(&expected), "{job}");
        // The dead-letter queue's function shares the store, and does not send a second reply.
        let dead = Worker::dead_letters(Pusher::new(recorder.clone()), keys()).with_idempotency_store(store);
        assert_eq!(deliver(&dead, &event, 1).await, 0);
        assert_eq!(told(&recorder), [expected], "{job}");
    }
}

#[tokio::test]
async fn dead_letter_queue_replies_for_a_killed_worker() {
    let recorder = Recorder::new();
    let event = sqs(&[("", "killed")], false);
    let worker = worker(&recorder);
    assert!(tokio::time::timeout(Duration::from_millis(20), deliver(&worker, &event, 3)).await.is_err());
    assert!(told(&recorder).is_empty());
    let dead = Worker::dead_letters(Pusher::new(recorder.clone()), keys());
    assert_eq!(deliver(&dead, &event, 1).await, 0);
    assert_eq!(told(&recorder)[0]["error"]["code"], "internal");
}

#[tokio::test]
async fn jobs_after_an_abandoned_job_run_and_reply() {
    let recorder = Recorder::new();
    let worker = worker(&recorder);
    let mut event = sqs(&[("room", "never"), ("room", "done"), ("room", "never"), ("room", "done")], true);
    let mut deliver = async |count: u32| {
        for record in event["Records"].as_array_mut().unwrap() {
            record["attributes"]["ApproximateReceiveCount"] = json!(count.to_string());
        }
        worker.handle(event.clone(), soon()).await.unwrap().unwrap().batch_item_failures.len()
    };
    assert_eq!(deliver(2).await, 4, "what follows a job that is retried waits for it");
    assert!(told(&recorder).is_empty());
    assert_eq!(deliver(3).await, 2, "what is given up goes to the dead-letter queue");
    let told = told(&recorder);
    let ids: Vec<&Value> = told.iter().map(|frame| &frame["id"]).collect();
    assert_eq!(ids, ["q0", "q1", "q2", "q3"]);
    assert!(told[0].get("error").is_some() && told[1]["result"] == "done" && told[3]["result"] == "done");
}

#[tokio::test]
async fn oversized_result_sends_one_error_despite_failing_push_or_hook() {
    let recorder = Recorder::new();
    let worker = worker(&recorder).on_undelivered(|_| async { panic!("on purpose") });
    let event = sqs(&[("", "large")], false);
    recorder.answer(http::StatusCode::FORBIDDEN);
    assert_eq!(deliver(&worker, &event, 1).await, 1, "nobody has heard of it");
    assert!(told(&recorder).is_empty());
    assert_eq!(deliver(&worker, &event, 2).await, 0, "the hook has panicked, and the client knows");
    let told = told(&recorder);
    assert_eq!((told.len(), &told[0]["error"]["code"]), (1, &json!("too_large")));
}

#[tokio::test]
async fn job_errors_are_mapped_and_reach_the_hook() {
    use std::sync::{Arc, Mutex};

    let (recorder, heard) = (Recorder::new(), Arc::new(Mutex::new(Vec::new())));
    let hook = Arc::clone(&heard);
    let worker = Worker::new(Pusher::new(recorder.clone()), keys(), |task: Task<String>| async move {
        let number: u8 = task.job.parse()?;
        Ok(number)
    })
    .map_error(|_: &std::num::ParseIntError| Some(Error::client(ErrorCode::INVALID_MESSAGE, "send a number")))
    .on_error(move |failure| {
        hook.lock().unwrap().push(format!("{failure:?}"));
        async {}
    });
    assert_eq!(deliver(&worker, &sqs(&[("", "many")], false), 1).await, 0, "it is the client's mistake");
    let expected = json!({"id": "q0", "error": {"code": "invalid_message", "message": "send a number"}});
    assert_eq!(told(&recorder), [expected]);
    assert_eq!(heard.lock().unwrap().len(), 1);
    assert_eq!(deliver(&worker, &sqs(&[("", "7")], false), 1).await, 0);
    assert_eq!(told(&recorder)[1], json!({"id": "q0", "result": 7}));
}
