use std::time::{Duration, UNIX_EPOCH};

use lambda_websocket::event::{Body, InvalidEvent, Invocation};
use lambda_websocket::{Connect, Disconnect, Event, Message};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fixture;

mod trace;

fn connect(name: &str) -> Connect {
    match fixture::event(name) {
        Event::Connect(connect) => connect,
        other => panic!("{other:?}"),
    }
}

fn message(json: &[u8]) -> Message {
    match Event::from_slice(json).unwrap() {
        Event::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

fn disconnect(name: &str) -> Disconnect {
    match fixture::event(name) {
        Event::Disconnect(disconnect) => disconnect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn evt_1_and_6_context_has_all_required_members() {
    for (name, route_key) in [("connect", "$connect"), ("message", "pushtowebsocket"), ("disconnect", "$disconnect")] {
        let event = fixture::event(name);
        let context = event.request_context();
        assert_eq!(context.route_key, route_key);
        assert_eq!(context.connection_id, "Kb7p2d5_vHcCIhw=");
        assert_eq!(context.api_id, "a1b2c3d4e5");
        assert_eq!(context.stage, "dev");
        assert_eq!(context.domain_name, "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com");
        assert_eq!(context.source_ip.to_string(), "203.0.113.7");
        assert_eq!(context.connected_at, UNIX_EPOCH + Duration::from_millis(1_700_000_000_000));
        assert_eq!(context.user_agent(), Some("Mozilla/5.0"));
        assert!(context.request_time >= context.connected_at);
    }
}

#[test]
fn evt_2_a_message_has_a_body_and_an_id() {
    let message = message(&fixture::bytes("message"));
    assert_eq!(message.message_id().as_str(), "Kb7qAd4-PHcCIhw=");
    assert_eq!(message.body, Body::Text(r#"{"action":"pushtowebsocket","message":"hello"}"#.to_owned()));
}

#[test]
fn evt_3_and_11_a_connect_has_headers_and_a_query() {
    let with_query = connect("connect");
    assert_eq!(with_query.header("user-AGENT"), Some("Mozilla/5.0"));
    assert_eq!(with_query.header("x-none"), None);
    assert_eq!(with_query.query("Auth"), Some("s3cret-token"));
    assert_eq!(with_query.query("auth"), None, "names of parameters are compared exactly");
    assert_eq!(with_query.query("room"), Some("b"), "the last value, as in queryStringParameters");
    assert_eq!(with_query.query_string().get_all("room").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(with_query.subprotocols().collect::<Vec<_>>(), ["chat.v2", "chat.v1"]);

    let without = connect("connect_without_query");
    assert_eq!(without.query("Auth"), None);
    assert_eq!(without.query_string().iter().count(), 0);
}

#[test]
fn evt_3_a_single_value_map_alone_is_enough() {
    let mut json = fixture::json("connect");
    json.as_object_mut().unwrap().remove("multiValueHeaders");
    json["multiValueQueryStringParameters"] = Value::Null;
    let Event::Connect(connect) = serde_json::from_value(json).unwrap() else { panic!() };
    assert_eq!(connect.header("user-agent"), Some("Mozilla/5.0"));
    assert_eq!(connect.query_string().get_all("room").collect::<Vec<_>>(), ["b"]);
}

#[test]
fn malformed_header_does_not_fail_the_event() {
    for odd in [json!(7), json!(null), json!({"a": []}), json!([1, "b"]), json!("\u{7f}\n")] {
        let mut json = fixture::json("connect");
        json["headers"]["odd"] = odd.clone();
        json["multiValueHeaders"]["odd"] = odd;
        let Event::Connect(connect) = serde_json::from_value(json).unwrap() else { panic!() };
        assert_eq!(connect.header("user-agent"), Some("Mozilla/5.0"));
    }
}

#[test]
fn evt_4_a_disconnect_has_a_code_and_a_reason() {
    let event = disconnect("disconnect");
    assert_eq!(event.status_code(), Some(1005));
    assert_eq!(event.reason(), "Client-side close frame status not set");
}

#[test]
fn evt_5_a_body_in_base64_becomes_bytes() {
    let mut json = fixture::json("message");
    json["body"] = "AAH/".into();
    json["isBase64Encoded"] = true.into();
    let message = message(&serde_json::to_vec(&json).unwrap());
    assert_eq!(message.body, Body::Bytes(vec![0, 1, 255]));
    assert_eq!(message.body.to_text(), "\u{0}\u{1}\u{fffd}");
}

#[test]
fn evt_5_a_body_that_is_not_base64_is_refused() {
    let mut json = fixture::json("message");
    json["isBase64Encoded"] = true.into();
    let error = Event::from_slice(&serde_json::to_vec(&json).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the event's `body` is not valid: expected base64, since `isBase64Encoded` is true");
}

#[test]
fn evt_8_the_user_agent_may_be_missing() {
    let mut json = fixture::json("message");
    json["requestContext"]["identity"].as_object_mut().unwrap().remove("userAgent");
    assert_eq!(message(&serde_json::to_vec(&json).unwrap()).request_context().user_agent(), None);
}

#[test]
fn evt_10_absent_and_null_are_the_same_and_unknown_members_are_ignored() {
    let old = message(&fixture::bytes("message_of_2020"));
    assert_eq!(old.body, Body::Text("hello".to_owned()));
    assert_eq!(old.principal_id(), None);
    assert_eq!(connect("connect_of_2020").query("Auth"), None);
    let disconnect = disconnect("disconnect_of_2020");
    assert_eq!((disconnect.status_code(), disconnect.reason()), (None, ""));

    let mut json = fixture::json("message");
    json["tomorrow"] = json!({"new": [1, 2]});
    json["requestContext"]["tomorrow"] = json!([{}]);
    json["body"] = Value::Null;
    assert_eq!(message(&serde_json::to_vec(&json).unwrap()).body, Body::Text(String::new()));
}

#[test]
fn evt_10_missing_required_member_is_named() {
    for (member, path) in [
        ("routeKey", "requestContext.routeKey"),
        ("connectionId", "requestContext.connectionId"),
        ("apiId", "requestContext.apiId"),
        ("stage", "requestContext.stage"),
        ("domainName", "requestContext.domainName"),
        ("requestId", "requestContext.requestId"),
        ("connectedAt", "requestContext.connectedAt"),
        ("requestTimeEpoch", "requestContext.requestTimeEpoch"),
        ("messageId", "requestContext.messageId"),
        ("identity", "requestContext.identity.sourceIp"),
    ] {
        for absent in [true, false] {
            let mut json = fixture::json("message");
            let context = json["requestContext"].as_object_mut().unwrap();
            if absent {
                context.remove(member);
            } else {
                context.insert(member.to_owned(), Value::Null);
            }
            let error = Event::from_slice(&serde_json::to_vec(&json).unwrap()).unwrap_err();
            assert_eq!(error, InvalidEvent::Missing { member: path });
            assert_eq!(error.to_string(), format!("the event lacks `{path}`"));
        }
    }
}

#[test]
fn member_of_wrong_type_is_named() {
    for (pointer, value, text) in [
        (
            "/requestContext/connectionId",
            json!(7),
            "the event's `requestContext.connectionId` is not valid: invalid type: integer `7`, expected a string",
        ),
        (
            "/requestContext/connectionId",
            json!("with space"),
            "the event's `requestContext.connectionId` is not valid: connection id \"with space\" is not valid: \
             expected 1 to 128 visible ASCII characters, not `.` or `..`",
        ),
        (
            "/requestContext/identity/sourceIp",
            json!("home"),
            "the event's `requestContext.identity.sourceIp` is not valid: expected an IP address",
        ),
        (
            "/requestContext/connectedAt",
            json!("yesterday"),
            "the event's `requestContext.connectedAt` is not valid: invalid type: string \"yesterday\", expected u64",
        ),
        (
            "/requestContext",
            json!("x"),
            "the event's `requestContext` is not valid: invalid type: string \"x\", expected an object",
        ),
        ("/body", json!({"a": 1}), "the event does not have the shape that API Gateway sends: line 1, column 8"),
    ] {
        let error = Event::from_slice(&fixture::changed("message", pointer, value)).unwrap_err().to_string();
        let error = error.split(" at line").next().unwrap().to_owned();
        assert_eq!(error, text, "{pointer}");
    }
}

#[test]
fn evt_13_any_host_is_accepted() {
    let json = fixture::changed("message", "/requestContext/domainName", "ws.example.com");
    assert_eq!(message(&json).request_context().domain_name, "ws.example.com");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    org: u64,
    admin: bool,
    ratio: f64,
    name: String,
    nothing: Option<String>,
    missing: Option<u8>,
}

#[test]
fn evt_14_and_aut_9_authorizer_context_values_regain_their_types() {
    for name in ["connect", "message", "disconnect"] {
        let event = fixture::event(name);
        let context = event.request_context();
        assert_eq!(context.principal_id(), Some("alice"), "{name}");
        let session: Session = context.context().unwrap();
        let expected =
            Session { org: 7, admin: true, ratio: 0.5, name: "s3cret-name".to_owned(), nothing: None, missing: None };
        assert_eq!(session, expected, "{name}");
    }
}

#[test]
fn evt_14_context_excludes_values_added_by_the_gateway() {
    let values: std::collections::BTreeMap<String, Option<String>> = connect("connect").context().unwrap();
    assert_eq!(values.keys().collect::<Vec<_>>(), ["admin", "name", "nothing", "org", "ratio"]);
}

#[test]
fn evt_14_context_is_empty_without_an_authorizer() {
    let message = message(&fixture::bytes("message_without_authorizer"));
    assert_eq!(message.principal_id(), None);
    message.context::<std::collections::BTreeMap<String, String>>().unwrap();
    assert_eq!(
        message.context::<Session>().unwrap_err().to_string(),
        "failed to deserialize the authorizer's context: missing field `org`"
    );
}

#[test]
fn mismatched_context_values_are_named_and_not_quoted() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Wrong<T> {
        name: T,
    }
    #[derive(Debug, Deserialize)]
    enum Colour {
        #[allow(dead_code)]
        Red,
    }
    let message = message(&fixture::bytes("message"));
    let text = |error: lambda_websocket::event::ContextMismatch| error.to_string();
    let errors = [
        (text(message.context::<Wrong<u64>>().unwrap_err()), "an integer that fits u64"),
        (text(message.context::<Wrong<bool>>().unwrap_err()), "`true` or `false`"),
        (text(message.context::<Wrong<f32>>().unwrap_err()), "a number"),
        (text(message.context::<Wrong<Vec<u8>>>().unwrap_err()), "a sequence"),
        (text(message.context::<Wrong<Colour>>().unwrap_err()), "one of Red"),
        (text(message.context::<Wrong<()>>().unwrap_err()), "unit"),
    ];
    for (error, expected) in errors {
        assert_eq!(error, format!("failed to deserialize the authorizer's context: name: expected {expected}"));
    }
}

#[test]
fn numeric_context_values_are_accepted() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Values {
        count: i32,
        text: String,
        ratio: f32,
        on: bool,
    }
    let authorizer = json!({"count": -7, "text": 7, "ratio": 1, "on": false});
    let message = message(&fixture::changed("message", "/requestContext/authorizer", authorizer));
    let values: Values = message.context().unwrap();
    assert_eq!(values, Values { count: -7, text: "7".to_owned(), ratio: 1.0, on: false });
}

#[test]
fn nested_context_values_are_refused() {
    let message = message(&fixture::changed("message", "/requestContext/authorizer", json!({"a": [1]})));
    let error = message.context::<std::collections::BTreeMap<String, String>>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to deserialize the authorizer's context: a: arrays are not supported in an authorizer's context"
    );
}

#[test]
fn invalid_json_error_has_position() {
    for (json, line, column) in [("", 1, 0), ("{\n\"a\"", 2, 3), ("nonsense", 1, 2), ("{}x", 1, 3)] {
        let error = Event::from_slice(json.as_bytes()).unwrap_err();
        assert_eq!(error, InvalidEvent::NotJson { line, column }, "{json}");
        assert_eq!(error.to_string(), format!("the event is not JSON: line {line}, column {column}"));
    }
}

#[test]
fn non_object_event_is_refused() {
    for json in ["[]", "7", "\"s3cret\"", "true"] {
        let error = Event::from_slice(json.as_bytes()).unwrap_err();
        assert!(matches!(error, InvalidEvent::Shape { .. }), "{json}: {error}");
        assert!(!error.to_string().contains("s3cret"));
    }
}

#[test]
fn event_of_another_service_is_named() {
    for (name, found) in [
        ("rest_api", "the event of a REST API"),
        ("http_api", "the event of an HTTP API or a function URL"),
        ("sqs", "a batch of records (SQS, SNS, S3 or a stream)"),
        ("authorizer", "the event of a REQUEST authorizer"),
        ("rest_authorizer", "the event of a REST API's authorizer"),
        ("http_authorizer", "the event of an HTTP API's authorizer"),
        ("token_authorizer", "the event of a TOKEN authorizer"),
    ] {
        let error = Event::from_slice(&fixture::bytes(name)).unwrap_err();
        assert_eq!(error.to_string(), format!("expected the event of a WebSocket route, found {found}"), "{name}");
    }
    for (json, found) in [
        ("{}", "an object without `requestContext.eventType`"),
        ("null", ""),
        (r#"{"requestContext": null}"#, "an object without `requestContext.eventType`"),
        (r#"{"requestContext": {"eventType": "PING"}}"#, "an event with another `requestContext.eventType`"),
    ] {
        let error = Event::from_slice(json.as_bytes()).unwrap_err().to_string();
        if !found.is_empty() {
            assert_eq!(error, format!("expected the event of a WebSocket route, found {found}"), "{json}");
        }
    }
}

#[test]
fn lim_1_body_of_128_kb_is_read() {
    let body = format!(r#"{{"action":"x","text":"{}"}}"#, "\u{e9}\\n".repeat(32_000));
    let message = message(&fixture::changed("message", "/body", body.clone()));
    assert_eq!(message.body, Body::Text(body));
}

#[test]
fn deeply_nested_json_does_not_overflow_and_is_refused() {
    let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    let event = format!(r#"{{"headers": {deep}, "requestContext": {{"eventType": "CONNECT"}}}}"#);
    // Parts that are not decoded are skipped without recursion; the error is about the missing members.
    assert_eq!(
        Event::from_slice(event.as_bytes()).unwrap_err(),
        InvalidEvent::Missing { member: "requestContext.connectionId" }
    );
    let message = message(&fixture::changed("message", "/body", deep));
    let error = message.body.json::<Value>().unwrap_err();
    assert_eq!(error.to_string(), "the message body is not JSON: line 1, column 128");
}

#[test]
fn event_carries_its_invocation() {
    let deadline = UNIX_EPOCH + Duration::from_secs(1_700_000_100);
    let event = fixture::event("message").with_invocation(Invocation::new("8476a536", deadline));
    let context = event.request_context();
    assert_eq!(context.deadline(), Some(deadline));
    assert_eq!(context.invocation().unwrap().request_id, "8476a536");
}

#[test]
fn body_mismatch_names_the_member() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Order {
        items: Vec<Item>,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Item {
        name: String,
    }
    let body = |text: &str| Body::Text(text.to_owned()).json::<Order>().unwrap_err();
    let error = body(r#"{"items":[{"name":"a"},{"name":5}]}"#);
    assert_eq!(error.client_text(), "items[1].name: invalid type: integer `5`, expected a string at line 1 column 32");
    assert_eq!(error.to_string(), "the message body is not valid for the route: line 1, column 32");
    assert_eq!(body("{}").client_text(), "missing field `items` at line 1 column 2");
    assert_eq!(body("hello").client_text(), "expected value at line 1 column 1");
    assert_eq!(body("").client_text(), "EOF while parsing a value at line 1 column 0");
    let long = body(&format!(r#"{{"items":"{}"}}"#, "é".repeat(50_000)));
    assert_eq!(long.client_text().chars().count(), 513);
}

proptest! {
    #[test]
    fn parsing_an_event_never_panics(json in ".{0,200}") {
        let _ = Event::from_slice(json.as_bytes());
    }

    #[test]
    fn body_round_trips_verbatim(body in "\\PC{0,100}") {
        let message = message(&fixture::changed("message", "/body", body.clone()));
        prop_assert_eq!(message.body, Body::Text(body));
    }

    /// AUT-9: a context round-trips, although the gateway converts every value to a string.
    #[test]
    fn aut_9_context_round_trips_through_the_gateway(
        org: u64,
        admin: bool,
        ratio in proptest::num::f64::NORMAL,
        name in "\\PC{0,40}",
        nothing in proptest::option::of("[a-z]{0,10}"),
        missing: Option<u8>,
    ) {
        let session = Session { org, admin, ratio, name, nothing, missing };
        let context = lambda_websocket::authorizer::Context::new(&session).unwrap();
        let mut authorizer: serde_json::Map<String, Value> = context
            .iter()
            .map(|(key, value)| {
                let text = match value {
                    Value::Null => Value::Null,
                    Value::String(text) => Value::String(text.clone()),
                    other => Value::String(other.to_string()),
                };
                (key.to_owned(), text)
            })
            .collect();
        authorizer.insert("principalId".to_owned(), "alice".into());
        let message = message(&fixture::changed("message", "/requestContext/authorizer", authorizer));
        prop_assert_eq!(message.context::<Session>().unwrap(), session);
    }
}

#[test]
fn stage_variables_and_identity_of_iam_can_be_read() {
    for name in ["connect_with_iam", "message_with_iam"] {
        let event = fixture::event(name);
        let context = event.request_context();
        assert_eq!(context.stage_variable("tenant"), Some("blue"));
        assert_eq!(context.stage_variable("nothing"), None);
        let mut variables: Vec<_> = context.stage_variables().collect();
        variables.sort_unstable();
        assert_eq!(variables, [("table", "connections-blue"), ("tenant", "blue")]);
        let identity = context.iam_identity().unwrap();
        assert_eq!(identity.user_arn(), Some("arn:aws:sts::123456789012:assumed-role/clients/alice"));
        assert_eq!(identity.caller(), Some("AROAEXAMPLEEXAMPLE123:alice"));
        assert_eq!(identity.user(), identity.caller());
        assert_eq!(identity.account_id(), Some("123456789012"));
        assert_eq!(identity.access_key(), Some("ASIAEXAMPLEEXAMPLE12"));
        assert_eq!(identity.principal_org_id(), Some("o-exampleorg1"));
        assert_eq!((identity.cognito_identity_id(), identity.cognito_identity_pool_id()), (None, None));
        assert_eq!((identity.cognito_authentication_type(), identity.cognito_authentication_provider()), (None, None));
        assert_eq!(
            format!("{identity:?}"),
            r#"{"userArn", "caller", "user", "accountId", "accessKey", "principalOrgId"}"#
        );
        assert_eq!(context.principal_id(), None, "IAM names no principal");
    }
    let cognito =
        fixture::changed("message_with_iam", "/requestContext/identity/cognitoIdentityId", "eu-central-1:1-2-3");
    let event = Event::from_slice(&cognito).unwrap();
    let identity = event.request_context().iam_identity().unwrap();
    assert_eq!(identity.cognito_identity_id(), Some("eu-central-1:1-2-3"));
    // Other events have neither.
    for name in ["connect", "message", "disconnect", "message_of_2020"] {
        let event = fixture::event(name);
        assert!(event.request_context().iam_identity().is_none(), "{name}");
        assert_eq!(event.request_context().stage_variables().count(), 0, "{name}");
    }
    for odd in [json!([]), json!("x"), json!({"tenant": 7}), Value::Null] {
        let mut event = fixture::json("message_with_iam");
        event["stageVariables"] = odd;
        let event: Event = serde_json::from_value(event).unwrap();
        assert_eq!(event.request_context().stage_variable("tenant"), None);
    }
}

#[test]
fn raw_context_can_be_read() {
    let event = fixture::event("message_with_iam");
    let raw: Value = serde_json::from_str(event.request_context().raw_json()).unwrap();
    assert_eq!(raw, fixture::json("message_with_iam")["requestContext"]);
    assert_eq!(raw["extendedRequestId"], "Kb7qAF22PHcEdGg=");
    let Event::Message(message) = event else { panic!() };
    let message = message.decode::<Value>().unwrap();
    assert_eq!(message.request_context().stage_variable("tenant"), Some("blue"));
}
