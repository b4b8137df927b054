//! From the queue back to the requesting client, with moto's SQS and the examples as processes.
//! `tests/interop/emulators` installs moto and runs these tests.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client as Sqs;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::tls;
use lambda_websocket::local::{Client, ClientError, Fault, Function, Gateway, Process, When};
use lambda_websocket::reply::{Claim, DynamoDb, IdempotencyStore as _, LeaseOwner};
use serde_json::{Value, json};

use crate::emulators::{Running, dynamodb_local, free_port, tool, until_it_listens};
use crate::function::built;

const REPLY_KEY: &str = "a key for tests, which has 32 bytes at least";
const CLIENTS: usize = 50;
const QUESTIONS: u64 = 20;
/// How many workers are killed while they work.
const KILLS: usize = 10;
/// How many clients disconnect before they receive their results.
const LEAVE: usize = 10;

fn sqs(endpoint: &str) -> Sqs {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("any", "any", None, None, "test"))
        .endpoint_url(endpoint);
    Sqs::from_conf(config.build())
}

/// Acts as Lambda's event source mapping: receives a batch, invokes the function, and deletes the messages that did not
/// fail. Returns whether the worker finished before it was killed.
async fn poll(sqs: &Sqs, queue: &str, worker: &Function, deliveries: &AtomicUsize, killed_after: Duration) -> bool {
    let Ok(taken) = sqs.receive_message().queue_url(queue).max_number_of_messages(10).wait_time_seconds(1).send().await
    else {
        return true;
    };
    let messages = taken.messages();
    if messages.is_empty() {
        return true;
    }
    let count = deliveries.fetch_add(messages.len(), Ordering::SeqCst);
    let records: Vec<Value> = messages
        .iter()
        .map(|message| {
            json!({"messageId": message.message_id(), "receiptHandle": message.receipt_handle(), "body": message.body(),
                "attributes": {}, "messageAttributes": {}, "eventSource": "aws:sqs", "awsRegion": "us-east-1",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:jobs"})
        })
        .collect();
    let event = json!({"Records": records}).to_string().into_bytes();
    // If the worker dies or times out, the whole batch is retried.
    let answer = match tokio::time::timeout(killed_after, worker.call(event, Duration::from_secs(20))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => return true,
        Err(_) => return false,
    };
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let failed: Vec<&str> = answer["batchItemFailures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| failure["itemIdentifier"].as_str().unwrap())
        .collect();
    for (index, message) in messages.iter().enumerate() {
        // Occasionally a message is delivered a second time after it was completed.
        let comes_twice = (count + index).is_multiple_of(17);
        if !comes_twice && !failed.contains(&message.message_id().unwrap()) {
            let handle = message.receipt_handle().unwrap();
            let _ = sqs.delete_message().queue_url(queue).receipt_handle(handle).send().await;
        }
    }
    true
}

/// The frames that one client has received.
#[derive(Default)]
struct Got {
    /// Results by the correlation id in the acknowledgement.
    results: BTreeMap<String, Vec<u64>>,
    progress: usize,
    expected: BTreeMap<String, u64>,
}

/// Sends requests, and collects incoming frames until each request is acknowledged.
async fn ask(client: &mut Client, number: u64) -> Result<Got, ClientError> {
    let mut got = Got::default();
    for question in 0..QUESTIONS {
        let sum = number * 1000 + question;
        client.send_json(&json!({"action": "sum", "numbers": [sum, 1, 2]})).await?;
        loop {
            let frame = client.next_json().await?;
            if !take(&mut got, &frame) {
                got.expected.insert(frame["id"].as_str().unwrap().to_owned(), sum + 3);
                break;
            }
        }
    }
    Ok(got)
}

/// Records a progress frame or a result; returns `false` for any other frame.
fn take(got: &mut Got, frame: &Value) -> bool {
    let id = frame["id"].as_str().unwrap_or_else(|| panic!("{frame}")).to_owned();
    if let Some(result) = frame.get("result") {
        got.results.entry(id).or_default().push(result.as_u64().unwrap());
        return true;
    }
    if frame.get("progress").is_some() {
        got.progress += 1;
        return true;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs moto: run tests/interop/emulators"]
async fn a_thousand_jobs_reply_to_their_own_clients() {
    let port = free_port();
    let mut moto = Command::new(tool("MOTO_SERVER"));
    moto.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _moto = Running(moto.spawn().unwrap());
    until_it_listens(port).await;
    let endpoint = format!("http://127.0.0.1:{port}");
    let sqs = sqs(&endpoint);
    let queue = sqs.create_queue().queue_name("jobs").attributes("VisibilityTimeout".into(), "3").send().await.unwrap();
    let queue = queue.queue_url().unwrap().to_owned();

    let answers = DynamoDb::with_endpoint_url("idempotency", &endpoint).await;
    answers.create_table().await.unwrap();
    answers.create_table().await.expect("it is there already");

    let gateway = Gateway::builder("dev").bind(("127.0.0.1", 0)).unwrap();
    let environment = |process: Process| {
        process
            // A busy machine must not kill a worker; the test does that itself.
            .timeout(Duration::from_secs(29))
            .env("AWS_ENDPOINT_URL_SQS", &endpoint)
            .env("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", gateway.endpoint().unwrap().to_string())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .env("AWS_ENDPOINT_URL_DYNAMODB", &endpoint)
            .env("QUEUE_URL", &queue)
            .env("IDEMPOTENCY_TABLE", "idempotency")
            .env("IDEMPOTENCY_LEASE", "4")
            .env("REPLY_KEY", REPLY_KEY)
    };
    let enqueue = Function::process(environment(Process::new("enqueue", built("enqueue")).instances(2)));
    let worker = environment(Process::new("worker", built("worker")).instances(2));
    let gateway = gateway.function(["sum"], enqueue).route_response("sum").seed(5).start().await.unwrap();

    let (is_over, deliveries, kills) =
        (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::new(AtomicUsize::new(0)));
    let pollers: Vec<_> = (0..2)
        .map(|number| {
            let (sqs, queue, worker) = (sqs.clone(), queue.clone(), worker.clone());
            let (is_over, deliveries, kills) =
                (Arc::clone(&is_over), Arc::<AtomicUsize>::clone(&deliveries), Arc::clone(&kills));
            tokio::spawn(async move {
                let function = Function::process(worker);
                let (never, mut batches) = (Duration::from_secs(3600), 0_usize);
                while !is_over.load(Ordering::SeqCst) {
                    batches += 1;
                    // The process is killed half-way through a batch.
                    let dies = batches % 8 == 4 + number && kills.load(Ordering::SeqCst) < KILLS;
                    let killed_after = if dies { Duration::from_millis(20) } else { never };
                    if !poll(&sqs, &queue, &function, &deliveries, killed_after).await {
                        kills.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();

    let gateway = Arc::new(gateway);
    gateway.inject(Fault::PostThrottled, When::Sometimes(0.02));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let mut client = gateway.connect("").await.unwrap().with_timeout(Duration::from_secs(60));
                let mut got = ask(&mut client, number as u64).await.unwrap();
                if number < LEAVE {
                    drop(client);
                    return None;
                }
                let start = Instant::now();
                while got.results.len() < got.expected.len() && start.elapsed() < Duration::from_secs(120) {
                    let frame = client.next_json().await.unwrap();
                    assert!(take(&mut got, &frame), "{frame}");
                }
                // Duplicates would arrive soon.
                let mut client = client.with_timeout(Duration::from_secs(8));
                while let Ok(frame) = client.next_json().await {
                    assert!(take(&mut got, &frame), "{frame}");
                }
                Some(got)
            })
        })
        .collect();
    let (mut answered, mut twice, mut progress) = (0, 0, 0);
    for client in clients {
        let Some(got) = client.await.unwrap() else { continue };
        for (id, expected) in &got.expected {
            let results = got.results.get(id).unwrap_or_else(|| panic!("{id} is lost"));
            assert!(results.iter().all(|result| result == expected), "{id}: {results:?} instead of {expected}");
            answered += 1;
            twice += results.len() - 1;
        }
        assert_eq!(got.results.len(), got.expected.len(), "a result that was another's");
        progress += got.progress;
    }
    is_over.store(true, Ordering::SeqCst);
    for poller in pollers {
        poller.await.unwrap();
    }
    let (deliveries, kills) = (deliveries.load(Ordering::SeqCst), kills.load(Ordering::SeqCst));
    println!(
        "{answered} answered, {twice} of them twice, {progress} progresses, {deliveries} deliveries, {kills} workers killed"
    );
    assert_eq!(answered, (CLIENTS - LEAVE) * QUESTIONS as usize);
    assert!(kills >= 3, "{kills} workers were killed");
    assert!(deliveries > CLIENTS * QUESTIONS as usize);
    let left = sqs.receive_message().queue_url(&queue).wait_time_seconds(5).send().await.unwrap();
    println!("{} messages left in the queue", left.messages().len());
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/interop/emulators"]
async fn table_store_grants_one_lease_on_dynamodb_local() {
    // AWS's own DynamoDB Local, since moto lets two concurrent conditional writes succeed.
    let local = dynamodb_local().await;
    let lease = Duration::from_secs(2);
    let store = async || DynamoDb::with_endpoint_url("idempotency", &local.url).await.with_lease(lease);
    crate::idempotency::a_store_tells_whose_job_it_is(&store().await, async || {
        tokio::time::sleep(lease + Duration::from_secs(1)).await;
    })
    .await;
    // Of many concurrent callers, exactly one acquires the lease.
    let key = crate::idempotency::key("rush");
    let owners: Vec<LeaseOwner> = (0..20).map(|_| LeaseOwner::random()).collect();
    let claims = owners.iter().map(async |owner| store().await.acquire(&key, owner).await.unwrap());
    let claims = futures_util::future::join_all(claims).await;
    assert_eq!(claims.into_iter().filter(|claim| *claim == Claim::Acquired).count(), 1);
}
