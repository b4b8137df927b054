//! Parsing an authorizer's event, building its response, and evaluating an arbitrary policy.
#![no_main]

use lambda_websocket::authorizer::{Authorization, Decision, Policy, Request, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(request) = Request::from_slice(json) {
        let arn = request.method_arn();
        let response = Authorization::allow("alice").respond(arn).expect("an ARN that was read can be allowed");
        assert_eq!(response.policy_document().evaluate(arn), Decision::Allow);
        let json = serde_json::to_vec(&response).expect("a response is JSON");
        assert_eq!(serde_json::from_slice::<Response>(&json).expect("and can be read"), response);
    }
    let arn = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/dev/$connect".parse().expect("an ARN");
    if let Ok(policy) = serde_json::from_slice::<Policy>(json) {
        let _ = policy.evaluate(&arn);
    }
    let _ = serde_json::from_slice::<Response>(json);
});
