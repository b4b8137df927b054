//! The local gateway over real sockets. The unit tests of `local::rules` cover the rules without sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use lambda_websocket::authorizer::{Authorization, Denied, Request};
use lambda_websocket::event::ConnectionId;
use lambda_websocket::local::{Client, ClientError, Function, FunctionError, Gateway, StartError};
use lambda_websocket::push::PushError;
use lambda_websocket::route::{Error, StatusCode};
use lambda_websocket::{Connect, Disconnect, Json, Message, Response, Router};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub mod child;
mod clock;
mod deflate;
mod effects;
mod load;
mod processes;
mod raw;
mod shutdown;
mod timeline;

#[path = "../../examples/local.rs"]
#[allow(dead_code, reason = "it has its own `main`")]
pub mod example;

pub const KEY: &[u8] = b"a key for tests, which has 32 bytes at least";

fn token() -> String {
    example::token(KEY, Duration::from_secs(60)).unwrap()
}

/// Returns a router that reports its events to the test.
fn observed() -> (Router, mpsc::UnboundedReceiver<String>) {
    let (seen, events) = mpsc::unbounded_channel();
    let (connected, disconnected) = (seen.clone(), seen);
    let router = Router::new()
        .on("$connect", move |event: Connect| {
            let _ = connected.send(format!("connect {}", event.connection_id()));
            async { Ok(()) }
        })
        .on("$disconnect", move |event: Disconnect| {
            let code = event.status_code().unwrap_or_default();
            let _ = disconnected.send(format!("disconnect {} {code} {}", event.connection_id(), event.reason()));
            async { Ok(()) }
        })
        .on("whoami", |event: Message| async move { Ok(Json(event.connection_id().clone())) });
    (router, events)
}

async fn next(events: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(Duration::from_secs(5), events.recv()).await.expect("an event comes").unwrap()
}

async fn whoami(client: &mut Client) -> ConnectionId {
    client.send_json(&json!({"action": "whoami"})).await.unwrap();
    serde_json::from_value(client.next_json().await.unwrap()).unwrap()
}

#[tokio::test]
async fn the_four_functions_run() {
    let gateway = example::start(0, KEY).await.unwrap();
    let mut client = gateway.connect(&format!("?Auth={}", token())).await.unwrap();
    client.send_json(&json!({"action": "pushtowebsocket", "message": "hello"})).await.unwrap();
    assert_eq!(client.next_json().await.unwrap(), json!({"echoed": "hello"}));
    client.close(1000, "bye").await.unwrap();
    gateway.shutdown().await;
}

#[tokio::test]
async fn aut_3_and_5_refused_client_gets_the_status() {
    let gateway = example::start(0, KEY).await.unwrap();
    let sign =
        |header: &Header, key: &[u8], claims: Value| encode(header, &claims, &EncodingKey::from_secret(key)).unwrap();
    let later = 4_102_444_800_u64;
    let good = json!({"sub": "alice", "org": 7, "exp": later});
    let hs256 = Header::default();
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhbGljZSIsIm9yZyI6NywiZXhwIjo0MTAyNDQ0ODAwfQ.";
    let token = token();
    for (query, status) in [
        (String::new(), 401),
        ("?Auth=".to_owned(), 401),
        (format!("?auth={token}"), 401),
        (format!("?Auth={token}&Auth={token}"), 401),
        ("?Auth=nonsense".to_owned(), 403),
        (format!("?Auth={token}x"), 403),
        (format!("?Auth={unsigned}"), 403),
        (format!("?Auth={}", sign(&hs256, b"another key, also of 32 bytes and more", good.clone())), 403),
        (format!("?Auth={}", sign(&Header::new(Algorithm::HS384), KEY, good.clone())), 403),
        (format!("?Auth={}", sign(&hs256, KEY, json!({"sub": "alice", "org": 7, "exp": 1}))), 403),
        (format!("?Auth={}", sign(&hs256, KEY, json!({"sub": "alice", "org": 7}))), 403),
        (format!("?Auth={}", sign(&hs256, KEY, json!({"org": 7, "exp": later}))), 403),
        (format!("?Auth={}", sign(&hs256, KEY, json!({"sub": "", "org": 7, "exp": later}))), 500),
    ] {
        let error = gateway.connect(&query).await.unwrap_err();
        assert_eq!(error.status(), Some(status), "{query}: {error}");
    }
    // The gateway decodes percent-encoding exactly once.
    let encoded: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
    gateway.connect(&format!("?Auth={encoded}")).await.unwrap();
}

#[tokio::test]
async fn con_2_connect_status_is_the_handshake_status() {
    let router = Router::new().on("$connect", |event: Connect| async move {
        match event.query("status") {
            Some("panic") => panic!("on purpose"),
            Some("error") => Err(Error::message("on purpose")),
            Some(status) => Ok(Response::new(StatusCode::from_bytes(status.as_bytes())?)),
            None => Ok(Response::ok()),
        }
    });
    let failing = router.clone().fail_invocation_on_error();
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    for status in [301, 400, 401, 403, 404, 500, 501] {
        let error = gateway.connect(&format!("?status={status}")).await.unwrap_err();
        assert_eq!(error.status(), Some(status));
    }
    for error in ["?status=panic", "?status=error"] {
        assert_eq!(gateway.connect(error).await.unwrap_err().status(), Some(500), "the router answers");
    }
    for status in ["", "?status=200", "?status=204"] {
        gateway.connect(status).await.unwrap();
    }
    // CON-3: a failing function differs from one that refuses.
    let gateway = Gateway::builder("dev").router(failing).start().await.unwrap();
    assert_eq!(gateway.connect("?status=panic").await.unwrap_err().status(), Some(502));
}

#[tokio::test]
async fn con_5_function_negotiates_the_subprotocol() {
    let router = Router::new().on("$connect", |event: Connect| async move {
        Ok(match event.subprotocols().find(|offered| *offered == "chat.v1") {
            Some(known) => Response::ok().subprotocol(known),
            None => Response::ok(),
        })
    });
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    let offer = [("Sec-WebSocket-Protocol", "chat.v2, chat.v1")];
    let client = gateway.connect_with("", &offer).await.unwrap();
    assert_eq!(client.subprotocol(), Some("chat.v1"));
    let client = gateway.connect("").await.unwrap();
    assert_eq!(client.subprotocol(), None);
}

#[tokio::test]
async fn evt_11_header_names_keep_their_case() {
    let echo = Function::new(|_, event| async move {
        let event: Value = serde_json::from_slice(&event).unwrap();
        let names: Vec<&String> = event["headers"].as_object().unwrap().keys().collect();
        // A failure here fails the handshake, so the test notices it.
        let _ = NAMES.set(names.into_iter().cloned().collect());
        Ok::<_, FunctionError>(br#"{"statusCode":403}"#.to_vec())
    });
    static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let gateway = Gateway::builder("dev").function(["$connect"], echo).start().await.unwrap();

    // A hand-written request, since client libraries normalize the case of header names.
    let address = gateway.address();
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET /dev HTTP/1.1\r\nHOST: {address}\r\nconnection: Upgrade\r\nUpgrade: websocket\r\nX-mIxEd: 1\r\n\
             Sec-WebSocket-Version: 13\r\nsec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8(status.to_vec()).unwrap()
    });
    assert_eq!(answer.await.unwrap(), "HTTP/1.1 403");
    let sent = ["HOST", "Sec-WebSocket-Version", "X-mIxEd", "sec-websocket-KEY"];
    let added = ["X-Amzn-Trace-Id", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"];
    let mut expected: Vec<&str> = sent.iter().chain(&added).copied().collect();
    expected.sort_unstable();
    assert_eq!(NAMES.get().unwrap(), &expected);
}

#[tokio::test]
async fn rte_4_unmatched_message_gets_forbidden_and_stays_connected() {
    let gateway = Gateway::builder("dev").router(observed().0).route_response("whoami").start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    let id = whoami(&mut client).await;
    for text in ["hello", "{}", r#"{"action":"none"}"#, r#"{"action":"$connect"}"#, r#"{"action":"$disconnect"}"#] {
        client.send_text(text).await.unwrap();
        let frame = client.next_text().await.unwrap();
        let start = format!(r#"{{"message": "Forbidden", "connectionId":"{id}", "requestId":""#);
        assert!(frame.starts_with(&start), "{frame}");
        assert_eq!(frame.len(), start.len() + 16 + 2);
    }
}

#[tokio::test]
async fn msg_1_to_3_client_receives_route_response_or_error() {
    let router = Router::new()
        .on("one", |_: Message| async { Ok(Json("unseen")) })
        .on("two", |_: Message| async { Ok(Response::new(StatusCode::BAD_REQUEST).body("seen, whatever the status")) })
        .on("empty", |_: Message| async { Ok(()) })
        .on("fail", |_: Message| async { Err::<(), _>(Error::message("on purpose")) })
        .on("panic", |_: Message| async { if true { panic!("on purpose") } else { Ok(()) } })
        .fail_invocation_on_error();
    let malformed = Function::new(|_, _| async { Ok::<_, FunctionError>(b"null".to_vec()) });
    let gateway = Gateway::builder("dev")
        .router(router)
        .function(["malformed"], malformed)
        .route_response("two")
        .route_response("empty")
        .start()
        .await
        .unwrap();
    let mut client = gateway.connect("").await.unwrap();
    client.send_json(&json!({"action": "one"})).await.unwrap();
    client.send_json(&json!({"action": "empty"})).await.unwrap();
    assert_eq!(client.next_text().await.unwrap(), "", "a frame also without a body");
    client.send_json(&json!({"action": "two"})).await.unwrap();
    assert_eq!(client.next_text().await.unwrap(), "seen, whatever the status");
    for broken in ["fail", "panic", "malformed"] {
        client.send_json(&json!({"action": broken})).await.unwrap();
        assert_eq!(client.next_json().await.unwrap()["message"], "Internal server error", "{broken}");
    }
    client.send_json(&json!({"action": "two"})).await.unwrap();
    assert_eq!(client.next_text().await.unwrap(), "seen, whatever the status");
}

#[tokio::test]
async fn msg_4_timed_out_function_keeps_running() {
    let (done, mut ended) = mpsc::unbounded_channel();
    let (go, gate) = tokio::sync::watch::channel(false);
    let router = Router::new().on("slow", move |_: Message| {
        let (done, mut gate) = (done.clone(), gate.clone());
        async move {
            gate.wait_for(|open| *open).await?;
            done.send("ended".to_owned())?;
            Ok(Json("too late"))
        }
    });
    let limit = Duration::from_millis(50);
    let gateway =
        Gateway::builder("dev").router(router).route_response("slow").integration_timeout(limit).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    client.send_json(&json!({"action": "slow"})).await.unwrap();
    assert_eq!(client.next_json().await.unwrap()["message"], "Endpoint request timed out");
    go.send(true).unwrap();
    assert_eq!(next(&mut ended).await, "ended");
    let mut quiet = client.with_timeout(Duration::from_millis(100));
    assert!(matches!(quiet.next_text().await, Err(ClientError::TimedOut { .. })), "its answer is not awaited");
}

#[tokio::test]
async fn evt_15_disconnect_event_has_close_code_and_reason() {
    let (router, mut events) = observed();
    let gateway = Gateway::builder("dev").router(router).route_response("whoami").start().await.unwrap();
    let pusher = gateway.pusher();

    let mut client = gateway.connect("").await.unwrap();
    let id = whoami(&mut client).await;
    assert_eq!(next(&mut events).await, format!("connect {id}"));
    client.close(4000, "enough").await.unwrap();
    assert_eq!(next(&mut events).await, format!("disconnect {id} 4000 enough"));

    let mut client = gateway.connect("").await.unwrap();
    let id = whoami(&mut client).await;
    let _ = next(&mut events).await;
    drop(client);
    assert_eq!(next(&mut events).await, format!("disconnect {id} 1006 "));

    let mut client = gateway.connect("").await.unwrap();
    let id = whoami(&mut client).await;
    let _ = next(&mut events).await;
    pusher.close(&id).await.unwrap();
    assert_eq!(client.closed().await.unwrap(), (1000, String::new()));
    assert_eq!(next(&mut events).await, format!("disconnect {id} 1000 Connection Closed Normally"));
    assert!(matches!(pusher.send_text(&id, "late").await, Err(PushError::Gone { .. })));
}

#[tokio::test]
async fn lim_8_connection_is_removed_when_its_close_frame_is_read() {
    let gateway = Gateway::builder("dev").router(observed().0).route_response("whoami").start().await.unwrap();
    let pusher = gateway.pusher();
    for _ in 0..100 {
        let mut client = gateway.connect("").await.unwrap();
        let id = whoami(&mut client).await;
        client.close(1000, "").await.unwrap();
        assert!(matches!(pusher.send_text(&id, "late").await, Err(PushError::Gone { .. })));
    }
}

#[tokio::test]
async fn evt_15_client_that_leaves_during_the_handshake_is_disconnected() {
    let (seen, mut events) = mpsc::unbounded_channel();
    let (go, gate) = tokio::sync::watch::channel(false);
    let (asked, gone) = (seen.clone(), seen);
    let router = Router::new()
        .on("$connect", move |_: Connect| {
            let (asked, mut gate) = (asked.clone(), gate.clone());
            async move {
                asked.send("asked".to_owned())?;
                gate.wait_for(|open| *open).await?;
                Ok(())
            }
        })
        .on("$disconnect", move |event: Disconnect| {
            let _ = gone.send(format!("{:?} {:?}", event.status_code(), event.reason()));
            async { Ok(()) }
        });
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    {
        let mut connecting = std::pin::pin!(gateway.connect(""));
        tokio::select! {
            _ = &mut connecting => panic!("nobody has let it in"),
            event = next(&mut events) => assert_eq!(event, "asked"),
        }
    }
    // The gateway detects the disconnect first, and receives the response of `$connect` afterwards.
    tokio::time::sleep(Duration::from_millis(100)).await;
    go.send(true).unwrap();
    assert_eq!(next(&mut events).await, "Some(1006) \"\"");
    gateway.shutdown().await;
}

#[tokio::test]
async fn lim_1_and_2_oversized_or_binary_message_closes_the_connection() {
    let (router, mut events) = observed();
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    let mut allowed = gateway.connect("").await.unwrap();
    allowed.send_text("x".repeat(32 * 1024)).await.unwrap();
    assert_eq!(allowed.next_json().await.unwrap()["message"], "Forbidden");

    let mut large = gateway.connect("").await.unwrap();
    large.send_text("x".repeat(32 * 1024 + 1)).await.unwrap();
    assert_eq!(large.closed().await.unwrap(), (1009, "Message too big".to_owned()));

    let mut binary = gateway.connect("").await.unwrap();
    binary.send_binary(vec![1, 2, 3]).await.unwrap();
    assert_eq!(binary.closed().await.unwrap(), (1003, "Unsupported data".to_owned()));

    let mut codes = Vec::new();
    while codes.len() < 2 {
        if let Some(rest) = next(&mut events).await.strip_prefix("disconnect ") {
            codes.push(rest.split(' ').nth(1).unwrap().to_owned());
        }
    }
    assert_eq!(codes, ["1009", "1003"]);
}

#[tokio::test]
async fn lim_6_reserved_paths_are_not_stages() {
    for stage in ["ping", "sping"] {
        let expected = format!("the stage cannot be named {stage:?}: API Gateway reserves the paths /ping and /sping");
        assert_eq!(Gateway::builder(stage).start().await.unwrap_err().to_string(), expected);
        assert!(Gateway::builder("dev").stage(stage).start().await.is_err());
    }
}

#[tokio::test]
async fn mgt_3_4_and_6_invalid_pushes_are_refused() {
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let pusher = gateway.pusher();
    let unknown = ConnectionId::new("AAAAAAAAAAAAAAA=").unwrap();
    assert!(matches!(pusher.send_text(&unknown, "x").await, Err(PushError::Gone { .. })));
    assert!(matches!(pusher.info(&unknown).await, Err(PushError::Gone { .. })));
    assert!(matches!(pusher.close(&unknown).await, Err(PushError::Gone { .. })));
    let malformed = ConnectionId::new("short").unwrap();
    let error = pusher.send_text(&malformed, "x").await.unwrap_err();
    assert!(matches!(error, PushError::BadRequest { .. }));
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "BadRequestException: Invalid connectionId: short"
    );
}

#[tokio::test]
async fn mgt_10_bytes_arrive_as_text_frame() {
    let gateway = Gateway::builder("dev").router(observed().0).route_response("whoami").start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    let id = whoami(&mut client).await;
    gateway.pusher().send_bytes(&id, vec![b'a', 0xff, b'b']).await.unwrap();
    assert_eq!(client.next_text().await.unwrap(), "a\u{fffd}b");
}

#[tokio::test]
async fn mgt_7_client_that_does_not_read_is_throttled() {
    let gateway = Gateway::builder("dev").router(observed().0).route_response("whoami").start().await.unwrap();
    let mut deaf = gateway.connect("").await.unwrap();
    let deaf_id = whoami(&mut deaf).await;
    let mut other = gateway.connect("").await.unwrap();
    let other_id = whoami(&mut other).await;
    let pusher = gateway.pusher().without_retries();
    let large = "x".repeat(100_000);
    let mut sent = 0;
    let error = loop {
        match pusher.send_text(&deaf_id, large.as_str()).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 5000, "the buffer has no end");
        tokio::task::yield_now().await;
    };
    assert!(matches!(error, PushError::Throttled { .. }), "{error:?}");
    // The slow client delays no other, and loses no acknowledged push.
    pusher.send_text(&other_id, "hello").await.unwrap();
    assert_eq!(other.next_text().await.unwrap(), "hello");
    for _ in 0..sent {
        assert_eq!(deaf.next_text().await.unwrap().len(), large.len());
    }
}

#[tokio::test]
async fn con_6_push_before_connect_returns_gets_410() {
    let builder = Gateway::builder("dev");
    let pusher = builder.pusher();
    let early = Arc::new(Mutex::new(None));
    let result = Arc::clone(&early);
    let router = Router::new().on("$connect", move |event: Connect| {
        let (pusher, result) = (pusher.clone(), Arc::clone(&result));
        async move {
            let pushed = pusher.send_text(event.connection_id(), "too early").await;
            *result.lock().unwrap() = Some(pushed.map_err(|error| error.to_string()));
            Ok(())
        }
    });
    let gateway = builder.router(router).start().await.unwrap();
    gateway.connect("").await.unwrap();
    let text = early.lock().unwrap().take().unwrap().unwrap_err();
    assert!(
        text.ends_with("is gone, or not open yet: API Gateway opens it only after `$connect` has returned"),
        "{text}"
    );
}

#[tokio::test]
async fn authorizer_context_reaches_every_later_event() {
    async fn authorize(request: Request) -> Result<Authorization, Denied> {
        assert_eq!(request.stage_variable("tenant"), Some("blue"));
        Authorization::allow("alice").with_context(&json!({"org": 7, "admin": true, "nothing": null}))
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Session {
        org: u64,
        admin: bool,
        nothing: Option<String>,
    }
    let router = Router::new()
        .on("$connect", |event: Connect| async move {
            event.context::<Session>()?;
            Ok(())
        })
        .on(
            "who",
            |event: Message| async move { Ok(Json(json!([event.principal_id(), event.context::<Session>()?]))) },
        );
    let gateway = Gateway::builder("dev")
        .stage_variable("tenant", "blue")
        .authorizer(authorize, ["stageVariables.tenant", "context.identity.sourceIp"])
        .router(router)
        .route_response("who")
        .start()
        .await
        .unwrap();
    let mut client = gateway.connect("").await.unwrap();
    client.send_json(&json!({"action": "who"})).await.unwrap();
    let expected = json!(["alice", {"org": 7, "admin": true, "nothing": null}]);
    assert_eq!(client.next_json().await.unwrap(), expected);
}

#[tokio::test]
async fn stages_have_separate_variables_and_connections() {
    let router = Router::new()
        .on("$connect", |_: Connect| async { Ok(()) })
        .on("where", |event: Message| async move { Ok(Json(event.request_context().stage.clone())) });
    let authorize = |request: Request| async move {
        match request.stage_variable("tenant") {
            Some("blue") => Ok(Authorization::allow("alice")),
            _ => Err(Denied::Forbidden),
        }
    };
    let none: [&str; 0] = [];
    let gateway = Gateway::builder("dev")
        .stage_variable("tenant", "blue")
        .stage("prod")
        .stage_variable("tenant", "blue")
        .stage("closed")
        .authorizer(authorize, none)
        .router(router)
        .route_response("where")
        .start()
        .await
        .unwrap();
    for stage in ["dev", "prod"] {
        let mut client = gateway.connect_to(stage, "").await.unwrap();
        client.send_json(&json!({"action": "where"})).await.unwrap();
        assert_eq!(client.next_json().await.unwrap(), stage);
        // RTE-4: the error frame has the connection's id.
        client.send_text("{}").await.unwrap();
        let id: ConnectionId =
            serde_json::from_value(client.next_json().await.unwrap()["connectionId"].take()).unwrap();
        let pusher = gateway.pusher();
        pusher.send_text(&id, "pushed").await.unwrap();
        assert_eq!(client.next_text().await.unwrap(), "pushed", "in process a connection's own stage is found");
        assert_eq!(pusher.endpoint(), Some(&gateway.endpoint()));
    }
    assert_eq!(gateway.connect_to("closed", "").await.unwrap_err().status(), Some(403));
    assert_eq!(gateway.connect_to("none", "").await.unwrap_err().status(), Some(403));
}

#[tokio::test]
async fn lim_5_throttled_handshake_gets_429() {
    let gateway = Gateway::builder("dev").throttle_connections(1).start().await.unwrap();
    gateway.connect("").await.unwrap();
    let error = gateway.connect("").await.unwrap_err();
    assert_eq!(error.status(), Some(429));
}

#[tokio::test]
async fn lim_3_an_idle_connection_is_closed() {
    let (router, mut events) = observed();
    let idle = Duration::from_millis(50);
    let gateway = Gateway::builder("dev").router(router).idle_timeout(idle).start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    assert_eq!(client.closed().await.unwrap(), (1001, "Going away".to_owned()));
    let _ = next(&mut events).await;
    assert!(next(&mut events).await.ends_with(" 1001 Going away"));
}

#[tokio::test]
async fn shutdown_sends_close_frames_and_awaits_functions() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let router = Router::new().on("$disconnect", move |event: Disconnect| {
        let count = Arc::clone(&count);
        async move {
            tokio::task::yield_now().await;
            assert_eq!(event.status_code(), Some(1001));
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(gateway.connect("").await.unwrap());
    }
    gateway.shutdown().await;
    assert_eq!(ended.load(Ordering::SeqCst), 20);
    for mut client in clients {
        assert_eq!(client.closed().await.unwrap().0, 1001);
    }
}

#[tokio::test]
async fn shutdown_sends_close_frames_without_disconnect_route() {
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let address = gateway.address();
    let mut client = gateway.connect("").await.unwrap();
    let mut watcher = tokio::spawn(async move { client.closed().await });
    gateway.shutdown().await;
    assert_eq!((&mut watcher).await.unwrap().unwrap(), (1001, "Going away".to_owned()));
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "and nobody listens any more");
}

#[tokio::test]
async fn invalid_configuration_does_not_start() {
    let text = |result: Result<Gateway, StartError>| result.unwrap_err().to_string();
    let empty = || Function::router(Router::new());
    assert_eq!(
        text(Gateway::builder("not/a/stage").start().await),
        "stage \"not/a/stage\" is not valid: expected 1 to 128 letters, digits, `_` or `-`"
    );
    assert_eq!(
        text(Gateway::builder("dev").function(["a"], empty()).function(["a"], empty()).start().await),
        "the route \"a\" has two functions"
    );
    assert_eq!(text(Gateway::builder("dev").route_response("a").start().await), "the route \"a\" has no function");
    assert_eq!(
        text(Gateway::builder("dev").authorizer_function(empty(), ["$request.header.Auth"]).start().await),
        "\"$request.header.Auth\" is not an identity source of a WebSocket API: expected `route.request.header.<name>`, \
         `route.request.querystring.<name>`, `stageVariables.<name>` or `context.<name>`"
    );
    let several = "route.request.header.A, route.request.querystring.B";
    assert_eq!(
        text(Gateway::builder("dev").authorizer_function(empty(), [several]).start().await),
        format!(
            "{several:?} is not an identity source of a WebSocket API: expected one source per string, without a comma \
             or a space"
        )
    );
    let error = text(Gateway::builder("dev").authorizer_function(empty(), ["context.none"]).start().await);
    assert!(error.contains("expected a member of the request context: apiId, "), "{error}");
    assert_eq!(
        text(Gateway::builder("dev").route_selection("$request.header.action").start().await),
        "\"$request.header.action\" is not a route selection expression: expected `$request.body.<path>` or \
         `${request.body.<path>}` at byte 0"
    );
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let busy = gateway.address();
    assert_eq!(
        Gateway::builder("dev").bind(busy).unwrap_err().to_string(),
        format!("cannot listen on {busy}: the address is in use; choose another port, or 0 for any free port")
    );
}

#[tokio::test]
async fn gateway_listens_on_every_address_of_a_host_name() {
    let gateway = Gateway::builder("dev").bind("localhost:0").unwrap().start().await.unwrap();
    let port = gateway.address().port();
    let mut reached = 0;
    for address in tokio::net::lookup_host(("localhost", port)).await.unwrap() {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => {
                tokio_tungstenite::client_async(format!("ws://{address}/dev"), stream).await.unwrap();
                reached += 1;
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable, "{address}: {error}"),
        }
    }
    assert!(reached >= 1);
    let gateway = Gateway::builder("dev").bind("0.0.0.0:0").unwrap().start().await.unwrap();
    let port = gateway.address().port();
    assert_eq!(gateway.url(), format!("ws://127.0.0.1:{port}/dev"));
    assert_eq!(gateway.endpoint().as_str(), format!("http://127.0.0.1:{port}/dev"));
    gateway.connect("").await.unwrap();
}
