//! What reaches a log, at the most talkative level.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use lambda_websocket::authorizer::{Authorization, Authorizer, Denied};
use lambda_websocket::route::Error;
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

#[tokio::test]
async fn every_line_says_which_request_and_none_a_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

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
        "the route failed error=outer: invalid digit found in string",
        "the message was rejected rejection=the message body is not what the route takes: line 1, column 0",
        "the message was rejected rejection=no route \"unknown\" and no `$default`",
        "the authorizer decided decision=Allow",
        "the client is not authenticated",
    ]) {
        assert!(line.ends_with(expected), "{line}");
    }
}
