use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use lambda_websocket::event::Invocation;
use lambda_websocket::route::{Error, FailureKind, StatusCode};
use lambda_websocket::{Connect, Disconnect, Json, Message, Response, Result, Route, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fixture;

mod handlers;
#[cfg(feature = "runtime")]
mod layers;

#[derive(Deserialize)]
struct Add {
    left: i64,
    right: i64,
}

struct Adder;

impl Route for Adder {
    const KEY: &'static str = "add";
    type Event = Message<Add>;
    type Reply = Json<i64>;

    async fn handle(&self, event: Message<Add>) -> Result<Json<i64>> {
        let sum = event.body.left.checked_add(event.body.right);
        sum.map(Json).ok_or_else(|| Error::client(StatusCode::UNPROCESSABLE_ENTITY, "the sum is too large"))
    }
}

async fn answer(router: &Router, event: lambda_websocket::Event) -> Value {
    serde_json::to_value(router.handle(event).await.unwrap()).unwrap()
}

async fn status<S: Send + Sync + 'static>(router: &Router<S>, event: lambda_websocket::Event) -> u16 {
    router.handle(event).await.unwrap().status().as_u16()
}

fn refusal(action: &str, code: &str, message: &str) -> Value {
    json!({"action": action, "error": {"code": code, "message": message}})
}

/// Parses the body of a response as JSON, since the order of its members is not guaranteed.
fn body(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn route_responds_with_json() {
    let router = Router::new().route(Adder);
    let event = fixture::message("add", r#"{"action":"add","left":2,"right":3}"#);
    assert_eq!(answer(&router, event).await, json!({"statusCode": 200, "body": "5"}));
}

#[tokio::test]
async fn client_error_responds_with_its_status_and_message() {
    let router = Router::new().route(Adder);
    let event = fixture::message("add", &format!(r#"{{"left":{},"right":1}}"#, i64::MAX));
    let answer = answer(&router, event).await;
    assert_eq!(answer["statusCode"], 422);
    assert_eq!(body(&answer), refusal("add", "unprocessable_entity", "the sum is too large"));
}

#[tokio::test]
async fn other_errors_respond_500_without_detail() {
    let router = Router::new().on("parse", |event: Message| async move {
        let _: u8 = event.body.to_text().parse()?;
        Ok(())
    });
    let answer = answer(&router, fixture::message("parse", "internal-secret")).await;
    assert_eq!(answer["statusCode"], 500);
    assert_eq!(
        body(&answer),
        json!({"action": "parse", "error": {"code": "internal", "message": "Internal server error",
            "details": {"requestId": "Kb7qAF22PHcEdGg="}}})
    );
    assert!(!answer.to_string().contains("digit"));
}

#[tokio::test]
async fn errors_can_fail_the_invocation() {
    let router = Router::new()
        .route(Adder)
        .on("parse", |event: Message| async move {
            let _: u8 = event.body.to_text().parse()?;
            Ok(())
        })
        .fail_invocation_on_error();
    let error = router.handle(fixture::message("parse", "x")).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid digit found in string");
    let deliberate = fixture::message("add", &format!(r#"{{"left":{},"right":1}}"#, i64::MAX));
    assert_eq!(answer(&router, deliberate).await["statusCode"], 422);
}

#[tokio::test]
async fn connect_and_disconnect_without_route_respond_200() {
    for name in ["connect", "disconnect"] {
        assert_eq!(answer(&Router::new(), fixture::event(name)).await, json!({"statusCode": 200}), "{name}");
    }
}

#[tokio::test]
async fn message_without_route_responds_404() {
    let router = Router::new().route(Adder);
    let answer = answer(&router, fixture::message("subtract", "{}")).await;
    assert_eq!(answer["statusCode"], 404);
    assert_eq!(body(&answer), refusal("subtract", "unknown_action", "there is no such action"));
}

#[tokio::test]
async fn rte_3_default_route_handles_unmatched_messages() {
    let router = Router::new()
        .route(Adder)
        .on("$default", |event: Message| async move { Ok(Json(event.body.to_text().into_owned())) });
    for key in ["$default", "subtract", "Add"] {
        assert_eq!(answer(&router, fixture::message(key, "hello")).await["body"], "\"hello\"", "{key}");
    }
}

#[tokio::test]
async fn mismatched_body_is_a_client_error() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&seen);
    let router = Router::new().route(Adder).fail_invocation_on_error().on_error(move |failure| {
        let hook = Arc::clone(&hook);
        async move {
            let body = failure.kind() == FailureKind::InvalidBody;
            let context = failure.request_context();
            hook.lock().unwrap().push((
                body,
                context.connection_id.to_string(),
                failure.status().as_u16(),
                failure.client_text().to_owned(),
                failure.to_string(),
            ));
        }
    });
    for (text, message, log) in [
        ("hello", "expected value at line 1 column 1", "the message body is not JSON: line 1, column 1"),
        (
            r#"{"left":"two","right":3}"#,
            "left: invalid type: string \"two\", expected i64 at line 1 column 13",
            "the message body is not valid for the route: line 1, column 13",
        ),
        (
            r#"{"left":2}"#,
            "missing field `right` at line 1 column 10",
            "the message body is not valid for the route: line 1, column 10",
        ),
    ] {
        let answer = answer(&router, fixture::message("add", text)).await;
        assert_eq!(answer["statusCode"], 400);
        assert_eq!(body(&answer), refusal("add", "invalid_message", message));
        let expected = (true, "Kb7p2d5_vHcCIhw=".to_owned(), 400, message.to_owned(), log.to_owned());
        assert_eq!(seen.lock().unwrap().pop(), Some(expected));
    }
    let _ = router.handle(fixture::message("subtract", "{}")).await;
    let last = seen.lock().unwrap().pop().unwrap();
    assert_eq!((last.0, last.2, last.4.as_str()), (false, 404, "no route \"subtract\" and no `$default`"));
}

#[tokio::test]
async fn lifecycle_routes_get_their_events() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Session {
        org: u64,
    }
    let router = Router::new()
        .on("$connect", |event: Connect| async move {
            let session: Session = event.context()?;
            assert_eq!(session, Session { org: 7 });
            match event.query("Auth") {
                Some(_) => Ok(Response::ok()),
                None => Ok(Response::new(StatusCode::FORBIDDEN)),
            }
        })
        .on("$disconnect", |event: Disconnect| async move {
            assert_eq!(event.status_code(), Some(1005));
            Ok(())
        });
    assert_eq!(answer(&router, fixture::event("connect")).await["statusCode"], 200);
    assert_eq!(answer(&router, fixture::event("disconnect")).await["statusCode"], 200);
}

#[tokio::test]
async fn con_5_a_subprotocol_must_have_been_offered() {
    let choosing = |protocol: &'static str| {
        Router::new().on("$connect", move |_: Connect| async move { Ok(Response::ok().subprotocol(protocol)) })
    };
    for offered in ["chat.v1", "chat.v2"] {
        assert_eq!(
            answer(&choosing(offered), fixture::event("connect")).await,
            json!({"statusCode": 200, "headers": {"sec-websocket-protocol": offered}})
        );
    }
    for not_offered in ["chat", "chat.v2, chat.v1", ""] {
        assert_eq!(answer(&choosing(not_offered), fixture::event("connect")).await["statusCode"], 500, "{not_offered}");
    }
    let failing = choosing("chat").fail_invocation_on_error();
    assert_eq!(
        failing.handle(fixture::event("connect")).await.unwrap_err().to_string(),
        "the response selects the subprotocol \"chat\", which is not among the 2 that the client offered"
    );
    let late = Router::new()
        .on("$default", |_: Message| async { Ok(Response::ok().subprotocol("chat.v1")) })
        .fail_invocation_on_error();
    assert_eq!(
        late.handle(fixture::event("message")).await.unwrap_err().to_string(),
        "only the response to `$connect` can select a subprotocol"
    );
}

#[tokio::test]
async fn invalid_http_response_is_an_error() {
    for (name, value, text) in [
        ("x y", "z", "\"x y\" is not a valid header name"),
        ("x-y", "a\nb", "the value of the header \"x-y\" is not a valid header value"),
    ] {
        let router = Router::new()
            .on("$connect", move |_: Connect| async move { Ok(Response::ok().header(name, value)) })
            .fail_invocation_on_error();
        assert_eq!(router.handle(fixture::event("connect")).await.unwrap_err().to_string(), text);
    }
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("never"))
        }
    }
    let router = Router::new().on("$default", |_: Message| async { Ok(Json(Refuses)) }).fail_invocation_on_error();
    assert_eq!(
        router.handle(fixture::event("message")).await.unwrap_err().to_string(),
        "failed to serialize the response as JSON: never"
    );
}

#[tokio::test]
async fn connect_error_never_accepts_the_client() {
    let router =
        Router::new().on("$connect", |_: Connect| async { Err::<(), _>(Error::client(StatusCode::OK, "oops")) });
    assert_eq!(answer(&router, fixture::event("connect")).await["statusCode"], 500);
}

#[tokio::test]
async fn route_can_read_deadline_and_invocation() {
    let deadline = UNIX_EPOCH + Duration::from_secs(1_700_000_100);
    let router = Router::new().on("$default", |event: Message| async move {
        let context = event.request_context();
        let id = context.invocation().map(|invocation| invocation.request_id.clone());
        Ok(Json((id, context.deadline().is_some())))
    });
    let event = fixture::event("message").with_invocation(Invocation::new("8476a536", deadline));
    assert_eq!(answer(&router, event).await["body"], r#"["8476a536",true]"#);
}

#[tokio::test]
async fn event_on_the_wrong_route_fails_the_invocation() {
    let router = Router::new().on("$connect", |_: Connect| async { Ok(()) }).fail_invocation_on_error();
    let mut json = fixture::json("message");
    json["requestContext"]["routeKey"] = "$connect".into();
    let error = router.handle(serde_json::from_value(json).unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "the route \"$connect\" expected a CONNECT event, found a MESSAGE event");
}

#[test]
fn an_error_keeps_its_chain() {
    let source = "x".parse::<u8>().unwrap_err();
    let error = Error::client(StatusCode::BAD_REQUEST, "not a number").with_source(source);
    assert_eq!(error.chain().to_string(), "not a number: invalid digit found in string");
    assert_eq!((error.code().as_str(), error.client_text()), ("invalid_message", Some("not a number")));
    let boxed = error.into_boxed();
    assert_eq!(boxed.source().unwrap().to_string(), "invalid digit found in string");
    assert_eq!(Error::from("x".parse::<u8>().unwrap_err()).chain().to_string(), "invalid digit found in string");
}

#[test]
fn question_mark_converts_every_error_kind() {
    fn boxed() -> lambda_websocket::Result<()> {
        Err::<(), Box<dyn std::error::Error + Send + Sync>>("boxed".into())?;
        Ok(())
    }
    fn text() -> lambda_websocket::Result<()> {
        Err("text")?;
        Ok(())
    }
    fn typed() -> lambda_websocket::Result<()> {
        let _: u8 = "x".parse()?;
        Ok(())
    }
    fn own() -> lambda_websocket::Result<()> {
        let () = boxed()?;
        Ok(())
    }
    let texts = [boxed(), text(), typed(), own()].map(|result| result.unwrap_err().chain().to_string());
    assert_eq!(texts, ["boxed", "text", "invalid digit found in string", "boxed"]);
}

fn panic_text(build: impl FnOnce() -> Router + std::panic::UnwindSafe) -> (String, String) {
    let place = Arc::new(Mutex::new(String::new()));
    let hook = Arc::clone(&place);
    let _guard = PANICS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        *hook.lock().unwrap() = info.location().unwrap().file().to_owned();
    }));
    let panic = std::panic::catch_unwind(build).unwrap_err();
    std::panic::set_hook(before);
    let place = place.lock().unwrap().clone();
    let text = panic.downcast_ref::<String>().cloned();
    (text.unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned()), place)
}

static PANICS: Mutex<()> = Mutex::new(());

#[test]
fn invalid_router_panics_at_the_callers_line() {
    let message = |_: Message| async { Ok(()) };
    let connect = |_: Connect| async { Ok(()) };
    let disconnect = |_: Disconnect| async { Ok(()) };
    let illegal = "a route key is `$connect`, `$disconnect`, `$default`, or 1 to 128 bytes that do not start with `$`";
    let has_no = |key: &str, event: &str| {
        format!(
            "route {key:?}: its events have no `lambda_websocket::event::{event}`, which is an argument of its handler"
        )
    };
    for (panic, text) in [
        (
            panic_text(move || Router::new().route(Adder).on("add", message)),
            "route \"add\": the router already has a route with this key".to_owned(),
        ),
        (
            panic_text(|| Router::new().route(Adder).route(Adder)),
            "route \"add\": the router already has a route with this key".to_owned(),
        ),
        (panic_text(move || Router::new().on("", message)), format!("route \"\": {illegal}")),
        (panic_text(move || Router::new().on("$conect", connect)), format!("route \"$conect\": {illegal}")),
        (panic_text(move || Router::new().on("$other", message)), format!("route \"$other\": {illegal}")),
        (
            panic_text(move || Router::new().on(&"x".repeat(129), message)),
            format!("route {:?}: {illegal}", "x".repeat(129)),
        ),
        (panic_text(move || Router::new().on("$connect", message)), has_no("$connect", "Message")),
        (panic_text(move || Router::new().on("$disconnect", message)), has_no("$disconnect", "Message")),
        (panic_text(move || Router::new().on("join", connect)), has_no("join", "Connect")),
        (panic_text(move || Router::new().on("$connect", disconnect)), has_no("$connect", "Disconnect")),
    ] {
        assert_eq!(panic, (text, file!().to_owned()));
    }
}
