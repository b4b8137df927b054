//! Origin checks: which web pages may connect.

use lambda_websocket::authorizer::{AllowedOrigins, Denied, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture;

fn request(origins: &[&str]) -> Request {
    let mut event = fixture::json("authorizer");
    let headers = event["headers"].as_object_mut().unwrap();
    headers.retain(|name, _| !name.eq_ignore_ascii_case("origin"));
    if let Some(last) = origins.last() {
        headers.insert("Origin".to_owned(), json!(last));
    }
    let headers = event["multiValueHeaders"].as_object_mut().unwrap();
    headers.retain(|name, _| !name.eq_ignore_ascii_case("origin"));
    if !origins.is_empty() {
        headers.insert("Origin".to_owned(), json!(origins));
    }
    Request::from_slice(&serde_json::to_vec(&event).unwrap()).unwrap()
}

fn allowed(list: &[&str], origin: &str) -> bool {
    let list = AllowedOrigins::new(list).unwrap();
    match list.check(&request(&[origin])) {
        Ok(()) => true,
        Err(Denied::Forbidden) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn origin_must_match_scheme_host_and_port() {
    let list = ["https://chat.example.com", "http://localhost:3000", "https://[2001:db8::1]:8443"];
    for origin in [
        "https://chat.example.com",
        "https://chat.example.com:443",
        "HTTPS://Chat.Example.COM",
        "http://localhost:3000",
        "https://[2001:db8::1]:8443",
    ] {
        assert!(allowed(&list, origin), "{origin}");
    }
    for origin in [
        "http://chat.example.com",
        "https://chat.example.com:8443",
        "https://chat.example.com:443443",
        "https://chat.example.com:",
        "https://chat.example.com.",
        "https://chat.example.com.evil.example",
        "https://evilchat.example.com",
        "https://example.com",
        "https://sub.chat.example.com",
        "https://chat.example.com/",
        "https://chat.example.com@evil.example",
        "https://evil.example?https://chat.example.com",
        "https://evil.example#https://chat.example.com",
        "https://chat.example.com, https://evil.example",
        "http://localhost",
        "http://127.0.0.1:3000",
        "https://[2001:db8::2]:8443",
        "chat.example.com",
        "//chat.example.com",
        "null",
        "*",
        "",
        " ",
        "https://",
        "file://",
        "https://ch\u{e4}t.example.com",
    ] {
        assert!(!allowed(&list, origin), "{origin}");
    }
}

#[test]
fn wildcard_matches_subdomains_only() {
    let list = ["https://*.preview.example.com"];
    for origin in ["https://pr-7.preview.example.com", "https://a.b.preview.example.com"] {
        assert!(allowed(&list, origin), "{origin}");
    }
    for origin in [
        "https://preview.example.com",
        "https://.preview.example.com",
        "https://evilpreview.example.com",
        "http://pr-7.preview.example.com",
        "https://pr-7.preview.example.com:8443",
        "https://pr-7.preview.example.com.evil.example",
    ] {
        assert!(!allowed(&list, origin), "{origin}");
    }
}

#[test]
fn missing_origin_is_refused_by_default_and_repeated_origin_always() {
    let list = AllowedOrigins::new(["https://example.com"]).unwrap();
    assert!(matches!(list.check(&request(&[])), Err(Denied::Forbidden)));
    let list = list.with_missing_origin();
    assert!(list.check(&request(&[])).is_ok());
    assert!(list.check(&request(&["https://example.com", "https://example.com"])).is_err());
    assert!(list.check(&request(&["null"])).is_err());
    assert!(AllowedOrigins::default().check(&request(&["https://example.com"])).is_err(), "nothing is on the list");
}

#[test]
fn invalid_origin_is_refused_in_the_list() {
    for (origin, reason) in [
        ("https://example.com/", "expected nothing after the host and the port, not even a path"),
        ("example.com", "expected a scheme, a host and an optional port, as in `https://example.com`"),
        ("null", "expected a scheme, a host and an optional port, as in `https://example.com`"),
        ("*", "expected a scheme, a host and an optional port, as in `https://example.com`"),
        ("https://*", "a wildcard must replace subdomains, as in `https://*.example.com`"),
        ("https://*.com", "a wildcard must replace subdomains, as in `https://*.example.com`"),
        ("https://*.*.example.com", "a wildcard must replace subdomains, as in `https://*.example.com`"),
        ("https://a.*.example.com", "a wildcard must replace subdomains, as in `https://*.example.com`"),
        ("https://example.com:port", "the port is not a number from 0 to 65535"),
        ("https://example.com:99999", "the port is not a number from 0 to 65535"),
        ("https://m\u{fc}nchen.example", "write an international host name as browsers do, in Punycode"),
    ] {
        let error = AllowedOrigins::new([origin]).unwrap_err();
        assert_eq!(error.to_string(), format!("{origin:?} is not an origin: {reason}"));
    }
}

proptest! {
    #[test]
    fn only_the_exact_origin_is_allowed(text in "\\PC{0,40}", prefix in "[a-z.:/@*-]{0,6}", suffix in "[a-z.:/@*-]{1,6}") {
        let list = AllowedOrigins::new(["https://example.com"]).unwrap();
        let is_allowed = |origin: &str| {
            let event: Value = json!(origin);
            list.check(&request(&[event.as_str().unwrap()])).is_ok()
        };
        prop_assert!(!is_allowed(&text) || text.eq_ignore_ascii_case("https://example.com"));
        let (longer, other) = (format!("https://example.com{suffix}"), format!("https://{prefix}example.com"));
        prop_assert!(!is_allowed(&longer), "{}", longer);
        prop_assert!(!is_allowed(&other) || prefix.is_empty(), "{}", other);
    }
}
