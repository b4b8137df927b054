//! Limits on concurrent invocations.

use super::*;

fn refused(test: &mut Test, body: &str) -> bool {
    test.message(at(1), body);
    match test.effects.as_slice() {
        [Effect::Send { text, .. }] => {
            assert!(text.starts_with(r#"{"message": "Internal server error""#), "{text}");
            true
        }
        [Effect::Invoke { .. }] => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lim_7_invocations_beyond_account_concurrency_are_throttled() {
    let mut test = Test::open();
    test.machine.api.concurrency = 2;
    assert!(!refused(&mut test, r#"{"action":"join"}"#));
    let first = test.call().0;
    assert!(!refused(&mut test, r#"{"action":"ask"}"#));
    assert!(refused(&mut test, r#"{"action":"join"}"#));
    // MSG-4: an invocation that has timed out still runs.
    test.machine.tick(at(40));
    assert!(refused(&mut test, r#"{"action":"join"}"#));
    test.machine.answered(at(41), first, Err(FunctionError::new("Error", "late")));
    assert!(!refused(&mut test, r#"{"action":"join"}"#));

    let mut api = api();
    api.concurrency = 0;
    assert_eq!(Test::upgrade(api.clone(), &[("Auth", "token")]).refused(), (500, None), "the authorizer");
    api.authorizer = None;
    assert_eq!(Test::upgrade(api, &[]).refused(), (502, None), "$connect");
}

#[test]
fn lim_7_reserved_concurrency_limits_one_function() {
    let mut test = Test::open();
    test.machine.api.function_concurrency.insert(4, 1);
    assert!(!refused(&mut test, r#"{"action":"ask"}"#));
    let call = test.call().0;
    assert!(refused(&mut test, r#"{"action":"ask"}"#));
    assert!(!refused(&mut test, r#"{"action":"join"}"#), "another function");
    test.machine.answered(at(2), call, Ok(br#"{"statusCode":200}"#.to_vec()));
    assert!(!refused(&mut test, r#"{"action":"ask"}"#));
    assert!(test.machine.running.values().sum::<usize>() == 2);
}
