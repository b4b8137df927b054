//! What functions answer, as the gateway understands it.

use http::StatusCode;
use serde_json::{Map, Value};

use crate::authorizer::Response;
use crate::event::wire::{INTEGRATION_LATENCY, PRINCIPAL_ID};

/// The answer of a proxy integration.
#[derive(Debug, PartialEq)]
pub(super) struct ProxyAnswer {
    pub(super) status: u16,
    pub(super) body: Option<String>,
    headers: Map<String, Value>,
}

impl ProxyAnswer {
    /// `None` for a malformed answer: not an object, no integer status, or a body that is not text.
    pub(super) fn parse(answer: &[u8]) -> Option<Self> {
        let Value::Object(mut answer) = serde_json::from_slice(answer).ok()? else { return None };
        let status = answer.get("statusCode")?.as_u64().and_then(|status| u16::try_from(status).ok())?;
        if !(100..600).contains(&status) {
            return None;
        }
        let body = match answer.remove("body") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => return None,
        };
        let headers = match answer.remove("headers") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(headers)) => headers,
            Some(_) => return None,
        };
        Some(Self { status, body, headers })
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        value.as_str().map(str::to_owned)
    }

    /// The usual text for the status.
    pub(super) fn reason(&self) -> &'static str {
        StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
    }
}

/// Reads an authorizer's answer; the error is the type that the gateway gives it, where it has one (AUT-4, AUT-8).
pub(super) fn authorization(answer: &[u8]) -> Result<Response, Option<&'static str>> {
    let response: Response = serde_json::from_slice(answer).map_err(|_| {
        let context = serde_json::from_slice::<Value>(answer).ok().and_then(|answer| answer.get("context").cloned());
        let is_nested = |value: &Value| value.is_array() || value.is_object();
        match context {
            Some(Value::Object(context)) if context.values().any(is_nested) => Some("AuthorizerConfigurationException"),
            _ => None,
        }
    })?;
    // AUT-10
    if response.principal_id().is_empty() || answer.len() > Response::LARGEST {
        return Err(None);
    }
    Ok(response)
}

/// The authorizer's values as the routes see them: text, beside the principal and the latency (AUT-9, EVT-14).
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
