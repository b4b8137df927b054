//! The handshake: which clients may connect.

use super::*;

#[test]
fn aut_3_missing_identity_source_skips_the_authorizer() {
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
        ("context.identity.userAgent", true),
        ("context.requestTimeEpoch", true),
        ("context.eventType", true),
    ] {
        let mut api = api();
        api.authorizer.as_mut().unwrap().identity_sources = vec![source.parse().unwrap()];
        let test = Test::upgrade(api, &[]);
        assert_eq!(matches!(test.effects.as_slice(), [Effect::Invoke { .. }]), is_there, "{source}");
    }
}

#[test]
fn aut_4_to_11_authorizer_response_decides_the_handshake() {
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
fn aut_7_authorizer_error_maps_to_401_or_500() {
    for (message, status) in [("Unauthorized", 401), ("unauthorized", 500), ("Unauthorized.", 500), ("oops", 500)] {
        let mut test = Test::upgrade(api(), &[("Auth", "token")]);
        test.fail(at(0), message);
        assert_eq!(test.refused(), (status, None), "{message}");
    }
}

#[test]
fn con_2_and_3_connect_response_decides_the_handshake() {
    let verdict = |answer: Value| {
        let mut test = Test::upgrade(api(), &[("Auth", "token")]);
        test.answer(at(0), allow(json!({})));
        test.answer(at(0), answer);
        test
    };
    for status in [json!(200), json!(201), json!(204), json!(299), json!("200")] {
        assert!(
            matches!(verdict(json!({"statusCode": status})).effects.as_slice(), [Effect::Accept { .. }]),
            "{status}"
        );
    }
    for status in [301, 400, 401, 403, 404, 500, 501, 599] {
        assert_eq!(verdict(json!({"statusCode": status})).refused(), (status, None));
    }
    for malformed in [
        json!(null),
        json!({}),
        json!([]),
        json!("ok"),
        json!({"statusCode": "two hundred"}),
        json!({"statusCode": 200, "Data": "y"}),
        json!({"statusCode": 101}),
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
fn con_5_only_an_offered_subprotocol_is_accepted() {
    for (selected, passed) in [("a", Some("a")), ("b", Some("b")), ("c", None), ("b, a", None)] {
        let mut test = Test::upgrade(api(), &[("Auth", "token")]);
        test.answer(at(0), allow(json!({})));
        test.answer(at(0), json!({"statusCode": 200, "headers": {"sec-websocket-PROTOCOL": selected, "x": "y"}}));
        let [Effect::Accept { subprotocol, .. }] = test.effects.as_slice() else { panic!() };
        assert_eq!(subprotocol.as_deref(), passed, "{selected}");
    }
}

#[test]
fn con_1_slow_authorizer_or_connect_times_out() {
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
fn evt_15_accepted_client_that_never_opens_is_disconnected_with_1006() {
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    assert!(test.machine.never_opened(at(0), &test.id.clone()).is_empty(), "its verdict will find nobody");
    let mut test = Test::open();
    let ended = test.machine.never_opened(at(1), &test.id.clone());
    let [Effect::Close { code: 1006, .. }, Effect::Invoke { function: 2, payload, .. }] = ended.as_slice() else {
        panic!("{ended:?}")
    };
    let event: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(event["requestContext"]["disconnectStatusCode"], 1006);
    assert!(test.machine.never_opened(at(2), &test.id.clone()).is_empty(), "once");
}

#[test]
fn con_4_every_connection_is_accepted_without_connect_route_and_authorizer() {
    let mut api = api();
    api.authorizer = None;
    api.routes.clear();
    let mut test = Test::upgrade(api, &[]);
    assert!(matches!(test.effects.as_slice(), [Effect::Accept { .. }]));
    assert!(test.machine.closed(at(1), &test.id.clone(), 1000, "").is_empty());
}

#[test]
fn aut_13_gateway_sets_condition_keys() {
    let let_in = |condition: Value| {
        let mut answer = allow(json!({}));
        answer["policyDocument"]["Statement"][0]["Condition"] = condition;
        let mut test = Test::upgrade(api(), &[("Auth", "token")]);
        test.answer(at(0), answer);
        matches!(test.effects.as_slice(), [Effect::Invoke { .. }])
    };
    assert!(let_in(json!({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}})));
    assert!(!let_in(json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})));
    assert!(let_in(json!({"StringEquals": {"aws:UserAgent": "test"}})));
    assert!(let_in(json!({"DateLessThan": {"aws:CurrentTime": "2023-11-14T22:13:21Z"}})));
    assert!(let_in(json!({"Bool": {"aws:SecureTransport": "false"}})));
    assert!(let_in(json!({"Null": {"aws:Referer": "true"}})));
    assert!(!let_in(json!({"StringEquals": {"aws:PrincipalArn": "me"}})));
}
