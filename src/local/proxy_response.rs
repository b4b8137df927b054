//! The responses of functions, as the gateway interprets them.

use http::StatusCode;
use serde_json::{Map, Value};

use crate::authorizer::Response;
use crate::event::wire::{INTEGRATION_LATENCY, PRINCIPAL_ID};

/// The response of a proxy integration.
#[derive(Debug, PartialEq)]
pub(super) struct ProxyResponse {
    pub(super) status: u16,
    pub(super) body: Option<String>,
    headers: Map<String, Value>,
}

impl ProxyResponse {
    /// Parses a response, or explains what is wrong with it (MSG-3, MSG-6).
    pub(super) fn parse(answer: &[u8]) -> Result<Self, String> {
        const MEMBERS: [&str; 5] = ["statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"];
        let Ok(Value::Object(mut answer)) = serde_json::from_slice(answer) else {
            return Err("it is not a JSON object".to_owned());
        };
        if let Some(unknown) = answer.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            return Err(format!("it has the unknown member {unknown:?}"));
        }
        let status = match answer.get("statusCode") {
            Some(Value::Number(number)) => number.as_u64().and_then(|status| u16::try_from(status).ok()),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let status = status.filter(|status| (100..600).contains(status));
        let status = status.ok_or_else(|| "its statusCode is no status from 100 to 599".to_owned())?;
        let body = match answer.remove("body") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err("its body is not text".to_owned()),
        };
        let headers = match answer.remove("headers") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(headers)) => headers,
            Some(_) => return Err("its headers are no object".to_owned()),
        };
        Ok(Self { status, body, headers })
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        value.as_str().map(str::to_owned)
    }

    /// Returns the standard reason phrase of the status.
    pub(super) fn reason(&self) -> &'static str {
        StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
    }
}

/// Parses an authorizer's response (AUT-4, AUT-8).
///
/// The error contains the error type that the gateway returns, if there is one, and the reason.
pub(super) fn authorization(answer: &[u8]) -> Result<Response, (Option<&'static str>, String)> {
    let response: Response = serde_json::from_slice(answer).map_err(|error| {
        let context = serde_json::from_slice::<Value>(answer).ok().and_then(|answer| answer.get("context").cloned());
        let is_nested = |value: &Value| value.is_array() || value.is_object();
        match context {
            Some(Value::Object(context)) if context.values().any(is_nested) => {
                (Some("AuthorizerConfigurationException"), "its context has a nested value".to_owned())
            }
            _ => (None, explained(&error)),
        }
    })?;
    // AUT-10
    if response.principal_id().is_empty() {
        return Err((None, "its principalId is empty".to_owned()));
    }
    if answer.len() > Response::MAX_BYTES {
        return Err((None, format!("it has more than {} bytes", Response::MAX_BYTES)));
    }
    Ok(response)
}

/// Explains what is wrong with a response, without its values.
fn explained(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // serde names members, and shows values in backquotes or quotes after `invalid`.
    let is_safe = ["missing field", "unknown field", "duplicate field"].iter().any(|start| text.starts_with(start));
    match is_safe {
        true => text,
        false => format!("it does not fit at line {} column {}", error.line(), error.column()),
    }
}

/// Returns the authorizer context as routes receive it (AUT-9, EVT-14).
///
/// It has the values as strings or null, the principal, and the integration latency.
pub(super) fn downstream(response: &Response, latency: u128) -> Map<String, Value> {
    let text = |value: &Value| match value {
        Value::Null => Value::Null,
        Value::String(text) => Value::String(text.clone()),
        other => Value::String(other.to_string()),
    };
    let mut values: Map<String, Value> =
        response.context().iter().map(|(key, value)| (key.to_owned(), text(value))).collect();
    values.insert(PRINCIPAL_ID.to_owned(), Value::String(response.principal_id().to_owned()));
    values.insert(INTEGRATION_LATENCY.to_owned(), Value::from(u64::try_from(latency).unwrap_or(u64::MAX)));
    values
}
