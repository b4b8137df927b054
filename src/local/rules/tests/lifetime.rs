//! How connections end, and that nothing remains of them.

use super::*;

#[test]
fn response_for_a_closed_connection_is_dropped() {
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
fn lim_3_connection_closes_after_ten_idle_minutes() {
    let mut test = Test::open();
    test.message(at(300), r#"{"action":"join"}"#);
    test.answer(at(300), json!({"statusCode": 200}));
    assert!(test.machine.tick(at(600)).is_empty(), "a message started the time anew");
    assert!(matches!(
        test.machine.post(at(700), Some("dev"), test.id.clone().as_str(), "text".to_owned()),
        Delivery::To(..)
    ));
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
fn lim_3_active_connection_closes_after_two_hours() {
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
fn closed_connection_leaves_no_state() {
    let mut test = Test::open();
    for _ in 0..10 {
        test.message(at(1), r#"{"action":"ask"}"#);
        test.answer(at(1), json!({"statusCode": 200, "body": "x"}));
    }
    test.effects = test.machine.closed(at(2), &test.id.clone(), 1000, "");
    test.answer(at(2), json!({"statusCode": 200}));
    assert!(test.machine.calls.is_empty() && test.machine.connections.is_empty());
    assert!(test.machine.due.is_empty(), "not even the time at which it would have been idle");
    assert!(test.machine.tick(at(100_000)).is_empty());
    assert!(test.machine.due.is_empty());
}

#[test]
fn lim_5_connection_rate_limit_returns_429() {
    let mut api = api();
    api.authorizer = None;
    api.routes.clear();
    api.connections = Some(Rate { per_second: 2, burst: 2 });
    let mut machine = Machine::new(api, 1);
    let mut verdict = |now| {
        let (_, effects) = machine.upgrade(now, Stage::new("dev").unwrap(), handshake(&[]));
        match effects.as_slice() {
            [Effect::Accept { .. }] => 101,
            [Effect::Refuse { refusal, .. }] => refusal.status,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([verdict(at(0)), verdict(at(0)), verdict(at(0))], [101, 101, 429]);
    let half = at(0) + Duration::from_millis(500);
    assert_eq!([verdict(half), verdict(half)], [101, 429]);
    assert_eq!([verdict(at(60)), verdict(at(60)), verdict(at(60))], [101, 101, 429], "a pause saves up one burst");
}

#[test]
fn lim_5_and_mgt_7_messages_and_management_calls_share_one_rate() {
    let mut test = Test::open();
    test.machine.requests = Bucket::new(Some(Rate { per_second: 1, burst: 3 }));
    let id = test.id.clone();
    test.message(at(10), r#"{"action":"join"}"#);
    assert_eq!(test.call().1, 3);
    assert!(matches!(test.machine.post(at(10), Some("dev"), id.as_str(), "text".to_owned()), Delivery::To(..)));
    assert!(test.machine.info(at(10), Some("dev"), id.as_str()).is_ok());
    let refused = |refusal: Refusal| (refusal.status, refusal.error_type);
    let limit = (429, Some("LimitExceededException"));
    let Delivery::Refused(refusal) = test.machine.post(at(10), Some("dev"), id.as_str(), "text".to_owned()) else {
        panic!()
    };
    assert_eq!(refused(refusal), limit);
    assert_eq!(refused(test.machine.delete(at(10), Some("dev"), id.as_str()).unwrap_err()), limit);
    test.message(at(10), r#"{"action":"join"}"#);
    assert!(test.sent().starts_with(r#"{"message": "Too Many Requests", "connectionId":""#));
    test.message(at(11), r#"{"action":"join"}"#);
    assert_eq!(test.call().1, 3);
}

#[test]
fn dis_2_unopened_connection_gets_no_disconnect() {
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    let id = test.id.clone();
    assert!(test.machine.closed(at(1), &id, 1006, "").is_empty());
    assert!(test.machine.violation(at(1), &id, 1009, "").is_empty());
    test.answer(at(2), allow(json!({})));
    test.answer(at(2), json!({"statusCode": 200}));
    assert!(matches!(test.effects.as_slice(), [Effect::Accept { .. }]), "its verdict comes all the same");
}

#[test]
fn draining_gateway_refuses_pending_and_new_handshakes() {
    let mut test = Test::open();
    let (waiting, effects) = test.machine.upgrade(at(1), Stage::new("dev").unwrap(), handshake(&[("Auth", "token")]));
    let [Effect::Invoke { call, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let call = *call;
    let effects = test.machine.drain(at(2));
    let [Effect::Refuse { connection, refusal }, Effect::Close { code: 1001, .. }, Effect::Invoke { function: 2, .. }] =
        effects.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!((connection, refusal.status), (&waiting, 503));
    let answer = serde_json::to_vec(&allow(json!({}))).unwrap();
    assert!(test.machine.answered(at(3), call, Ok(answer)).is_empty());
    let (_, effects) = test.machine.upgrade(at(3), Stage::new("dev").unwrap(), handshake(&[("Auth", "token")]));
    assert!(matches!(effects.as_slice(), [Effect::Refuse { refusal, .. }] if refusal.status == 503));
}
