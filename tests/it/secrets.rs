//! Secrets in logs: query strings carry tokens, and authorizer contexts may be private.

use std::error::Error;

use lambda_websocket::authorizer::{Authorization, Context};
use lambda_websocket::route::Response;
use serde_json::json;

use crate::fixture;

#[test]
fn no_debug_output_shows_a_secret() {
    let response = Response::ok().header("Set-Cookie", "s3cret").body("s3cret");
    let context = Context::new(&json!({"name": "s3cret"})).unwrap();
    let authorization = Authorization::allow("alice").with_context(&json!({"name": "s3cret"})).unwrap();
    let body = lambda_websocket::event::Body::Text("{\"s3cret\": 1}".to_owned());
    let invalid = body.json::<Vec<u8>>().unwrap_err();
    let shown = [
        format!("{:?}", fixture::event("connect")),
        format!("{:?}", fixture::event("message")),
        format!("{:?}", fixture::event("disconnect")),
        format!("{:?}", fixture::message("x", "s3cret")),
        format!("{:?}", fixture::request("authorizer")),
        format!("{:?}", fixture::event("message_with_iam").request_context()),
        format!("{:?}", fixture::event("message_with_iam").request_context().iam_identity()),
        format!("{response:?}"),
        format!("{context:?}"),
        format!("{authorization:?}"),
        format!("{body:?} {invalid:?} {invalid}"),
    ];
    for text in shown {
        assert!(
            !["s3cret", "assumed-role", "ASIAEXAMPLE", "connections-blue"].iter().any(|secret| text.contains(secret)),
            "{text}"
        );
    }
}

#[test]
fn identifier_errors_show_the_value_only_to_its_author() {
    use lambda_websocket::event::ConnectionId;

    let invalid = ConnectionId::new("my s3cret").unwrap_err();
    assert!(invalid.to_string().contains("\"my s3cret\""), "who configures a program reads what is wrong with it");
    let rejected = lambda_websocket::route::Error::from(invalid.clone());
    assert!(rejected.client_text().unwrap().contains("my s3cret"), "so does the client");
    let boxed = lambda_websocket::route::Error::from(ConnectionId::new("my s3cret").unwrap_err()).into_boxed();
    let denied = lambda_websocket::authorizer::Denied::from(invalid.clone());
    let failure = lambda_websocket::authorizer::AuthorizerError::Failed(Box::new(invalid.clone()));
    let shown =
        format!("{invalid:?} {rejected} {rejected:?} {} {boxed} {boxed:?} {denied:?} {failure}", rejected.chain());
    assert!(shown.contains("connection id is not valid") && !shown.contains("s3cret"), "{shown}");
    assert!(boxed.source().is_none());
}

#[test]
fn debug_output_shows_names_and_sizes() {
    let connect = format!("{:?}", fixture::event("connect"));
    for shown in ["Kb7p2d5_vHcCIhw=", "$connect", "\"Auth\"", "\"Cookie\"", "203.0.113.7"] {
        assert!(connect.contains(shown), "{shown} in {connect}");
    }
    assert_eq!(
        format!("{:?}", Response::ok().header("x-a", "b").body("hello")),
        "Response { status: 200, headers: [\"x-a\"], body: Some(\"5 bytes\"), .. }"
    );
}

#[test]
fn errors_about_events_quote_no_secret() {
    for (name, pointer) in [("connect", "/requestContext/stage"), ("message", "/requestContext/connectionId")] {
        let error = lambda_websocket::Event::from_slice(&fixture::changed(name, pointer, 7)).unwrap_err();
        let mut next: Option<&dyn Error> = Some(&error);
        while let Some(error) = next {
            assert!(!error.to_string().contains("s3cret"), "{error}");
            next = error.source();
        }
    }
}

#[cfg(feature = "registry")]
#[test]
fn connection_data_is_not_shown() {
    use lambda_websocket::registry::{Connection, InvalidData, MAX_DATA_BYTES};

    let lambda_websocket::Event::Connect(connect) = fixture::event("connect") else { panic!() };
    let connection = Connection::from_context(connect.request_context()).unwrap().with_data("s3cret").unwrap();
    let invalid = connection.data::<u64>().unwrap_err();
    let error: &dyn Error = &invalid;
    assert!(!format!("{connection:?} {invalid:?} {invalid}").contains("s3cret") && error.source().is_none());
    let large = connection.with_data(&"x".repeat(MAX_DATA_BYTES)).unwrap_err();
    assert!(matches!(large, InvalidData::TooLarge { size } if size == MAX_DATA_BYTES + 2));
    assert_eq!(large.to_string(), "the connection's data have 16386 bytes of JSON, more than the maximum of 16384");
}

#[cfg(feature = "registry")]
#[test]
fn registry_error_does_not_show_the_response() {
    use lambda_websocket::registry::RegistryError;

    #[derive(Debug, thiserror::Error)]
    #[error("unhandled")]
    struct Answer {
        _body: &'static str,
    }
    let error = RegistryError::Refused { source: Box::new(Answer { _body: "s3cret" }) };
    assert_eq!(format!("{error:?}"), "the registry refused the request: unhandled");
}
