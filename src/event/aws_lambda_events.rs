//! Conversions between [`Event`] and the WebSocket request of the `aws_lambda_events` crate.

use aws_lambda_events::event::apigw::ApiGatewayWebsocketProxyRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Body, Event, InvalidEvent};

/// Converts a request of that crate.
///
/// The request has lost the case of header names, and all members that the crate does not know.
impl TryFrom<&ApiGatewayWebsocketProxyRequest> for Event {
    type Error = InvalidEvent;

    fn try_from(request: &ApiGatewayWebsocketProxyRequest) -> Result<Self, InvalidEvent> {
        // That crate writes nulls and lists that API Gateway does not send. All of them can be
        // parsed.
        let json = serde_json::to_vec(request).map_err(|_| InvalidEvent::Shape { line: 0, column: 0 })?;
        Self::from_slice(&json)
    }
}

impl TryFrom<ApiGatewayWebsocketProxyRequest> for Event {
    type Error = InvalidEvent;

    fn try_from(request: ApiGatewayWebsocketProxyRequest) -> Result<Self, InvalidEvent> {
        Self::try_from(&request)
    }
}

/// Converts an event for code that takes that crate's request.
///
/// The conversion fails if any header of the event is invalid.
impl TryFrom<&Event> for ApiGatewayWebsocketProxyRequest {
    type Error = serde_json::Error;

    fn try_from(event: &Event) -> Result<Self, serde_json::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json<'a> {
            request_context: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            headers: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            multi_value_headers: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            query_string_parameters: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            multi_value_query_string_parameters: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            stage_variables: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            body: Option<String>,
            is_base64_encoded: bool,
        }
        let ((headers, multi_value_headers), (query, multi_value_query)) = match event {
            Event::Connect(connect) => (connect.headers().0.forms(), connect.query_string().0.forms()),
            Event::Message(_) | Event::Disconnect(_) => Default::default(),
        };
        let (body, is_base64_encoded) = match event {
            Event::Message(message) => match &message.body {
                Body::Text(text) => (Some(text.clone()), false),
                Body::Bytes(bytes) => (Some(STANDARD.encode(bytes)), true),
            },
            Event::Connect(_) | Event::Disconnect(_) => (None, false),
        };
        let json = serde_json::to_vec(&Json {
            request_context: event.request_context().raw(),
            headers,
            multi_value_headers,
            query_string_parameters: query,
            multi_value_query_string_parameters: multi_value_query,
            stage_variables: event.request_context().raw_stage_variables(),
            body,
            is_base64_encoded,
        })?;
        serde_json::from_slice(&json)
    }
}
