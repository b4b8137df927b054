//! Parsing sealed reply addresses, and the events that deliver jobs.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_websocket::Pusher;
use lambda_websocket::push::Recorder;
use lambda_websocket::reply::{Job, Keys, ReplyAddress, SealedAddress, Task, Worker};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::new("k", [7; 32]).expect("a key"));
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));

fuzz_target!(|input: (&str, &str, bool)| {
    let (text, body, is_signed) = input;
    let sealed = SealedAddress::from(text.to_owned());
    let job = Job::from_parts(sealed.clone(), body);
    assert!(job.open(&KEYS, UNIX_EPOCH).is_err(), "a signature was guessed");
    assert!(sealed.open_unbound(&KEYS, UNIX_EPOCH).is_err(), "a signature was guessed");
    if let Ok(address) = sealed.open_unchecked(UNIX_EPOCH) {
        let says = |address: &ReplyAddress| {
            let (id, endpoint) = (address.connection_id().clone(), address.endpoint().clone());
            (id, endpoint, address.correlation_id().clone(), address.expires_at(), address.connecting_since())
        };
        let unbound = address.seal_unbound(&KEYS);
        let again = unbound.open_unbound(&KEYS, UNIX_EPOCH).expect("what was opened can be sealed");
        assert_eq!(says(&again), says(&address));
        assert!(unbound.open_for(body, &KEYS, UNIX_EPOCH).is_err(), "an unbound address belongs to no job");
        let bound = Job::seal(body, &address, &KEYS).expect("a text is JSON");
        assert_eq!(says(&bound.open(&KEYS, UNIX_EPOCH).expect("it is this job")), says(&address));
        assert!(bound.json() == text || bound.reply_to().open_for(text, &KEYS, UNIX_EPOCH).is_err(), "another job");
        assert_ne!(again.idempotency_key(), address.idempotency_key(), "each sealed address is a job of its own");
    }
    let worker = Worker::new(Pusher::new(Recorder::new()), KEYS.clone(), |task: Task<Value>| async move { Ok(task.job) });
    let worker = if is_signed { worker } else { worker.without_signatures() };
    let record = json!({"messageId": "m", "body": body, "eventSource": "aws:sqs", "attributes": {}, "messageAttributes": {}});
    let attribute = json!({"replyTo": {"stringValue": text, "dataType": "String"}});
    let mut with_attribute = record.clone();
    with_attribute["messageAttributes"] = attribute;
    let deadline = SystemTime::now() + Duration::from_secs(60);
    let mut events = vec![json!({"Records": [record, with_attribute]})];
    events.extend(serde_json::from_str::<Value>(body).ok());
    for event in events {
        let _ = RUNTIME.block_on(worker.handle(event, deadline)).map_err(|error| error.to_string());
    }
});
