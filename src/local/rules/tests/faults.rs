//! Injected faults.

use super::*;

fn post(test: &mut Test, seconds: u64) -> Delivery {
    test.machine.post(at(seconds), Some("dev"), test.id.clone().as_str(), "text".to_owned())
}

fn status(delivery: &Delivery) -> u16 {
    match delivery {
        Delivery::To(..) | Delivery::Twice(..) | Delivery::Swallowed => 200,
        Delivery::Refused(refusal) => refusal.status,
        Delivery::Unanswered(_) => 0,
    }
}

#[test]
fn mgt_3_and_7_post_faults_fail_the_next_n_posts() {
    let mut test = Test::open();
    for (fault, expected) in [(Fault::PostGone, 410), (Fault::PostThrottled, 429), (Fault::PostFailed, 500)] {
        test.machine.inject(fault, When::Next(2));
        let seen: Vec<u16> = (0..3).map(|_| status(&post(&mut test, 1))).collect();
        assert_eq!(seen, [expected, expected, 200]);
    }
    test.machine.inject(Fault::PostGone, When::Next(0));
    assert_eq!(status(&post(&mut test, 1)), 200);
}

#[test]
fn post_response_is_lost_before_or_after_delivery() {
    let mut test = Test::open();
    test.machine.inject(Fault::PostUnanswered, When::Next(1));
    test.machine.inject(Fault::PostAnswerLost, When::Next(1));
    assert!(matches!(post(&mut test, 1), Delivery::Unanswered(None)));
    assert!(matches!(post(&mut test, 1), Delivery::Unanswered(Some(_))));
    assert!(matches!(post(&mut test, 1), Delivery::To(..)));
}

#[test]
fn fault_on_one_connection_does_not_affect_others() {
    let mut test = Test::open();
    let other: ConnectionId = test.machine.id();
    test.machine.inject(Fault::PostThrottled, When::On(other));
    test.machine.inject(Fault::PostGone, When::On(test.id.clone()));
    assert_eq!([1, 2, 3].map(|now| status(&post(&mut test, now))), [410, 410, 410]);
    test.machine.clear_faults(at(4));
    assert_eq!(status(&post(&mut test, 4)), 200);
}

#[test]
fn same_seed_repeats_random_faults() {
    let run = |seed| {
        let mut test = Test::open();
        test.machine.faults = Faults::new(seed);
        test.machine.inject(Fault::PostThrottled, When::Sometimes(0.3));
        (0..1000).map(|_| status(&post(&mut test, 1))).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
    let throttled = run(5).into_iter().filter(|status| *status == 429).count();
    assert!((230..370).contains(&throttled), "{throttled} of 1000 at 0.3");
}

#[test]
fn dis_1_disconnect_is_lost_or_delayed() {
    let mut test = Test::open();
    test.machine.inject(Fault::DisconnectLost, When::Next(1));
    assert!(test.machine.closed(at(1), &test.id.clone(), 1000, "").is_empty());
    assert!(test.machine.tick(at(100_000)).is_empty());

    let mut test = Test::open();
    test.machine.inject(Fault::DisconnectLate(Duration::from_secs(60)), When::On(test.id.clone()));
    assert!(test.machine.closed(at(1), &test.id.clone(), 1000, "bye").is_empty());
    assert_eq!(status(&post(&mut test, 2)), 410, "closed it is");
    assert!(test.machine.tick(at(60)).is_empty());
    test.effects = test.machine.tick(at(61));
    let (_, function, event) = test.call();
    assert_eq!((function, &event["requestContext"]["disconnectReason"]), (2, &json!("bye")));
    test.answer(at(61), json!({"statusCode": 200}));
    assert!(test.machine.late.is_empty() && test.machine.due.is_empty() && test.machine.calls.is_empty());
    assert!(test.machine.faults.active.is_empty(), "the fault went with its connection");
}

#[test]
fn con_6_late_opening_connection_returns_410_until_open() {
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    test.machine.inject(Fault::OpenLate(Duration::from_secs(3)), When::Next(1));
    test.answer(at(0), allow(json!({})));
    test.answer(at(0), json!({"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "a"}}));
    assert!(test.effects.is_empty());
    assert_eq!(status(&post(&mut test, 2)), 410);
    let opened = test.machine.tick(at(3));
    assert!(matches!(&opened[..], [Effect::Accept { subprotocol: Some(a), .. }] if a == "a"), "{opened:?}");
    assert_eq!(status(&post(&mut test, 3)), 200);
}

#[test]
fn lim_3_idle_timeout_ends_half_open_socket() {
    let mut test = Test::open();
    test.machine.inject(Fault::HalfOpen, When::On(test.id.clone()));
    test.message(at(10), r#"{"action":"join"}"#);
    assert!(test.effects.is_empty(), "nothing comes from the client");
    assert!(test.machine.violation(at(15), &test.id.clone(), 1009, "").is_empty(), "whatever it is");
    assert!(test.machine.closed(at(20), &test.id.clone(), 1006, "").is_empty(), "not even its end");
    assert!(matches!(post(&mut test, 30), Delivery::Swallowed), "and nothing reaches it");
    assert!(test.machine.tick(at(629)).is_empty());
    let ended = test.machine.tick(at(630));
    assert!(matches!(&ended[..], [Effect::Close { code: 1001, .. }, Effect::Invoke { function: 2, .. }]), "{ended:?}");
    assert!(test.machine.faults.active.is_empty());
}

#[test]
fn slow_consumer_fault_before_opening_persists() {
    let mut test = Test::upgrade(api(), &[("Auth", "token")]);
    test.machine.inject(Fault::SlowConsumer, When::Next(1));
    test.answer(at(0), allow(json!({})));
    test.answer(at(0), json!({"statusCode": 200}));
    assert!(matches!(&test.effects[..], [Effect::Accept { .. }, Effect::Hold { held: true, .. }]));
    let cleared = test.machine.clear_faults(at(4));
    assert!(matches!(&cleared[..], [Effect::Hold { held: false, .. }]), "{cleared:?}");
    assert!(test.machine.clear_faults(at(4)).is_empty());
}

#[test]
fn delayed_pushes_are_reordered_and_not_lost() {
    let mut test = Test::open();
    test.machine.inject(Fault::TextLate(Duration::from_secs(10)), When::Sometimes(1.0));
    let id = test.id.clone();
    for number in 0..50 {
        let delivery = test.machine.post(at(1), Some("dev"), id.as_str(), number.to_string());
        assert!(matches!(delivery, Delivery::Swallowed));
    }
    let arrived: Vec<u32> = (1..=11)
        .flat_map(|second| test.machine.tick(at(second)))
        .map(|effect| match effect {
            Effect::Send { text, .. } => text.parse().unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    let mut sorted = arrived.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    assert_ne!(sorted, arrived);
}

#[test]
fn kill_fault_applies_to_the_next_invocation() {
    let mut test = Test::open();
    let after = Duration::from_millis(5);
    test.machine.inject(Fault::FunctionKilled(after), When::Next(1));
    for expected in [Some(after), None] {
        test.message(at(1), r#"{"action":"ask"}"#);
        let [Effect::Invoke { killed_after, .. }] = &test.effects[..] else { panic!("{:?}", test.effects) };
        assert_eq!(*killed_after, expected);
    }
}

#[test]
fn get_and_delete_faults_return_their_status() {
    let mut test = Test::open();
    let id = test.id.clone();
    let mut call = |fault: Option<Fault>, call: Managed| {
        if let Some(fault) = fault {
            test.machine.inject(fault, When::Next(1));
        }
        match test.machine.apply(at(1), Input::Manage { stage: Some("dev"), id: id.as_str(), call }).reply {
            Reply::Answer(Ok((status, _)) | Err(Refusal { status, .. })) => Some(status),
            _ => None,
        }
    };
    for (fault, status) in [
        (Fault::GetGone, Some(410)),
        (Fault::GetThrottled, Some(429)),
        (Fault::GetFailed, Some(500)),
        (Fault::GetUnanswered, None),
    ] {
        assert_eq!(call(Some(fault), Managed::Get), status);
        assert_eq!(call(None, Managed::Get), Some(200));
    }
    for (fault, status) in [
        (Fault::DeleteGone, Some(410)),
        (Fault::DeleteThrottled, Some(429)),
        (Fault::DeleteFailed, Some(500)),
        (Fault::DeleteUnanswered, None),
    ] {
        assert_eq!(call(Some(fault), Managed::Delete), status);
        assert_eq!(call(None, Managed::Get), Some(200), "it is still open");
    }
    assert_eq!(call(Some(Fault::DeleteAnswerLost), Managed::Delete), None);
    assert_eq!(call(None, Managed::Get), Some(410), "it is closed");
}

#[test]
fn duplicated_push_arrives_twice() {
    let mut test = Test::open();
    let id = test.id.clone();
    test.machine.inject(Fault::PostDuplicated, When::Next(1));
    let call = Managed::Post("hi".to_owned());
    let Output { effects, .. } = test.machine.apply(at(1), Input::Manage { stage: None, id: id.as_str(), call });
    assert!(matches!(&effects[..], [Effect::Push { .. }, Effect::Send { .. }]), "{effects:?}");
}

#[test]
fn delayed_client_messages_are_reordered_and_not_lost() {
    let mut test = Test::open();
    test.machine.inject(Fault::MessageLate(Duration::from_secs(10)), When::Sometimes(1.0));
    for number in 0..20 {
        test.message(at(1), &format!(r#"{{"action":"join","n":{number}}}"#));
        assert!(test.effects.is_empty());
    }
    let order: Vec<i64> = (1..=11)
        .flat_map(|second| test.machine.tick(at(second)))
        .map(|effect| match effect {
            Effect::Invoke { payload, .. } => {
                let event: Value = serde_json::from_slice(&payload).unwrap();
                let body: Value = serde_json::from_str(event["body"].as_str().unwrap()).unwrap();
                body["n"].as_i64().unwrap()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    assert_ne!(sorted, order);
}

#[test]
fn throttle_and_cold_start_faults_affect_invocations() {
    let mut test = Test::open();
    test.machine.inject(Fault::FunctionThrottled, When::Next(1));
    test.message(at(1), r#"{"action":"ask"}"#);
    assert!(test.sent().starts_with(r#"{"message": "Internal server error""#));
    let delay = Duration::from_secs(2);
    test.machine.inject(Fault::ColdStart(delay), When::Next(1));
    test.message(at(1), r#"{"action":"ask"}"#);
    assert!(matches!(&test.effects[..], [Effect::Invoke { starts_after: Some(after), .. }] if *after == delay));
}

#[test]
fn clearing_faults_disconnects_half_open_socket() {
    let mut test = Test::open();
    test.machine.inject(Fault::HalfOpen, When::On(test.id.clone()));
    assert!(test.machine.closed(at(20), &test.id.clone(), 1006, "").is_empty());
    let noticed = test.machine.clear_faults(at(21));
    assert!(matches!(&noticed[..], [Effect::Invoke { function: 2, .. }]), "{noticed:?}");
    assert_eq!(status(&post(&mut test, 22)), 410);
}
