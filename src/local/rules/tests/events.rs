//! The events that functions receive, with exactly their members.

use super::*;

#[test]
fn aut_2_authorizer_event_has_exactly_these_members() {
    let test = Test::upgrade(api(), &[("Auth", "token"), ("a", "1"), ("a", "2")]);
    let (_, function, event) = test.call();
    assert_eq!(function, 0);
    assert_eq!(
        members(&event),
        [
            "headers",
            "methodArn",
            "multiValueHeaders",
            "multiValueQueryStringParameters",
            "queryStringParameters",
            "requestContext",
            "stageVariables",
            "type",
        ]
    );
    assert_eq!(event["type"], "REQUEST");
    assert_eq!(event["methodArn"], "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/$connect");
    assert_eq!(members(&event["requestContext"]), CONTEXT);
    assert_eq!(event["queryStringParameters"], json!({"Auth": "token", "a": "2"}));
    assert_eq!(event["multiValueQueryStringParameters"], json!({"Auth": ["token"], "a": ["1", "2"]}));
    assert_eq!(event["stageVariables"], json!({"tenant": "blue"}));
    assert_eq!(event["headers"]["Connection"], "upgrade");
}

#[test]
fn aut_2_authorizer_event_has_empty_maps() {
    let mut api = api();
    api.authorizer.as_mut().unwrap().identity_sources.clear();
    let mut machine = Machine::new(api, 1);
    let (_, effects) = machine.upgrade(at(0), Stage::new("prod").unwrap(), handshake(&[]));
    let [Effect::Invoke { payload, .. }] = effects.as_slice() else { panic!() };
    let event: Value = serde_json::from_slice(payload).unwrap();
    for map in ["queryStringParameters", "multiValueQueryStringParameters", "stageVariables"] {
        assert_eq!(event[map], json!({}), "{map}");
    }
}

#[test]
fn evt_3_6_11_and_14_connect_event_has_exactly_these_members() {
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    test.answer(at(2), allow(json!({"org": 7, "admin": true, "ratio": 0.5, "name": "x", "nothing": null})));
    let (_, function, event) = test.call();
    assert_eq!(function, 1);
    assert_eq!(
        members(&event),
        [
            "headers",
            "isBase64Encoded",
            "multiValueHeaders",
            "multiValueQueryStringParameters",
            "queryStringParameters",
            "requestContext",
            "stageVariables",
        ]
    );
    let context = &event["requestContext"];
    assert_eq!(members(context), with(&["authorizer"]));
    assert_eq!(
        context["authorizer"],
        json!({
            "org": "7", "admin": "true", "ratio": "0.5", "name": "x", "nothing": null,
            "principalId": "alice", "integrationLatency": 2000,
        })
    );
    assert_eq!(context["requestTime"], "14/Nov/2023:22:13:22 +0000");
    assert_eq!(context["connectedAt"], 1_700_000_000_000_u64);
    assert_eq!(context["requestTimeEpoch"], 1_700_000_002_000_u64);
    assert_eq!(context["identity"], json!({"sourceIp": "127.0.0.1", "userAgent": "test"}));
    assert_eq!(context["domainName"], "127.0.0.1:3001");
    assert_eq!(context["messageDirection"], "IN");
    assert_eq!(context["requestId"], context["extendedRequestId"]);
    let headers = &event["headers"];
    assert!(headers.get("Connection").is_none() && headers.get("Upgrade").is_none());
    assert_eq!(headers["X-Forwarded-For"], "127.0.0.1");
    assert_eq!(headers["X-Forwarded-Port"], "3001");
    assert_eq!(headers["Sec-WebSocket-Protocol"], "b, a");
    let trace = headers["X-Amzn-Trace-Id"].as_str().unwrap();
    assert_eq!((trace.len(), &trace[..16]), (40, "Root=1-6553f100-"), "{trace}");
}

#[test]
fn evt_3_query_maps_are_absent_without_a_query() {
    let mut api = api();
    api.authorizer = None;
    let mut machine = Machine::new(api, 1);
    let (_, effects) = machine.upgrade(at(0), Stage::new("prod").unwrap(), handshake(&[]));
    let [Effect::Invoke { payload, .. }] = effects.as_slice() else { panic!() };
    let event: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(members(&event), ["headers", "isBase64Encoded", "multiValueHeaders", "requestContext"]);
    assert_eq!(members(&event["requestContext"]), CONTEXT);
}

#[test]
fn evt_2_and_14_message_event_has_exactly_these_members() {
    let mut test = Test::open();
    let body = r#"{"action":"join", "text":"\u00e9"}"#;
    test.message(at(5), body);
    let (_, function, event) = test.call();
    assert_eq!(function, 3);
    assert_eq!(members(&event), ["body", "isBase64Encoded", "requestContext", "stageVariables"]);
    assert_eq!(event["body"], body, "verbatim");
    let context = &event["requestContext"];
    assert_eq!(members(context), with(&["authorizer", "messageId"]));
    assert_eq!(context["authorizer"], json!({"org": "7", "admin": "true", "nothing": null, "principalId": "alice"}));
    assert_eq!(context["routeKey"], "join");
    assert_eq!(context["connectedAt"], 1_700_000_000_000_u64);
    let ids = ["connectionId", "messageId", "requestId"].map(|id| context[id].as_str().unwrap());
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    for id in ids {
        assert!(id.len() == 16 && id.ends_with('='), "EVT-12: {id}");
    }
}

#[test]
fn evt_4_disconnect_event_has_exactly_these_members() {
    let mut test = Test::open();
    test.effects = test.machine.closed(at(9), &test.id.clone(), 1005, "Client-side close frame status not set");
    let (_, function, event) = test.call();
    assert_eq!(function, 2);
    assert_eq!(
        members(&event),
        ["headers", "isBase64Encoded", "multiValueHeaders", "requestContext", "stageVariables"]
    );
    assert_eq!(
        event["headers"],
        json!({"Host": "127.0.0.1:3001", "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""})
    );
    let context = &event["requestContext"];
    assert_eq!(members(context), with(&["authorizer", "disconnectReason", "disconnectStatusCode"]));
    assert_eq!(context["disconnectStatusCode"], 1005);
    assert_eq!(context["disconnectReason"], "Client-side close frame status not set");
    test.answer(at(9), json!(null));
    assert!(test.effects.is_empty(), "DIS-2: nobody hears the answer");
}

#[test]
fn evt_12_same_seed_generates_same_ids() {
    let ids = |seed| {
        let mut machine = Machine::new(api(), seed);
        (0..5).map(|_| machine.id::<ConnectionId>().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(7), ids(7));
    assert_ne!(ids(7), ids(8));
}

#[test]
fn evt_8_user_agent_is_absent_when_client_sends_none() {
    let mut without = handshake(&[("Auth", "token")]);
    without.headers.retain(|(name, _)| name != "User-Agent");
    let mut machine = Machine::new(api(), 1);
    let (_, effects) = machine.upgrade(at(0), Stage::new("dev").unwrap(), without);
    let [Effect::Invoke { payload, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let event: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(event["requestContext"]["identity"], json!({"sourceIp": "127.0.0.1"}));
}
