//! The contents of logs at the most verbose level.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use lambda_websocket::authorizer::{Authorization, Authorizer, Denied};
use lambda_websocket::event::{ConnectionId, CorrelationId, InvalidId};
use lambda_websocket::route::{Error, StatusCode};
use lambda_websocket::{Connect, Json, Message, Router};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::fixture;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Starts a log at the most verbose level, until the guard is dropped.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }
}

#[tokio::test]
async fn log_lines_have_request_id_and_no_secret() {
    let (log, _guard) = Log::start();
    let router = Router::new()
        .on("$connect", |_: Connect| async {
            Err::<(), _>(Error::message("outer").with_source("x".parse::<u8>().unwrap_err()))
        })
        .on("pushtowebsocket", |_: Message<Vec<u8>>| async { Ok(Json(1)) });
    router.handle(fixture::event("connect")).await.unwrap();
    router.handle(fixture::message("pushtowebsocket", r#"{"s3cret": "s3cret"}"#)).await.unwrap();
    router.handle(fixture::message("unknown", "s3cret")).await.unwrap();
    let allow = Authorizer::new(|_| async { Authorization::allow("alice").with_context(&json!({"name": "s3cret"})) });
    allow.handle(fixture::request("authorizer")).await.unwrap();
    let deny = Authorizer::new(|_| async { Err(Denied::Unauthorized) });
    deny.handle(fixture::request("authorizer")).await.unwrap_err();

    let text = log.text();
    assert!(!text.contains("s3cret"), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    for line in &lines {
        for field in ["request_id=Kb7", "connection_id=Kb7p2d5_vHcCIhw=", "route_key="] {
            assert!(line.contains(field), "{field} in {line}");
        }
    }
    for (line, expected) in lines.iter().zip([
        "the route failed code=\"internal\" status=500 error=outer: invalid digit found in string",
        "the event was refused code=\"invalid_message\" status=400 reason=the message body is not valid for the route: \
         line 1, column 0",
        "the event was refused code=\"unknown_action\" status=404 reason=no route \"unknown\" and no `$default`",
        "the authorizer decided decision=Allow",
        "the client is not authenticated",
    ]) {
        assert!(line.ends_with(expected), "{line}");
    }
}

/// A custom error that quotes the identifier it was created from.
#[derive(Debug, thiserror::Error)]
#[error("no such room: {0}")]
struct NoSuchRoom(#[source] InvalidId);

#[tokio::test]
async fn client_error_logs_a_warning_without_client_data() {
    let (log, _guard) = Log::start();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&told);
    let router = Router::new()
        .on("$connect", |event: Connect| async move {
            CorrelationId::new(event.query("Auth").unwrap_or_default().repeat(20))?;
            Ok(())
        })
        .on("id", |event: Message<String>| async move {
            ConnectionId::new(&event.body)?;
            Ok(())
        })
        .on("body", |event: Message| async move {
            event.body.json::<Vec<u8>>()?;
            Ok(())
        })
        .on("client", |event: Message<String>| async move {
            Err::<(), _>(Error::client(StatusCode::CONFLICT, format!("there is a {} already", event.body)))
        })
        .on("source", |event: Message<String>| async move {
            let invalid = ConnectionId::new(&event.body).unwrap_err();
            Err::<(), _>(Error::client(StatusCode::NOT_FOUND, &event.body).with_source(invalid))
        })
        .on_error(move |failure| {
            hook.lock().unwrap().push(format!("{failure} | {failure:?}"));
            async {}
        });
    let mut answers = Vec::new();
    for key in ["id", "body", "client", "source"] {
        let response = router.handle(fixture::message(key, r#""my s3cret""#)).await.unwrap();
        let body: serde_json::Value = serde_json::from_str(response.text().unwrap()).unwrap();
        answers.push(format!("{} {}", response.status().as_u16(), body["error"]["message"].as_str().unwrap()));
    }
    assert_eq!(router.handle(fixture::event("connect")).await.unwrap().status(), 400);

    assert_eq!(
        answers,
        [
            "400 connection id \"my s3cret\" is not valid: expected 1 to 128 visible ASCII characters, not `.` or `..`",
            "400 invalid type: string \"my s3cret\", expected a sequence at line 1 column 11",
            "409 there is a my s3cret already",
            "404 my s3cret",
        ],
        "the client may read what it has sent"
    );
    assert_eq!(told.lock().unwrap().len(), 5, "every mistake of a client is one");
    let text = log.text() + &told.lock().unwrap().join("\n");
    assert!(!text.contains("s3cret") && !text.contains("ERROR"), "{text}");
    for (line, expected) in log.text().lines().zip([
        "the event was refused code=\"invalid_message\" status=400 reason=connection id is not valid: expected 1 to 128 visible ASCII characters, not `.` \
         or `..`",
        "the event was refused code=\"invalid_message\" status=400 reason=the message body is not valid for the route: \
         line 1, column 11",
        "the event was refused code=\"conflict\" status=409 reason=",
        "the event was refused code=\"not_found\" status=404 reason=connection id is not valid: expected 1 to 128 visible ASCII \
         characters, not `.` or `..`",
        "the event was refused code=\"invalid_message\" status=400 reason=correlation id is not valid: expected a JSON string or number of at most 64 bytes",
    ]) {
        assert!(line.contains("WARN") && line.ends_with(expected), "{line}");
    }
    assert_eq!(log.text().lines().count(), 5);
}

#[tokio::test]
async fn route_failure_does_not_log_client_identifiers() {
    let (log, _guard) = Log::start();
    let router = Router::new()
        .on("wrapped", |event: Message<String>| async move {
            Ok(ConnectionId::new(&event.body).map(drop).map_err(NoSuchRoom)?)
        })
        .fail_invocation_on_error();
    let error = router.handle(fixture::message("wrapped", r#""my s3cret""#)).await.unwrap_err();
    let text = log.text();
    let expected = "the route failed code=\"internal\" status=500 error=no such room: connection id is not valid: expected 1 to 128 visible ASCII \
                    characters, not `.` or `..`";
    assert!(text.lines().next().unwrap().contains(expected) && text.contains("ERROR"), "{text}");
    let shown = format!("{text} {error} {error:?} {}", error.chain());
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[cfg(feature = "hub")]
#[tokio::test]
async fn invalid_principal_is_not_logged() {
    use lambda_websocket::Pusher;
    use lambda_websocket::hub::{Hub, OnConnect};
    use lambda_websocket::push::Recorder;
    use lambda_websocket::registry::InMemory;

    let (log, _guard) = Log::start();
    let hub = Hub::new(InMemory::new(), Pusher::new(Recorder::new()));
    let router = Router::new().route(OnConnect::new(hub));
    let event = fixture::changed("connect", "/requestContext/authorizer/principalId", "my s3cret\n");
    let response = router.handle(lambda_websocket::Event::from_slice(&event).unwrap()).await.unwrap();
    assert_eq!(response.status(), 400);
    let text = log.text();
    assert!(text.contains("WARN") && text.contains("principal is not valid"), "{text}");
    assert!(!text.contains("s3cret") && !text.contains("ERROR"), "{text}");
}

#[cfg(feature = "worker")]
#[tokio::test]
async fn worker_does_not_log_job_contents() {
    use std::time::{Duration, SystemTime};

    use lambda_websocket::Pusher;
    use lambda_websocket::push::Recorder;
    use lambda_websocket::reply::{InMemory, Job, Keys, Task, Worker};

    let (log, _guard) = Log::start();
    let keys = Keys::new("k", [7; 32]).unwrap();
    let lambda_websocket::Event::Message(message) = fixture::event("message") else { panic!() };
    let soon = SystemTime::now() + Duration::from_secs(60);
    let address = message.reply_address().unwrap().with_expiry(soon);
    let worker = Worker::new(Pusher::new(Recorder::new()), keys.clone(), |task: Task<String>| async move {
        match task.job.as_str() {
            "my s3cret" => Err(NoSuchRoom(ConnectionId::new(&task.job).unwrap_err()).into()),
            _ => Ok("s3cret".repeat(100_000)),
        }
    })
    .with_idempotency_store(InMemory::new(Duration::from_secs(9), Duration::from_secs(99)));
    let mut addresses = String::new();
    for (job, exchanged) in [("my s3cret", false), ("large s3cret", false), ("s3cret", true)] {
        let job = Job::seal(job, &address, &keys).unwrap();
        addresses.push_str(job.reply_to().as_str());
        let job = if exchanged { Job::from_parts(job.reply_to().clone(), "\"s3cret\"  ") } else { job };
        let record = json!({"messageId": "m", "body": serde_json::to_string(&job).unwrap(), "eventSource": "aws:sqs",
            "attributes": {}, "messageAttributes": {}});
        worker.handle(json!({"Records": [record]}), soon).await.unwrap();
    }
    let text = log.text();
    assert!(!text.contains("s3cret"), "{text}");
    assert!(text.lines().all(|line| !addresses.contains(line.rsplit(' ').next().unwrap())), "{text}");
    for expected in [
        "WARN the message is retried message_id=m reason=no such room: connection id is not valid",
        "ERROR job{message_id=\"m\" request_id=Kb7qAF22PHcEdGg= connection_id=Kb7p2d5_vHcCIhw=}: the result cannot be delivered error=the payload has",
        "ERROR the message was rejected reason=the message m has no address to reply to: the reply address was sealed with",
    ] {
        let words = |text: &str| {
            text.split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .replace("lambda_websocket::reply::worker::batch: ", "")
                .replace("lambda_websocket::reply::worker::work: ", "")
        };
        assert!(words(&text).contains(expected), "{expected} in {text}");
    }
}

#[cfg(feature = "worker")]
#[tokio::test]
async fn warnings_carry_job_and_request_ids_without_info_level() {
    use lambda_websocket::Pusher;
    use lambda_websocket::push::Recorder;
    use lambda_websocket::reply::{Task, Worker};

    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(log.clone()).finish());
    let worker = Worker::new(Pusher::new(Recorder::new()), crate::worker::keys(), |_: Task<String>| async {
        Err::<(), _>(Error::client(StatusCode::CONFLICT, "sold out"))
    });
    worker.handle(crate::worker::sqs(&[("", "buy")], false), crate::worker::soon()).await.unwrap();
    let router = Router::new().on("say", |_: Message| async { Err::<(), _>(Error::message("no database")) });
    router.handle(fixture::message("say", "hello")).await.unwrap();
    let text = log.text();
    for expected in ["message_id=\"m0\"", "the job was refused", "request_id=Kb7qAF22PHcEdGg=", "the route failed"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[cfg(feature = "local")]
#[tokio::test]
async fn verbose_gateway_logs_each_problem_once() {
    use lambda_websocket::local::Gateway;

    let (log, _guard) = Log::start();
    let refused = async |builder: lambda_websocket::local::GatewayBuilder| {
        let gateway =
            builder.router(Router::new().on("$connect", |_: Connect| async { Err::<(), _>(Error::message("no")) }));
        let gateway = gateway.start().await.unwrap();
        gateway.connect("").await.unwrap_err();
        gateway.shutdown().await;
    };
    let warnings = || log.text().lines().filter(|line| line.contains("WARN lambda_websocket::local")).count();
    refused(Gateway::builder("dev")).await;
    let quiet = warnings();
    assert!(quiet > 0, "{}", log.text());
    refused(Gateway::builder("dev").verbose()).await;
    assert_eq!(warnings(), quiet, "{}", log.text());
}

#[tokio::test]
async fn subprotocol_token_is_not_logged() {
    use lambda_websocket::authorizer::Request;
    use lambda_websocket::{Event, Response};

    let (log, _guard) = Log::start();
    let offering = |name: &str| {
        let mut event = fixture::json(name);
        event["headers"]["Sec-WebSocket-Protocol"] = "chat.v1, bearer.s3cret".into();
        event["multiValueHeaders"]["Sec-WebSocket-Protocol"] = json!(["chat.v1, bearer.s3cret"]);
        serde_json::to_vec(&event).unwrap()
    };
    for selected in ["chat.v2", "bearer.s3cret-too"] {
        let router =
            Router::new().on("$connect", move |_: Connect| async move { Ok(Response::ok().subprotocol(selected)) });
        let response = router.handle(Event::from_slice(&offering("connect")).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let authorizer = Authorizer::new(|request: Request| async move {
        assert_eq!(request.query_string().get_all("Auth").count(), 1);
        request.token("Auth").map(Authorization::allow)
    });
    let _ = authorizer.handle(Request::from_slice(&offering("authorizer")).unwrap()).await;
    let text = log.text();
    assert!(text.contains("selects the subprotocol \"chat.v2\""), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}
