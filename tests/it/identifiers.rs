use lambda_websocket::event::{ApiId, ConnectionId, Region, RouteKey, Stage};
use proptest::prelude::*;

#[test]
fn evt_12_generated_ids_are_valid() {
    for id in ["L0SM9cOFvHcCIhw=", "----------_____=", "AAAAAAAAAAAAAAA="] {
        assert_eq!(ConnectionId::new(id).unwrap().as_str(), id);
    }
}

#[test]
fn invalid_identifier_error_has_a_reason() {
    assert_eq!(
        ConnectionId::new("").unwrap_err().to_string(),
        "connection id \"\" is not valid: expected 1 to 128 visible ASCII characters, not `.` or `..`"
    );
    assert_eq!(
        Stage::new("dev/prod").unwrap_err().to_string(),
        "stage \"dev/prod\" is not valid: expected 1 to 128 letters, digits, `_` or `-`"
    );
    assert_eq!(
        RouteKey::new("$custom").unwrap_err().to_string(),
        "route key \"$custom\" is not valid: expected `$connect`, `$disconnect`, `$default`, or 1 to 128 bytes that do \
         not start with `$`"
    );
    for path in [".", ".."] {
        assert!(ConnectionId::new(path).is_err(), "{path} would mean another path");
    }
    let long = ApiId::new("x".repeat(10_000)).unwrap_err().to_string();
    assert!(long.len() < 300, "a long text does not flood the log: {long}");
    assert!(Region::new("eu-central-1").is_ok());
    assert!(Region::new("EU").is_err());
}

#[test]
fn lim_6_stage_and_route_key_lengths_are_limited() {
    assert!(Stage::new("a".repeat(128)).is_ok());
    assert!(Stage::new("a".repeat(129)).is_err());
    assert!(RouteKey::new("a".repeat(128)).is_ok());
    assert!(RouteKey::new("a".repeat(129)).is_err());
    assert!(RouteKey::new("[item1, item2]").is_ok());
    assert!(RouteKey::new("chat/join").is_ok());
    assert!(RouteKey::new("a\nb").is_err());
}

proptest! {
    #[test]
    fn from_str_and_serde_agree(text in "[!-~]{1,128}".prop_filter("these mean another path", |text| text != "." && text != "..")) {
        let id = ConnectionId::new(&text).unwrap();
        prop_assert_eq!(id.to_string(), &*text);
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(serde_json::from_str::<ConnectionId>(&json).unwrap(), id);
    }

    #[test]
    fn parsing_never_panics(text in ".{0,150}") {
        let _ = (ConnectionId::new(&text), RouteKey::new(&text), Stage::new(&text), ApiId::new(&text), Region::new(&text));
    }
}
