//! The rules, without sockets and without waiting.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::*;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn at(seconds: u64) -> SystemTime {
    // 2023-11-14T22:13:20Z, and so many seconds.
    START + Duration::from_secs(1_700_000_000 + seconds)
}

fn integration(function: FunctionId, two_way: bool) -> Integration {
    Integration { function, two_way, timeout: Api::INTEGRATION_TIMEOUT }
}

/// Function 0 is the authorizer, 1 `$connect`, 2 `$disconnect`, 3 `join`, 4 `ask` (two-way).
fn api() -> Api {
    let route = |key: &str, function, two_way| (RouteKey::new(key).unwrap(), integration(function, two_way));
    Api {
        api_id: ApiId::new("a1b2c3d4e5").unwrap(),
        region: Region::new("eu-central-1").unwrap(),
        stages: BTreeMap::from([
            (Stage::new("dev").unwrap(), vec![("tenant".to_owned(), "blue".to_owned())]),
            (Stage::new("prod").unwrap(), Vec::new()),
        ]),
        selection: RouteSelection::default(),
        routes: BTreeMap::from([
            route("$connect", 1, false),
            route("$disconnect", 2, false),
            route("join", 3, false),
            route("ask", 4, true),
        ]),
        authorizer: Some(Authorizer {
            function: 0,
            identity_sources: vec!["route.request.querystring.Auth".parse().unwrap()],
        }),
        idle_timeout: Api::IDLE_TIMEOUT,
        lifetime: Api::LIFETIME,
    }
}

fn handshake(query: &[(&str, &str)]) -> Handshake {
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    Handshake {
        headers: owned(&[
            ("Host", "127.0.0.1:3001"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("User-Agent", "test"),
            ("Sec-WebSocket-Protocol", "b, a"),
        ]),
        query: owned(query),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 3001,
    }
}

struct Test {
    machine: Machine,
    id: ConnectionId,
    effects: Vec<Effect>,
}

impl Test {
    fn upgrade(api: Api, query: &[(&str, &str)]) -> Self {
        let mut machine = Machine::new(api, 1);
        let (id, effects) = machine.upgrade(at(0), Stage::new("dev").unwrap(), handshake(query));
        Self { machine, id, effects }
    }

    /// A connection that is open.
    fn open() -> Self {
        let mut test = Self::upgrade(api(), &[("Auth", "token")]);
        test.answer(at(0), allow(json!({"org": 7, "admin": true, "nothing": null})));
        test.answer(at(0), json!({"statusCode": 200}));
        assert!(matches!(test.effects.as_slice(), [Effect::Accept { subprotocol: None, .. }]));
        test
    }

    /// The one call that is under way: its function and its event.
    fn call(&self) -> (CallId, FunctionId, Value) {
        match self.effects.as_slice() {
            [Effect::Invoke { call, function, payload, .. }] => {
                (*call, *function, serde_json::from_slice(payload).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, now: SystemTime, answer: Value) {
        let (call, _, _) = self.call();
        self.effects = self.machine.answered(now, call, Ok(serde_json::to_vec(&answer).unwrap()));
    }

    fn fail(&mut self, now: SystemTime, message: &str) {
        let (call, _, _) = self.call();
        self.effects = self.machine.answered(now, call, Err(FunctionError::new("Error", message)));
    }

    fn message(&mut self, now: SystemTime, body: &str) {
        self.effects = self.machine.message(now, &self.id.clone(), body);
    }

    /// The status and the error type with which the upgrade was refused.
    fn refused(&self) -> (u16, Option<&'static str>) {
        match self.effects.as_slice() {
            [Effect::Refuse { refusal, .. }] => (refusal.status, refusal.error_type),
            other => panic!("{other:?}"),
        }
    }

    fn sent(&self) -> &str {
        match self.effects.as_slice() {
            [Effect::Send { text, .. }] => text,
            other => panic!("{other:?}"),
        }
    }
}

fn allow(context: Value) -> Value {
    json!({
        "principalId": "alice",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{
                "Action": "execute-api:Invoke",
                "Effect": "Allow",
                "Resource": "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/$connect",
            }],
        },
        "context": context,
    })
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

const CONTEXT: [&str; 13] = [
    "apiId",
    "connectedAt",
    "connectionId",
    "domainName",
    "eventType",
    "extendedRequestId",
    "identity",
    "messageDirection",
    "requestId",
    "requestTime",
    "requestTimeEpoch",
    "routeKey",
    "stage",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut all: Vec<&str> = CONTEXT.iter().chain(more).copied().collect();
    all.sort_unstable();
    all
}

#[test]
fn aut_2_the_authorizer_gets_exactly_these_members() {
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
    assert_eq!(event["headers"]["Connection"], "Upgrade");
}

#[test]
fn aut_2_empty_maps_are_there_for_the_authorizer() {
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
fn evt_3_6_11_and_14_connect_gets_exactly_these_members() {
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
fn evt_3_without_a_query_there_are_no_query_maps() {
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
fn evt_2_and_14_a_message_gets_exactly_these_members() {
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
fn evt_4_a_disconnect_gets_exactly_these_members() {
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
fn aut_3_without_its_identity_source_the_authorizer_is_not_asked() {
    for query in [&[] as &[(&str, &str)], &[("Auth", "")], &[("auth", "token")]] {
        let test = Test::upgrade(api(), query);
        assert_eq!(test.refused(), (401, None), "{query:?}");
        let [Effect::Refuse { refusal, .. }] = test.effects.as_slice() else { panic!() };
        let start = format!(r#"{{"message": "Unauthorized", "connectionId":"{}", "requestId":""#, test.id);
        assert!(refusal.body.starts_with(&start), "{}", refusal.body);
    }
    for (source, is_there) in [
        ("route.request.header.user-agent", true),
        ("route.request.header.none", false),
        ("stageVariables.tenant", true),
        ("stageVariables.none", false),
        ("context.identity.sourceIp", true),
        ("context.none", false),
    ] {
        let mut api = api();
        api.authorizer.as_mut().unwrap().identity_sources = vec![source.parse().unwrap()];
        let test = Test::upgrade(api, &[]);
        assert_eq!(matches!(test.effects.as_slice(), [Effect::Invoke { .. }]), is_there, "{source}");
    }
}

#[test]
fn aut_4_to_11_what_the_authorizers_answer_means() {
    let refused = |change: fn(&mut Value)| {
        let mut answer = allow(json!({}));
        change(&mut answer);
        let mut test = Test::upgrade(api(), &[("Auth", "token")]);
        test.answer(at(0), answer);
        test.refused()
    };
    let configuration = (500, Some("AuthorizerConfigurationException"));
    assert_eq!(refused(|answer| answer["policyDocument"]["Statement"][0]["Effect"] = "Deny".into()), (403, None));
    assert_eq!(
        refused(|answer| {
            answer["policyDocument"]["Statement"][0]["Resource"] =
                "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/dev/*/*".into();
        }),
        (403, None),
        "AUT-6"
    );
    assert_eq!(refused(|answer| answer["policyDocument"]["Statement"] = json!([])), (403, None));
    assert_eq!(refused(|answer| answer["context"] = json!({"roles": ["a"]})), configuration);
    assert_eq!(refused(|answer| answer["context"] = json!({"session": {}})), configuration);
    assert_eq!(refused(|answer| drop(answer.as_object_mut().unwrap().remove("principalId"))), (500, None));
    assert_eq!(refused(|answer| answer["principalId"] = "".into()), (500, None));
    assert_eq!(refused(|answer| drop(answer.as_object_mut().unwrap().remove("policyDocument"))), (500, None));
    assert_eq!(refused(|answer| answer["policyDocument"]["Statement"][0]["Condition"] = Value::Null), (500, None));
    assert_eq!(refused(|answer| answer["surprise"] = Value::Null), (500, None));
    assert_eq!(refused(|answer| answer["context"] = json!({"x": "y".repeat(8192)})), (500, None), "AUT-10");
    assert_eq!(refused(|answer| *answer = json!("yes")), (500, None));
}

#[test]
fn aut_7_how_an_authorizer_fails() {
    for (message, status) in [("Unauthorized", 401), ("unauthorized", 500), ("Unauthorized.", 500), ("oops", 500)] {
        let mut test = Test::upgrade(api(), &[("Auth", "token")]);
        test.fail(at(0), message);
        assert_eq!(test.refused(), (status, None), "{message}");
    }
}

#[test]
fn con_2_and_3_the_verdict_of_connect() {
    let verdict = |answer: Value| {
        let mut test = Test::upgrade(api(), &[("Auth", "token")]);
        test.answer(at(0), allow(json!({})));
        test.answer(at(0), answer);
        test
    };
    for status in [200, 201, 204, 299] {
        assert!(
            matches!(verdict(json!({"statusCode": status})).effects.as_slice(), [Effect::Accept { .. }]),
            "{status}"
        );
    }
    for status in [100, 301, 400, 401, 403, 404, 500, 501, 599] {
        assert_eq!(verdict(json!({"statusCode": status})).refused(), (status, None));
    }
    for malformed in [
        json!(null),
        json!({}),
        json!([]),
        json!("ok"),
        json!({"statusCode": "200"}),
        json!({"statusCode": 0}),
        json!({"statusCode": 600}),
        json!({"statusCode": 200, "body": {}}),
        json!({"statusCode": 200, "headers": []}),
    ] {
        assert_eq!(verdict(malformed.clone()).refused(), (502, None), "{malformed}");
    }
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    test.answer(at(0), allow(json!({})));
    test.fail(at(0), "oops");
    assert_eq!(test.refused(), (502, None));
    assert!(test.machine.closed(at(1), &test.id.clone(), 1006, "").is_empty(), "DIS-2: no $disconnect for it");
}

#[test]
fn con_5_only_an_offered_subprotocol_is_passed_on() {
    for (selected, passed) in [("a", Some("a")), ("b", Some("b")), ("c", None), ("b, a", None)] {
        let mut test = Test::upgrade(api(), &[("Auth", "token")]);
        test.answer(at(0), allow(json!({})));
        test.answer(at(0), json!({"statusCode": 200, "headers": {"sec-websocket-PROTOCOL": selected, "x": "y"}}));
        let [Effect::Accept { subprotocol, .. }] = test.effects.as_slice() else { panic!() };
        assert_eq!(subprotocol.as_deref(), passed, "{selected}");
    }
}

#[test]
fn con_1_what_takes_too_long_is_refused() {
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    assert!(test.machine.tick(at(28)).is_empty());
    test.effects = test.machine.tick(at(29));
    assert_eq!(test.refused(), (500, None));

    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    test.answer(at(20), allow(json!({})));
    let late = test.call().0;
    assert!(test.machine.tick(at(48)).is_empty());
    test.effects = test.machine.tick(at(49));
    assert_eq!(test.refused(), (504, None));
    assert!(test.machine.answered(at(50), late, Ok(br#"{"statusCode":200}"#.to_vec())).is_empty());
}

#[test]
fn con_4_without_a_route_and_an_authorizer_every_connection_is_accepted() {
    let mut api = api();
    api.authorizer = None;
    api.routes.clear();
    let mut test = Test::upgrade(api, &[]);
    assert!(matches!(test.effects.as_slice(), [Effect::Accept { .. }]));
    assert!(test.machine.closed(at(1), &test.id.clone(), 1000, "").is_empty());
}

#[test]
fn con_6_and_mgt_3_to_5_who_can_be_pushed_to() {
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    let id = test.id.clone();
    let refused = |delivery: Delivery| match delivery {
        Delivery::Refused(refusal) => (refusal.status, refusal.error_type, refusal.body),
        Delivery::To(id) => panic!("{id}"),
    };
    let gone = || (410, Some("GoneException"), String::new());
    assert_eq!(refused(test.machine.post(at(0), "dev", id.as_str())), gone(), "not open yet");
    test.answer(at(0), allow(json!({})));
    assert_eq!(refused(test.machine.post(at(0), "dev", id.as_str())), gone());
    test.answer(at(0), json!({"statusCode": 200}));
    assert!(matches!(test.machine.post(at(0), "dev", id.as_str()), Delivery::To(_)));
    assert_eq!(refused(test.machine.post(at(0), "prod", id.as_str())), gone(), "another stage's");
    for malformed in
        ["", "x", "L0SM9cOFvHcCIhw", "L0SM9cOFvHcCIh==", "L0SM9cOFvHcCI w=", "../../../../../=", "éééééééé"]
    {
        let (status, error_type, body) = refused(test.machine.post(at(0), "dev", malformed));
        assert_eq!((status, error_type), (400, Some("BadRequestException")), "{malformed}");
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({"message": format!("Invalid connectionId: {malformed}")})
        );
    }
    test.machine.closed(at(1), &id, 1000, "");
    assert_eq!(refused(test.machine.post(at(1), "dev", id.as_str())), gone(), "closed");
}

#[test]
fn mgt_2_info_tells_when() {
    let mut test = Test::open();
    test.message(at(65), r#"{"action":"join"}"#);
    let info = test.machine.info("dev", test.id.as_str()).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&info).unwrap(),
        json!({
            "connectedAt": "2023-11-14T22:13:20.000Z",
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "test"},
            "lastActiveAt": "2023-11-14T22:14:25.000Z",
        })
    );
}

#[test]
fn mgt_9_delete_closes_with_1000() {
    let mut test = Test::open();
    let effects = test.machine.delete(at(1), "dev", test.id.clone().as_str()).unwrap();
    let [Effect::Close { code: 1000, reason: "", .. }, Effect::Invoke { payload, .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let event: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(event["requestContext"]["disconnectStatusCode"], 1000);
    assert_eq!(event["requestContext"]["disconnectReason"], "Connection Closed Normally");
}

#[test]
fn rte_3_to_5_what_a_message_selects() {
    let mut test = Test::open();
    for body in ["", "hello", "{}", r#"{"action":"JOIN"}"#, r#"{"action":"$connect"}"#, r#"{"action":"$default"}"#] {
        test.message(at(1), body);
        assert!(test.sent().starts_with(r#"{"message": "Forbidden", "connectionId":""#), "{body}");
    }
    test.machine.api.routes.insert(RouteKey::new("$default").unwrap(), integration(9, false));
    for body in ["", "hello", "{}", r#"{"action":"JOIN"}"#, r#"{"action":"$connect"}"#] {
        test.message(at(1), body);
        let (_, function, event) = test.call();
        assert_eq!((function, &event["requestContext"]["routeKey"]), (9, &json!("$default")), "{body}");
    }
    test.message(at(1), r#"{"action":"join"}"#);
    assert_eq!(test.call().1, 3);
}

#[test]
fn msg_1_to_4_what_the_client_sees() {
    let mut test = Test::open();
    test.message(at(1), r#"{"action":"join"}"#);
    test.answer(at(1), json!({"statusCode": 500, "body": "unseen"}));
    assert!(test.effects.is_empty());

    for (answer, seen) in [
        (json!({"statusCode": 200, "body": "yes"}), Some("yes")),
        (json!({"statusCode": 500, "body": "no"}), Some("no")),
        (json!({"statusCode": 200, "body": ""}), None),
        (json!({"statusCode": 200}), None),
    ] {
        test.message(at(1), r#"{"action":"ask"}"#);
        test.answer(at(1), answer);
        assert_eq!((!test.effects.is_empty()).then(|| test.sent()), seen);
    }

    let id = test.id.clone();
    let frame = |message: &str| format!(r#"{{"message": "{message}", "connectionId":"{id}", "requestId":""#);
    for action in ["join", "ask"] {
        test.message(at(1), &format!(r#"{{"action":"{action}"}}"#));
        test.fail(at(1), "Unauthorized");
        assert!(test.sent().starts_with(&frame("Internal server error")));
        test.message(at(1), &format!(r#"{{"action":"{action}"}}"#));
        test.answer(at(1), json!(null));
        assert!(test.sent().starts_with(&frame("Internal server error")));
        test.message(at(1), &format!(r#"{{"action":"{action}"}}"#));
        test.effects = test.machine.tick(at(30));
        assert!(test.sent().starts_with(&frame("Endpoint request timed out")));
    }
}

#[test]
fn msg_5_answers_may_come_in_another_order() {
    let mut test = Test::open();
    test.message(at(1), r#"{"action":"ask","n":1}"#);
    let first = test.call().0;
    test.message(at(1), r#"{"action":"ask","n":2}"#);
    let second = test.call().0;
    for (call, text) in [(second, "two"), (first, "one")] {
        let answer = serde_json::to_vec(&json!({"statusCode": 200, "body": text})).unwrap();
        test.effects = test.machine.answered(at(2), call, Ok(answer));
        assert_eq!(test.sent(), text);
    }
}

#[test]
fn an_answer_to_a_closed_connection_is_lost() {
    let mut test = Test::open();
    test.message(at(1), r#"{"action":"ask"}"#);
    let call = test.call().0;
    test.machine.closed(at(2), &test.id.clone(), 1001, "");
    let answer = br#"{"statusCode":200,"body":"x"}"#.to_vec();
    assert!(test.machine.answered(at(3), call, Ok(answer)).is_empty());
    test.message(at(4), r#"{"action":"ask"}"#);
    assert!(test.effects.is_empty());
}

#[test]
fn lim_3_ten_idle_minutes_end_a_connection() {
    let mut test = Test::open();
    test.message(at(300), r#"{"action":"join"}"#);
    test.answer(at(300), json!({"statusCode": 200}));
    assert!(test.machine.tick(at(600)).is_empty(), "a message started the time anew");
    assert!(matches!(test.machine.post(at(700), "dev", test.id.clone().as_str()), Delivery::To(_)));
    assert!(test.machine.tick(at(1299)).is_empty(), "and so did a push");
    let effects = test.machine.tick(at(1300));
    assert!(
        matches!(
            effects.as_slice(),
            [Effect::Close { code: 1001, reason: "Going away", .. }, Effect::Invoke { function: 2, .. }]
        ),
        "{effects:?}"
    );
}

#[test]
fn lim_3_two_hours_end_the_liveliest_connection() {
    let mut test = Test::open();
    for minute in 1..120 {
        assert!(test.machine.tick(at(minute * 60)).is_empty());
        test.message(at(minute * 60), r#"{"action":"join"}"#);
        test.answer(at(minute * 60), json!({"statusCode": 200}));
    }
    assert!(test.machine.tick(at(7199)).is_empty());
    assert!(matches!(test.machine.tick(at(7200)).as_slice(), [Effect::Close { code: 1001, .. }, _]));
    assert!(test.machine.connections.is_empty());
}

#[test]
fn nothing_is_left_when_a_connection_is() {
    let mut test = Test::open();
    for _ in 0..10 {
        test.message(at(1), r#"{"action":"ask"}"#);
        test.answer(at(1), json!({"statusCode": 200, "body": "x"}));
    }
    test.effects = test.machine.closed(at(2), &test.id.clone(), 1000, "");
    test.answer(at(2), json!({"statusCode": 200}));
    assert!(test.machine.calls.is_empty() && test.machine.connections.is_empty());
    assert!(test.machine.tick(at(100_000)).is_empty());
    assert!(test.machine.due.is_empty());
}

#[test]
fn evt_12_the_same_seed_makes_the_same_ids() {
    let ids = |seed| {
        let mut machine = Machine::new(api(), seed);
        (0..5).map(|_| machine.id::<ConnectionId>().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(7), ids(7));
    assert_ne!(ids(7), ids(8));
}
