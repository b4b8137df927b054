//! Messages, responses, and pushes.

use super::*;

#[test]
fn con_6_and_mgt_3_to_5_push_to_unopened_or_unknown_connection_is_refused() {
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    let id = test.id.clone();
    let refused = |delivery: Delivery| match delivery {
        Delivery::Refused(refusal) => (refusal.status, refusal.error_type, refusal.body),
        other => panic!("{other:?}"),
    };
    let gone = || (410, Some("GoneException"), String::new());
    assert_eq!(refused(test.machine.post(at(0), Some("dev"), id.as_str(), "text".to_owned())), gone(), "not open yet");
    test.answer(at(0), allow(json!({})));
    assert_eq!(refused(test.machine.post(at(0), Some("dev"), id.as_str(), "text".to_owned())), gone());
    test.answer(at(0), json!({"statusCode": 200}));
    assert!(matches!(test.machine.post(at(0), Some("dev"), id.as_str(), "text".to_owned()), Delivery::To(..)));
    assert_eq!(
        refused(test.machine.post(at(0), Some("prod"), id.as_str(), "text".to_owned())),
        gone(),
        "another stage's"
    );
    for malformed in
        ["", "x", "L0SM9cOFvHcCIhw", "L0SM9cOFvHcCIh==", "L0SM9cOFvHcCI w=", "../../../../../=", "éééééééé"]
    {
        let (status, error_type, body) = refused(test.machine.post(at(0), Some("dev"), malformed, "text".to_owned()));
        assert_eq!((status, error_type), (400, Some("BadRequestException")), "{malformed}");
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({"message": format!("Invalid connectionId: {malformed}")})
        );
    }
    test.machine.closed(at(1), &id, 1000, "");
    assert_eq!(refused(test.machine.post(at(1), Some("dev"), id.as_str(), "text".to_owned())), gone(), "closed");
}

#[test]
fn mgt_2_get_returns_connection_times() {
    let mut test = Test::open();
    test.message(at(65), r#"{"action":"join"}"#);
    let info = test.machine.info(at(65), Some("dev"), test.id.clone().as_str()).unwrap().unwrap();
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
    let (_, effects) = test.machine.delete(at(1), Some("dev"), test.id.clone().as_str()).unwrap();
    let [Effect::Close { code: 1000, reason: "", .. }, Effect::Invoke { payload, .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let event: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(event["requestContext"]["disconnectStatusCode"], 1000);
    assert_eq!(event["requestContext"]["disconnectReason"], "Connection Closed Normally");
}

#[test]
fn rte_3_to_5_message_selects_route_or_default_or_forbidden() {
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
fn msg_1_to_4_client_receives_route_response_or_error_frame() {
    let mut test = Test::open();
    test.message(at(1), r#"{"action":"join"}"#);
    test.answer(at(1), json!({"statusCode": 500, "body": "unseen"}));
    assert!(test.effects.is_empty());

    for (answer, seen) in [
        (json!({"statusCode": 200, "body": "yes"}), "yes"),
        (json!({"statusCode": 500, "body": "no"}), "no"),
        (json!({"statusCode": 200, "body": ""}), ""),
        (json!({"statusCode": 200, "body": null}), ""),
        (json!({"statusCode": 200}), ""),
    ] {
        test.message(at(1), r#"{"action":"ask"}"#);
        test.answer(at(1), answer);
        assert_eq!(test.sent(), seen);
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
fn msg_5_route_responses_may_arrive_out_of_order() {
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
fn msg_6_response_with_unknown_member_is_malformed() {
    let shown = |answer: Value| {
        let mut test = Test::open();
        test.message(at(1), r#"{"action":"ask"}"#);
        test.answer(at(2), answer);
        test.sent().to_owned()
    };
    let all =
        json!({"statusCode": "200", "headers": {}, "multiValueHeaders": {}, "body": "x", "isBase64Encoded": false});
    assert_eq!(shown(all), "x");
    for malformed in
        [json!({"statusCode": 200, "Data": "y", "body": "x"}), json!({"statusCode": 200, "cookies": [], "body": "x"})]
    {
        assert!(shown(malformed).starts_with(r#"{"message": "Internal server error""#));
    }
}

#[test]
fn msg_2_and_lim_1_a_route_response_has_at_most_128_kb() {
    let shown = |size: usize| {
        let mut test = Test::open();
        test.message(at(1), r#"{"action":"ask"}"#);
        test.answer(at(2), json!({"statusCode": 200, "body": "x".repeat(size)}));
        test.sent().to_owned()
    };
    assert_eq!(shown(131_072).len(), 131_072);
    assert!(shown(131_073).starts_with(r#"{"message": "Internal server error""#));
}

#[test]
fn lim_3_unsent_response_does_not_reset_idle_timeout() {
    let mut test = Test::open();
    test.message(at(300), r#"{"action":"join"}"#);
    test.answer(at(320), json!({"statusCode": 200, "body": "unseen"}));
    assert!(test.machine.tick(at(899)).is_empty());
    assert!(matches!(test.machine.tick(at(900)).as_slice(), [Effect::Close { code: 1001, .. }, _]));
    let mut test = Test::open();
    test.message(at(300), r#"{"action":"ask"}"#);
    test.answer(at(320), json!({"statusCode": 200, "body": "seen"}));
    assert!(test.machine.tick(at(919)).is_empty());
    assert!(matches!(test.machine.tick(at(920)).as_slice(), [Effect::Close { code: 1001, .. }, _]));
    let mut test = Test::open();
    test.message(at(300), r#"{"action":"join"}"#);
    test.effects = test.machine.tick(at(329));
    assert!(test.sent().contains("Endpoint request timed out"));
    assert!(test.machine.tick(at(928)).is_empty(), "which is a frame, too");
    assert!(matches!(test.machine.tick(at(929)).as_slice(), [Effect::Close { code: 1001, .. }, _]));
}
