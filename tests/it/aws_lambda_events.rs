//! Conversions to and from the types of the `aws_lambda_events` crate.

use aws_lambda_events::event::apigw::{
    ApiGatewayCustomAuthorizerResponse, ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest,
};
use aws_lambda_events::event::iam::IamPolicyDocument;
use lambda_websocket::authorizer::{Authorization, Decision, Policy, RouteArn};
use lambda_websocket::route::{Response, StatusCode};
use lambda_websocket::{Connect, Event, Message};
use serde_json::json;

use crate::fixture;

fn theirs(name: &str) -> ApiGatewayWebsocketProxyRequest {
    serde_json::from_slice(&fixture::bytes(name)).unwrap()
}

#[test]
fn lambda_events_request_converts_to_event() {
    let Ok(Event::Connect(connect)) = Event::try_from(theirs("connect")) else { panic!() };
    let ours: Connect = match fixture::event("connect") {
        Event::Connect(connect) => connect,
        other => panic!("{other:?}"),
    };
    assert_eq!(connect.connection_id(), ours.connection_id());
    assert_eq!(connect.query_string().get_all("room").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(connect.header("user-agent"), ours.header("user-agent"));
    assert_eq!(connect.principal_id(), Some("alice"));

    let Ok(Event::Message(message)) = Event::try_from(&theirs("message")) else { panic!() };
    let ours: Message = match fixture::event("message") {
        Event::Message(message) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!((message.message_id(), &message.body), (ours.message_id(), &ours.body));

    let Ok(Event::Disconnect(disconnect)) = Event::try_from(theirs("disconnect")) else { panic!() };
    assert_eq!(disconnect.status_code(), Some(1005));
}

#[test]
fn event_converts_to_lambda_events_request() {
    for name in ["connect", "connect_without_query", "message", "disconnect"] {
        let ours = ApiGatewayWebsocketProxyRequest::try_from(&fixture::event(name)).unwrap();
        let mut theirs = theirs(name);
        if name == "disconnect" {
            // A disconnect event's four headers have no information, so the conversion drops them.
            theirs.headers.clear();
            theirs.multi_value_headers.clear();
        }
        assert_eq!(ours, theirs, "{name}");
    }
    let mut bytes = fixture::json("message");
    bytes["body"] = "AAH/".into();
    bytes["isBase64Encoded"] = true.into();
    let event: Event = serde_json::from_value(bytes).unwrap();
    let request = ApiGatewayWebsocketProxyRequest::try_from(&event).unwrap();
    assert_eq!((request.body.as_deref(), request.is_base64_encoded), (Some("AAH/"), true));
}

#[test]
fn stage_variables_convert_both_ways() {
    let request = ApiGatewayWebsocketProxyRequest::try_from(&fixture::event("message_with_iam")).unwrap();
    assert_eq!(request.stage_variables["tenant"], "blue");
    let event = Event::try_from(&request).unwrap();
    assert_eq!(event.request_context().stage_variable("tenant"), Some("blue"));
}

#[test]
fn request_without_connection_id_is_refused() {
    let error = Event::try_from(ApiGatewayWebsocketProxyRequest::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected the event of a WebSocket route, found an object without `requestContext.eventType`"
    );
}

#[test]
fn responses_convert_both_ways() {
    let ours = Response::new(StatusCode::CREATED).header("x-a", "b").body("hello");
    let theirs = ApiGatewayProxyResponse::from(ours.clone());
    assert_eq!(theirs.status_code, 201);
    let back = Response::try_from(theirs).unwrap();
    assert_eq!(serde_json::to_value(&back).unwrap(), serde_json::to_value(&ours).unwrap());
    let error = Response::try_from(ApiGatewayProxyResponse::default()).unwrap_err();
    assert_eq!(error.to_string(), "0 is not an HTTP status");
}

#[test]
fn policies_convert_both_ways() {
    let arn: RouteArn = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/dev/$connect".parse().unwrap();
    let ours = Policy::new().allow(arn.whole_api()).deny(&arn);
    let theirs = IamPolicyDocument::from(&ours);
    assert_eq!(serde_json::to_value(&theirs).unwrap(), serde_json::to_value(&ours).unwrap());
    assert_eq!(Policy::try_from(&theirs).unwrap(), ours);
    assert_eq!(ours.evaluate(&arn), Decision::Deny);

    let conditional: IamPolicyDocument = serde_json::from_value(json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"a": "true"}}}],
    }))
    .unwrap();
    let ours = Policy::try_from(&conditional).unwrap();
    assert_eq!(serde_json::to_value(&ours).unwrap()["Statement"][0]["Condition"], json!({"Bool": {"a": ["true"]}}));
    assert_eq!(IamPolicyDocument::from(&ours).statement[0].condition, conditional.statement[0].condition);
}

#[test]
fn authorization_converts_to_lambda_events_response() {
    let arn: RouteArn = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/dev/$connect".parse().unwrap();
    let authorization = Authorization::allow("alice").with_context(&json!({"org": 7})).unwrap();
    let ours = authorization.usage_identifier_key("key").respond(&arn).unwrap();
    let theirs = ApiGatewayCustomAuthorizerResponse::from(&ours);
    assert_eq!(serde_json::to_value(&theirs).unwrap(), serde_json::to_value(&ours).unwrap());
    assert_eq!(lambda_websocket::authorizer::Response::try_from(&theirs).unwrap(), ours);
    let empty = ApiGatewayCustomAuthorizerResponse::default();
    let error = lambda_websocket::authorizer::Response::try_from(&empty).unwrap_err();
    assert_eq!(error.to_string(), "the principal id is empty");
}
