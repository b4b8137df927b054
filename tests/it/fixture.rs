//! The recorded events in `tests/events`.

use std::fs;
use std::path::Path;

use lambda_websocket::Event;
use lambda_websocket::authorizer::Request;
use serde_json::Value;

pub fn json(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/events").join(name).with_extension("json");
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

pub fn bytes(name: &str) -> Vec<u8> {
    serde_json::to_vec(&json(name)).unwrap()
}

/// Returns a recorded event with the value at a JSON pointer replaced.
pub fn changed(name: &str, pointer: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut json = json(name);
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[member] = value.into();
    serde_json::to_vec(&json).unwrap()
}

pub fn event(name: &str) -> Event {
    Event::from_slice(&bytes(name)).unwrap()
}

/// Returns a message event with this route key and body.
pub fn message(route_key: &str, body: &str) -> Event {
    let mut json = json("message");
    json["requestContext"]["routeKey"] = route_key.into();
    json["body"] = body.into();
    serde_json::from_value(json).unwrap()
}

pub fn request(name: &str) -> Request {
    Request::from_slice(&bytes(name)).unwrap()
}
