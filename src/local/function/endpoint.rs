//! Functions behind a Lambda Invoke endpoint.
//!
//! Such an endpoint is `cargo lambda watch`, AWS's runtime interface emulator, or another emulator.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::timeout;

use super::FunctionError;
use crate::clock;
use crate::event::Invocation;
use crate::quotas::MAX_FUNCTION_RESPONSE_BYTES;

/// How long a response may take after the deadline of the invocation.
const GRACE: Duration = Duration::from_secs(15 * 60);

/// The Invoke endpoint of a function, with connections that are kept alive.
#[derive(Clone)]
pub(super) struct Endpoint {
    uri: Uri,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An error returned when a URL is not the address of an Invoke endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not the address of a Lambda Invoke endpoint: expected `http://<host>:<port>`")]
pub struct InvalidInvokeEndpoint {
    url: String,
}

impl Endpoint {
    pub(super) fn new(url: &str, name: &str) -> Result<Self, InvalidInvokeEndpoint> {
        let invalid = || InvalidInvokeEndpoint { url: url.to_owned() };
        let base: Uri = url.parse().map_err(|_| invalid())?;
        if base.scheme_str() != Some("http") || base.host().is_none() || base.query().is_some() {
            return Err(invalid());
        }
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let uri = format!("{}/2015-03-31/functions/{name}/invocations", url.trim_end_matches('/'));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(3)));
        Ok(Self {
            uri: uri.parse().map_err(|_| invalid())?,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    pub(super) async fn invoke(self, invocation: Invocation, payload: Vec<u8>) -> Result<Vec<u8>, FunctionError> {
        let left = invocation.deadline.duration_since(clock::now()).unwrap_or_default();
        match timeout(left.saturating_add(GRACE), self.call(payload)).await {
            Ok(answer) => answer,
            Err(_) => Err(FunctionError::new("InvokeFailed", "the Invoke endpoint did not answer")),
        }
    }

    async fn call(self, payload: Vec<u8>) -> Result<Vec<u8>, FunctionError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            FunctionError::new("InvokeFailed", format!("{what} {}: {error}", self.uri))
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header("content-type", "application/json")
            .body(Full::from(payload))
            .map_err(|error| failed("cannot ask", &error))?;
        let answer = self.client.request(request).await.map_err(|error| failed("cannot reach", &error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_FUNCTION_RESPONSE_BYTES).collect().await;
        let body = body.map_err(|error| failed("cannot read the answer of", &error))?.to_bytes();
        if head.headers.contains_key("x-amz-function-error") {
            return Err(reported(&body));
        }
        // Emulators do not set the header: AWS's own responds with 200, and `cargo lambda watch`
        // with 500.
        match serde_json::from_slice(&body) {
            Ok(Reported { error_type: Some(error_type), error_message: Some(message) }) => {
                Err(FunctionError::new(error_type, message))
            }
            _ if head.status == StatusCode::OK => Ok(body.into()),
            _ => Err(failed("bad answer of", &head.status)),
        }
    }
}

/// Lambda's JSON for a failed function.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reported {
    error_type: Option<String>,
    error_message: Option<String>,
}

/// Parses the error that a function reported.
pub(super) fn reported(body: &[u8]) -> FunctionError {
    let Reported { error_type, error_message } = serde_json::from_slice(body).unwrap_or_default();
    FunctionError::new(error_type.unwrap_or_else(|| "Unhandled".to_owned()), error_message.unwrap_or_default())
}
