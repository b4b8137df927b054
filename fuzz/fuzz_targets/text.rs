//! Every type that parses from a string: displaying and parsing again returns the same value.
#![no_main]

use lambda_websocket::authorizer::RouteArn;
use lambda_websocket::event::{ApiId, ConnectionId, Region, RouteKey, Stage};
use lambda_websocket::push::Endpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(arn) = text.parse::<RouteArn>() {
        assert_eq!(arn.to_string(), text);
    }
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.as_str().parse::<Endpoint>().as_ref(), Ok(&endpoint));
    }
    let _ = (ConnectionId::new(text), RouteKey::new(text), Stage::new(text), ApiId::new(text), Region::new(text));
});
