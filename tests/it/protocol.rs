//! The reply protocol: a message with an id gets exactly one final reply with that id, whatever its route does.

#[cfg(feature = "anyhow")]
mod anyhow;
mod codes;
mod errors;
#[cfg(all(feature = "local", feature = "sdk"))]
mod gateway;
#[cfg(feature = "push")]
mod push;

use std::sync::{Arc, Mutex};

use lambda_websocket::event::CorrelationId;
use lambda_websocket::route::{Error, ErrorCode, Failure, FailureKind, Member, ReplyFormat, StatusCode};
use lambda_websocket::{Json, Message, Response, Router};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture;

/// Generates valid ids as clients write them.
pub fn ids() -> impl Strategy<Value = String> {
    let string = ".{0,40}".prop_map(|text: String| serde_json::to_string(&text).unwrap());
    let escaped = "(\\\\u[0-9a-f]{4}|[a-z]){0,8}".prop_map(|text| format!("\"{text}\""));
    let number = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?";
    prop_oneof![string, escaped, number].prop_filter("too long", |id| id.len() <= 64)
}

/// Returns a router whose route executes the command in the message.
fn routes() -> Router {
    Router::new()
        .on("do", |event: Message<Value>| async move {
            match event.body["do"].as_str() {
                Some("json") => Ok(Response::ok().json(&event.body["value"])),
                Some("text") => Ok(Response::new(StatusCode::CREATED).body("words \"and\" \n")),
                Some("nothing") => Ok(Response::ok()),
                Some("status") => Ok(Response::new(StatusCode::CONFLICT).body("taken")),
                Some("status with json") => Ok(Response::new(StatusCode::CONFLICT).json(&["taken"])),
                Some("large") => Ok(Response::ok().body("x".repeat(131_073))),
                Some("client") => Err(Error::client(ErrorCode::CONFLICT, "taken \u{0}\n\"\u{7f}").with_details(&[1])),
                Some("large client") => Err(Error::client(ErrorCode::CONFLICT, "x".repeat(200_000))),
                Some("internal") => Err("s3cret".into()),
                Some("panic") => panic!("on purpose"),
                _ => Err(Error::client(ErrorCode::INVALID_MESSAGE, "what?")),
            }
        })
        .on("unit", |_: Message| async { Ok(()) })
        .on("typed", |event: Message<Vec<u8>>| async move { Ok(Json(event.body)) })
        .on("early", |event: Message<Value>| {
            assert!(event.body["do"] != "panic", "on purpose, and not in the future");
            async { Ok(()) }
        })
}

/// Returns the frame that the client of a route with a route response receives.
async fn frame(router: &Router, key: &str, body: &str) -> Option<String> {
    router.handle(fixture::message(key, body)).await.unwrap().text().map(str::to_owned)
}

async fn reply(router: &Router, key: &str, body: &str) -> Value {
    let frame = frame(router, key, body).await.unwrap_or_else(|| panic!("{body} got nothing"));
    serde_json::from_str(&frame).unwrap_or_else(|_| panic!("{frame} is not JSON"))
}

#[tokio::test]
async fn replies_carry_the_id_verbatim() {
    let ids = [
        "7",
        "-7",
        "0",
        "-0",
        "1e3",
        "1.50",
        "1E+3",
        "184467440737095516160",
        r#""""#,
        r#""a""#,
        r#""7""#,
        r#""\u0069d""#,
        r#""\ud800""#,
        r#""é🦀""#,
        r#""\"\\\/""#,
    ];
    let long = format!("\"{}\"", "x".repeat(62));
    let digits = "9".repeat(64);
    for id in ids.into_iter().chain([long.as_str(), digits.as_str()]) {
        for body in
            [format!(r#"{{"action":"unit","id":{id}}}"#), format!("{{ \"id\" :\t{id} , \"x\": [{{\"y\": 1}}] }}")]
        {
            let expected = format!(r#"{{"id":{id},"result":null}}"#);
            assert_eq!(frame(&routes(), "unit", &body).await.unwrap(), expected);
            let bytes = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &body);
            let mut json = fixture::json("message");
            json["requestContext"]["routeKey"] = "unit".into();
            json["body"] = bytes.into();
            json["isBase64Encoded"] = true.into();
            let event = serde_json::from_value(json).unwrap();
            assert_eq!(routes().handle(event).await.unwrap().text(), Some(&*expected), "a frame of bytes");
        }
    }
}

#[tokio::test]
async fn invalid_id_is_refused_without_running_the_route() {
    let long = format!("\"{}\"", "x".repeat(63));
    let digits = "9".repeat(65);
    for (id, found) in [
        ("true", "a boolean"),
        ("false", "a boolean"),
        ("[]", "an array"),
        (r#"{"id":7}"#, "an object"),
        (long.as_str(), "a longer one"),
        (digits.as_str(), "a longer one"),
        (r#"1,"x":2,"id":1"#, "more than one"),
    ] {
        let body = format!(r#"{{"action":"early","do":"panic","id":{id}}}"#);
        let message = format!("`id` must be a string or a number of at most 64 bytes of JSON, found {found}");
        let expected = json!({"action": "early", "error": {"code": "invalid_message", "message": message}});
        assert_eq!(reply(&routes(), "early", &body).await, expected, "{id}");
    }
}

#[tokio::test]
async fn message_without_id_gets_a_plain_response() {
    for body in [r#"{"a":1}"#, r#"{"id":null}"#, r#"{"a":{"id":1},"b":[{"id":2}]}"#, r#"{"kind":"id"}"#, r#"{"ID":1}"#]
    {
        assert_eq!(frame(&routes(), "unit", body).await, None, "{body}");
    }
    for (what, expected) in [
        (r#"{"do":"json","value":{"a":1}}"#, Some(r#"{"a":1}"#)),
        (r#"{"do":"text"}"#, Some("words \"and\" \n")),
        (r#"{"do":"status"}"#, Some("taken")),
        (r#"{"do":"nothing"}"#, None),
    ] {
        assert_eq!(frame(&routes(), "do", what).await.as_deref(), expected);
    }
    let raw = routes().reply_format(ReplyFormat::default().without_ids());
    assert_eq!(frame(&raw, "do", r#"{"do":"json","value":1,"id":7}"#).await.as_deref(), Some("1"));
    let expected = json!({"action": "typed", "error": {"code": "invalid_message",
        "message": "invalid type: map, expected a sequence at line 1 column 1"}});
    assert_eq!(reply(&raw, "typed", r#"{"id":true}"#).await["error"]["code"], expected["error"]["code"]);
}

#[tokio::test]
async fn every_route_outcome_becomes_a_result_or_error_reply() {
    let request = "Kb7qAF22PHcEdGg=";
    let internal = json!({"code": "internal", "message": "Internal server error", "details": {"requestId": request}});
    for (what, expected) in [
        (r#""json","value":{"b":1,"a":[2]}"#, json!({"result": {"b": 1, "a": [2]}})),
        (r#""text""#, json!({"result": "words \"and\" \n"})),
        (r#""nothing""#, json!({"result": null})),
        (r#""status""#, json!({"error": {"code": "conflict", "message": "taken"}})),
        (r#""status with json""#, json!({"error": {"code": "conflict", "message": "Conflict", "details": ["taken"]}})),
        (r#""client""#, json!({"error": {"code": "conflict", "message": "taken \u{0}\n\"\u{7f}", "details": [1]}})),
        (r#""internal""#, json!({"error": internal})),
        (r#""panic""#, json!({"error": internal})),
        (
            r#""large""#,
            json!({"error": {"code": "too_large",
            "message": "the reply has 131095 bytes, more than the maximum of 131072 for one message"}}),
        ),
        (
            r#""large client""#,
            json!({"error": {"code": "conflict",
            "message": "the reply has 200051 bytes, more than the maximum of 131072 for one message"}}),
        ),
    ] {
        let mut expected = expected;
        expected["id"] = json!("q");
        assert_eq!(reply(&routes(), "do", &format!(r#"{{"id":"q","do":{what}}}"#)).await, expected, "{what}");
        if let Some(error) = expected.get("error").filter(|_| !what.contains("status")) {
            let found = reply(&routes(), "do", &format!(r#"{{"do":{what}}}"#)).await;
            assert_eq!((&found["action"], &found["error"]["code"]), (&json!("do"), &error["code"]), "{what}");
        }
    }
    // A closure may panic before it returns a future.
    assert_eq!(reply(&routes(), "early", r#"{"id":1,"do":"panic"}"#).await, json!({"id": 1, "error": internal}));
}

#[tokio::test]
async fn unreadable_message_gets_an_error_reply() {
    for (body, expected) in [
        ("hello", json!({"action": "typed"})),
        ("", json!({"action": "typed"})),
        (r#""id""#, json!({"action": "typed"})),
        (r#"{"id""#, json!({"action": "typed"})),
        (r#"{"id":}"#, json!({"action": "typed"})),
        (r#"{"id":7"#, json!({"id": 7})),
        (r#"{"id":7,"x":"#, json!({"id": 7})),
        (r#"{"x":nonsense,"id":7}"#, json!({"action": "typed"})),
        (r#"[{"id":7}]"#, json!({"action": "typed"})),
        (r#"{"action":"other","id":7}"#, json!({"id": 7})),
    ] {
        let mut found = reply(&routes(), "typed", body).await;
        let error = found["error"].take();
        assert_eq!(error["code"], "invalid_message", "{body}");
        found.as_object_mut().unwrap().remove("error");
        assert_eq!(found, expected, "{body}");
    }
    let deep = |levels: usize, tail: &str| format!("{{\"x\":{}{},{tail}}}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(reply(&routes(), "do", &deep(100, r#""id":7,"do":"nothing""#)).await, json!({"id": 7, "result": null}));
    let too_deep = reply(&routes(), "do", &deep(100_000, r#""id":7,"do":"nothing""#)).await;
    assert_eq!((&too_deep["id"], &too_deep["error"]["code"]), (&json!(7), &json!("invalid_message")));
}

#[tokio::test]
async fn error_reply_without_id_names_the_action() {
    let unknown = |action: &str| json!({"action": action, "error": {"code": "unknown_action", "message": "there is no such action"}});
    let long = format!(r#"{{"action":"{}"}}"#, "x".repeat(129));
    for (body, action) in [
        (r#"{"action":"nope"}"#, "nope"),
        (r#"{"x":1,"action":"n\u00f6pe"}"#, "nöpe"),
        (r#"{"action":7}"#, "$default"),
        ("hello", "$default"),
        (long.as_str(), "$default"),
    ] {
        assert_eq!(reply(&routes(), "$default", body).await, unknown(action), "{body}");
    }
    assert_eq!(reply(&routes(), "subtract", r#"{"x":1}"#).await["action"], "subtract");
    let default = Router::new().on("$default", |_: Message<Vec<u8>>| async { Ok(()) });
    assert_eq!(reply(&default, "$default", r#"{"action":"what","more":1}"#).await["action"], "what");
    assert_eq!(reply(&default, "$default", r#"{"action":"what","id":1}"#).await["id"], 1);
}

#[tokio::test]
async fn reply_format_renames_members() {
    let names = [
        (Member::Id, "rid"),
        (Member::Action, "method"),
        (Member::Result, "ok"),
        (Member::Error, "problem"),
        (Member::Code, "kind"),
        (Member::Message, "text"),
        (Member::Details, "data"),
    ];
    let format = names.iter().fold(ReplyFormat::default(), |format, (member, name)| format.renamed(*member, name));
    let router = routes().reply_format(format);
    assert_eq!(reply(&router, "do", r#"{"do":"json","value":1,"rid":2}"#).await, json!({"rid": 2, "ok": 1}));
    assert_eq!(
        reply(&router, "do", r#"{"do":"client","id":2}"#).await,
        json!({"method": "do", "problem": {"kind": "conflict", "text": "taken \u{0}\n\"\u{7f}", "data": [1]}})
    );
    let unknown = reply(&router, "$default", r#"{"method":"nope","action":"x"}"#).await;
    assert_eq!(unknown["method"], "nope");
}

#[test]
fn duplicate_member_names_panic() {
    let text = |member, name: &'static str| {
        let panic = std::panic::catch_unwind(move || ReplyFormat::default().renamed(member, name)).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    assert_eq!(text(Member::Id, "result"), "\"result\" is already the name of Result");
    assert_eq!(text(Member::Code, "message"), "\"message\" is already the name of Message");
    for illegal in ["", "a b", "é", "a\"", "a/b"] {
        assert!(text(Member::Id, illegal).ends_with("expected 1 to 64 of `A-Z a-z 0-9 _ . $ @ -`"), "{illegal}");
    }
    let _ = ReplyFormat::default().renamed(Member::Code, "id").renamed(Member::Id, "id");
}

#[tokio::test]
async fn hook_sees_every_failure() {
    let (hook, seen) = hook();
    let router = routes().on_error(hook);
    for (key, body) in [
        ("nope", "{}"),
        ("unit", r#"{"id":true}"#),
        ("typed", r#"{"id":1}"#),
        ("do", r#"{"id":2,"do":"client"}"#),
        ("do", r#"{"do":"internal"}"#),
        ("do", r#"{"do":"panic"}"#),
        ("do", r#"{"do":"large"}"#),
        ("do", r#"{"do":"nothing"}"#),
    ] {
        router.handle(fixture::message(key, body)).await.unwrap();
    }
    let seen: Vec<_> = seen.lock().unwrap().iter().map(shown).collect();
    let expected = [
        (FailureKind::UnknownAction, "unknown_action", 404, "no route \"nope\" and no `$default`"),
        (
            FailureKind::InvalidId,
            "invalid_message",
            400,
            "`id` must be a string or a number of at most 64 bytes of JSON, found a boolean",
        ),
        (
            FailureKind::InvalidBody,
            "invalid_message",
            400,
            "the message body is not valid for the route: line 1, column 0",
        ),
        (FailureKind::Refused, "conflict", 409, "refused with conflict"),
        (FailureKind::Internal, "internal", 500, "s3cret"),
        (FailureKind::Panicked, "internal", 500, "the route panicked: on purpose"),
        (
            FailureKind::ReplyTooLarge,
            "too_large",
            500,
            "the reply has 131073 bytes, more than the maximum of 131072 for one message",
        ),
    ];
    let expected = expected.map(|(kind, code, status, text)| (kind, code.to_owned(), status, text.to_owned()));
    assert_eq!(seen, expected);
}

fn shown(failure: &Failure) -> (FailureKind, String, u16, String) {
    (failure.kind(), failure.code().to_string(), failure.status().as_u16(), failure.to_string())
}

type Seen = Arc<Mutex<Vec<Failure>>>;

fn hook() -> (impl Fn(Failure) -> std::future::Ready<()> + Send + Sync + 'static, Seen) {
    let seen = Seen::default();
    let hook = Arc::clone(&seen);
    let push = move |failure| {
        hook.lock().unwrap().push(failure);
        std::future::ready(())
    };
    (push, seen)
}

#[tokio::test]
async fn panicking_hook_does_not_lose_the_reply() {
    let router = routes().on_error(|_| async { panic!("on purpose") });
    assert_eq!(reply(&router, "do", r#"{"id":1,"do":"client"}"#).await["error"]["code"], "conflict");
}

#[test]
fn routes_can_read_the_correlation_id() {
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let router = Router::new().on("$default", move |event: Message<Value>| {
        *keep.lock().unwrap() = event.correlation_id().cloned();
        async { Ok(()) }
    });
    let handled = router.handle(fixture::message("$default", r#"{"id":1e3}"#));
    futures_util::future::FutureExt::now_or_never(handled).unwrap().unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(CorrelationId::from_json("1e3").unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_message_with_an_id_gets_one_final_reply(
        id in ids(),
        place in 0..4_usize,
        what in prop::sample::select(vec!["json", "text", "nothing", "status", "large", "client", "internal", "panic", "?"]),
        key in prop::sample::select(vec!["do", "unit", "typed", "early", "nope"]),
        noise in "[\\PC]{0,20}",
    ) {
        let noise = serde_json::to_string(&noise).unwrap();
        let mut members =
            vec![format!(r#""do":"{what}""#), format!(r#"{noise}:{{"id":[{noise}],"x":{noise}}}"#), r#""value":{"id":1}"#.to_owned()];
        members.insert(place, format!(r#""id":{id}"#));
        prop_assume!(noise != r#""id""#);
        let body = format!("{{{}}}", members.join(","));
        let handled = routes().handle(fixture::message(key, &body));
        let answer = futures_util::future::FutureExt::now_or_never(handled).unwrap().unwrap();
        let text = answer.text().unwrap();
        prop_assert!(text.starts_with(&format!(r#"{{"id":{id},"#)), "{} to {}", text, body);
        // An unpaired surrogate escape is valid in JSON, but not in a Rust string.
        if let Ok(frame) = serde_json::from_str::<serde_json::Map<String, Value>>(text) {
            prop_assert_eq!(frame.len(), 2);
            prop_assert!(frame.contains_key("result") || frame["error"]["code"].is_string());
        }
    }

    #[test]
    fn router_never_panics_on_any_message(body in "[\\PC]{0,60}", key in prop::sample::select(vec!["do", "unit", "$default"])) {
        let handled = routes().handle(fixture::message(key, &body));
        prop_assert!(futures_util::future::FutureExt::now_or_never(handled).unwrap().is_ok());
    }
}
