//! Where an authorizer finds the client's token.

use lambda_websocket::authorizer::{Denied, Request};
use serde_json::json;

use crate::fixture;

fn request(query: &[&str], subprotocols: &[&str]) -> Request {
    let mut event = fixture::json("authorizer");
    event["queryStringParameters"] = query.last().map_or(json!({}), |last| json!({"Auth": last}));
    event["multiValueQueryStringParameters"] = if query.is_empty() { json!({}) } else { json!({"Auth": query}) };
    if let Some(last) = subprotocols.last() {
        event["headers"]["Sec-WebSocket-Protocol"] = json!(last);
        event["multiValueHeaders"]["Sec-WebSocket-Protocol"] = json!(subprotocols);
    }
    Request::from_slice(&serde_json::to_vec(&event).unwrap()).unwrap()
}

#[test]
fn token_is_read_from_query_or_subprotocol() {
    for (query, subprotocols) in [
        (&["t.o.k"][..], &[][..]),
        (&["t.o.k"], &["chat.v1"]),
        (&[], &["bearer.t.o.k"]),
        (&[], &["chat.v1, bearer.t.o.k"]),
        (&[], &["bearer.t.o.k,chat.v1"]),
        (&[], &["chat.v1", " bearer.t.o.k "]),
    ] {
        assert_eq!(request(query, subprotocols).token("Auth").unwrap(), "t.o.k", "{query:?} {subprotocols:?}");
    }
}

#[test]
fn missing_empty_and_repeated_tokens_are_unauthorized() {
    for (query, subprotocols) in [
        (&[][..], &[][..]),
        (&[""], &[]),
        (&["a", "a"], &[]),
        (&["a"], &["bearer.a"]),
        (&[], &["bearer."]),
        (&[], &["bearer.a, bearer.b"]),
        (&[], &["bearer.a", "bearer.b"]),
        (&[""], &["bearer.a"]),
        (&[], &["Bearer.a"]),
        (&[], &["bearer"]),
        (&[], &["xbearer.a"]),
    ] {
        let denied = request(query, subprotocols).token("Auth").unwrap_err();
        assert!(matches!(denied, Denied::Unauthorized), "{query:?} {subprotocols:?}");
    }
    assert!(request(&["a"], &[]).token("auth").is_err(), "names are compared exactly");
}
