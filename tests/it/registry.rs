//! Registries, and the names in them.

use std::sync::Arc;
use std::time::Duration;

use lambda_websocket::Event;
use lambda_websocket::event::{ApiId, InvalidId, Stage};
use lambda_websocket::registry::conformance::{self, Clock};
use lambda_websocket::registry::{Connection, ConnectionKey, Group, InMemory, Namespace, Principal, Registry};

use crate::fixture;

fn memory(clock: &Clock) -> InMemory {
    let clock = clock.clone();
    InMemory::with_clock(move || clock.now())
}

#[tokio::test]
async fn memory_registry_conforms() {
    let clock = Clock::new();
    conformance::run(&memory(&clock), &clock, 10_000).await;
}

#[tokio::test]
async fn arc_dyn_registry_conforms() {
    let clock = Clock::new();
    let shared: Arc<dyn Registry> = Arc::new(memory(&clock));
    conformance::run(&shared, &clock, 1_000).await;
}

#[test]
fn invalid_name_error_has_a_reason() {
    let text = |refused: Result<Group, InvalidId>| refused.unwrap_err().to_string();
    assert_eq!(text(Group::new("")), r#"group "" is not valid: expected 1 to 256 bytes without control characters"#);
    for (name, is_legal) in [("lobby", true), ("a b", true), ("日本", true), ("a\nb", false), ("a\u{7f}", false)] {
        assert_eq!(Group::new(name).is_ok(), is_legal, "{name:?}");
        assert_eq!(Principal::new(name).is_ok(), is_legal, "{name:?}");
    }
    assert!(Group::new("ä".repeat(128)).is_ok() && Group::new("ä".repeat(129)).is_err());
    assert!(Principal::new("x".repeat(512)).is_ok() && Principal::new("x".repeat(513)).is_err());
    for (name, is_legal) in
        [("a1b2c3d4e5/dev", true), ("eu:chat.v1_x-y", true), ("a#b", false), ("a b", false), ("", false)]
    {
        assert_eq!(Namespace::new(name).is_ok(), is_legal, "{name:?}");
    }
}

#[test]
fn lim_6_namespace_of_the_longest_stage_is_valid() {
    let (api_id, stage) = (ApiId::new("a".repeat(63)).unwrap(), Stage::new("s".repeat(128)).unwrap());
    let namespace = Namespace::for_stage(&api_id, &stage);
    assert_eq!(Namespace::new(namespace.as_str()).unwrap(), namespace);
}

#[test]
fn lim_3_connection_expires_after_two_hours_plus_slack() {
    let Event::Connect(connect) = fixture::event("connect") else { panic!() };
    let context = connect.request_context();
    let connection = Connection::from_context(context).unwrap();
    let kept = connection.expires_at().duration_since(context.connected_at).unwrap();
    assert!((Duration::from_secs(7499)..=Duration::from_secs(7500)).contains(&kept), "{kept:?}");
    assert_eq!(connection.connected_at(), context.connected_at);
    assert_eq!(connection.principal().map(Principal::as_str), context.principal_id());
    assert_eq!(connection.key(), &ConnectionKey::from_context(context));
    assert_eq!(connection.key().namespace().as_str(), format!("{}/{}", context.api_id, context.stage));
    assert_eq!(connection.data::<u8>().unwrap(), None);
}
