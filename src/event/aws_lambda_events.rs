//! From and to the WebSocket request of the `aws_lambda_events` crate.

use aws_lambda_events::event::apigw::ApiGatewayWebsocketProxyRequest;

use super::{Event, InvalidEvent};

/// The request's headers have lost the case of their names, and members that the crate does not know are gone.
impl TryFrom<&ApiGatewayWebsocketProxyRequest> for Event {
    type Error = InvalidEvent;

    fn try_from(request: &ApiGatewayWebsocketProxyRequest) -> Result<Self, InvalidEvent> {
        // What the crate writes has nulls and lists that the gateway does not send, all of which can be read.
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
