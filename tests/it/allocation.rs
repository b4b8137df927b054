//! Parts of an event that are not read cost no allocation.

use allocation_counter::measure;
use lambda_websocket::Event;
use lambda_websocket::authorizer::Request;
use serde_json::{Value, json};

use crate::fixture;

/// Returns an event with `count` headers, query parameters, stage variables, and context values.
fn with(name: &str, count: usize) -> Vec<u8> {
    let single: serde_json::Map<String, Value> = (0..count).map(|n| (format!("name-{n}"), json!("value"))).collect();
    let multi: serde_json::Map<String, Value> = (0..count).map(|n| (format!("name-{n}"), json!(["value"]))).collect();
    let mut json = fixture::json(name);
    json["headers"] = json!(single);
    json["multiValueHeaders"] = json!(multi);
    json["queryStringParameters"] = json!(single);
    json["multiValueQueryStringParameters"] = json!(multi);
    json["stageVariables"] = json!(single);
    json["requestContext"]["authorizer"] = json!(single);
    json["requestContext"]["identity"]["userAgent"] = json!("a".repeat(count));
    serde_json::to_vec(&json).unwrap()
}

fn allocations<T>(read: impl Fn() -> T) -> u64 {
    measure(|| drop(read())).count_total
}

#[test]
fn headers_query_and_context_are_decoded_lazily() {
    for name in ["connect", "message", "disconnect"] {
        let (few, many) = (with(name, 1), with(name, 100));
        let count = |json: &[u8]| allocations(|| Event::from_slice(json).unwrap());
        assert_eq!(count(&few), count(&many), "{name}");
        assert!(count(&many) <= 20, "{name}: {}", count(&many));
    }
    let (few, many) = (with("authorizer", 1), with("authorizer", 100));
    let count = |json: &[u8]| allocations(|| Request::from_slice(json).unwrap());
    assert_eq!(count(&few), count(&many));
}

#[test]
fn allocation_counter_counts() {
    let json = with("connect", 100);
    let event = Event::from_slice(&json).unwrap();
    let Event::Connect(connect) = &event else { panic!() };
    assert!(allocations(|| connect.header("name-7").map(str::to_owned)) >= 200, "decoded at the first question");
    assert_eq!(allocations(|| connect.header("name-8").map(str::len)), 0, "and only then");
}
