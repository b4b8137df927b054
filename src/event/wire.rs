//! The JSON that API Gateway sends.
//!
//! Only this file knows the names of the members. Members that a function may never read stay
//! undecoded.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use serde::de::{self, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::InvalidEvent;

/// The context member that holds the expiry of the authorization, in seconds since 1970.
pub(crate) const AUTHORIZATION_EXPIRES_AT: &str = "authorizationExpiresAt";

/// The top-level members of route events and of authorizer events.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an event as a JSON object")]
pub(crate) struct Envelope {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) method_arn: Option<String>,
    pub(crate) headers: Option<Box<RawValue>>,
    pub(crate) multi_value_headers: Option<Box<RawValue>>,
    pub(crate) query_string_parameters: Option<Box<RawValue>>,
    pub(crate) multi_value_query_string_parameters: Option<Box<RawValue>>,
    pub(crate) stage_variables: Option<Box<RawValue>>,
    pub(crate) request_context: Option<Box<RawValue>>,
    pub(crate) body: Option<String>,
    pub(crate) is_base64_encoded: Option<bool>,
    // The other members only identify events that are not WebSocket events.
    http_method: Option<IgnoredAny>,
    version: Option<IgnoredAny>,
    route_arn: Option<IgnoredAny>,
    #[serde(rename = "Records")]
    records: Option<IgnoredAny>,
}

impl Envelope {
    pub(crate) fn from_slice(json: &[u8]) -> Result<Self, InvalidEvent> {
        serde_json::from_slice(json).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => InvalidEvent::Shape { line: error.line(), column: error.column() },
            _ => InvalidEvent::NotJson { line: error.line(), column: error.column() },
        })
    }

    /// Describes the kind of event, for an error that expected another kind.
    pub(crate) fn describe(&self, context: Option<&ContextWire<'_>>) -> &'static str {
        if self.kind.as_deref() == Some("TOKEN") {
            "the event of a TOKEN authorizer"
        } else if self.method_arn.is_some() && self.http_method.is_some() {
            "the event of a REST API's authorizer"
        } else if self.method_arn.is_some() {
            "the event of a REQUEST authorizer"
        } else if self.route_arn.is_some() {
            "the event of an HTTP API's authorizer"
        } else if self.http_method.is_some() {
            "the event of a REST API"
        } else if self.version.is_some() {
            "the event of an HTTP API or a function URL"
        } else if self.records.is_some() {
            "a batch of records (SQS, SNS, S3 or a stream)"
        } else {
            match context.and_then(|context| context.event_type.as_deref()) {
                Some("CONNECT") => "a CONNECT event",
                Some("MESSAGE") => "a MESSAGE event",
                Some("DISCONNECT") => "a DISCONNECT event",
                Some(_) => "an event with another `requestContext.eventType`",
                None => "an object without `requestContext.eventType`",
            }
        }
    }
}

/// The members of `requestContext` that are always decoded.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub(crate) struct ContextWire<'a> {
    #[serde(borrow)]
    pub(crate) event_type: Option<Text<'a>>,
    pub(crate) route_key: Option<Text<'a>>,
    pub(crate) connection_id: Option<Text<'a>>,
    pub(crate) api_id: Option<Text<'a>>,
    pub(crate) stage: Option<Text<'a>>,
    pub(crate) domain_name: Option<Text<'a>>,
    pub(crate) request_id: Option<Text<'a>>,
    pub(crate) message_id: Option<Text<'a>>,
    pub(crate) connected_at: Option<u64>,
    pub(crate) request_time_epoch: Option<u64>,
    pub(crate) identity: Option<IdentityWire<'a>>,
    pub(crate) disconnect_status_code: Option<u16>,
    pub(crate) disconnect_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub(crate) struct IdentityWire<'a> {
    #[serde(borrow)]
    pub(crate) source_ip: Option<Text<'a>>,
}

impl<'a> ContextWire<'a> {
    pub(crate) fn parse(raw: &'a RawValue) -> Result<Self, InvalidEvent> {
        serde_json::from_str(raw.get()).map_err(|_| {
            // Track the path only after a failure, since it is slow.
            let json = &mut serde_json::Deserializer::from_str(raw.get());
            match serde_path_to_error::deserialize::<_, ContextWire<'_>>(json) {
                Err(error) => InvalidEvent::Member {
                    member: match error.path().to_string().as_str() {
                        "." => "requestContext".to_owned(),
                        path => format!("requestContext.{path}"),
                    },
                    reason: error.inner().to_string(),
                },
                Ok(_) => InvalidEvent::Missing { member: "requestContext" },
            }
        })
    }
}

/// The members of `requestContext` that are decoded on first use.
#[derive(Default, Deserialize)]
pub(crate) struct RareContextWire {
    #[serde(default)]
    pub(crate) authorizer: Option<serde_json::Value>,
    #[serde(default)]
    pub(crate) identity: Option<serde_json::Value>,
}

/// The keys that API Gateway adds to the authorizer's own context values.
pub(crate) const PRINCIPAL_ID: &str = "principalId";
pub(crate) const INTEGRATION_LATENCY: &str = "integrationLatency";

/// A string, borrowed if the JSON has no escapes.
pub(crate) struct Text<'a>(Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// Names with one or more values each, decoded on first use.
///
/// If an event has both forms, the multi-value form takes precedence.
#[derive(Clone, Default)]
pub(crate) struct NameValues {
    single: Option<Box<RawValue>>,
    multi: Option<Box<RawValue>>,
    decoded: OnceLock<Vec<(String, Vec<String>)>>,
}

impl NameValues {
    /// Stores both forms undecoded.
    pub(crate) fn new(single: Option<Box<RawValue>>, multi: Option<Box<RawValue>>) -> Self {
        Self { single, multi, decoded: OnceLock::new() }
    }

    /// Returns the undecoded single-value form and multi-value form.
    #[cfg(feature = "aws_lambda_events")]
    pub(crate) fn forms(&self) -> (Option<&RawValue>, Option<&RawValue>) {
        (self.single.as_deref(), self.multi.as_deref())
    }

    pub(crate) fn decoded(&self) -> &[(String, Vec<String>)] {
        self.decoded.get_or_init(|| {
            [&self.multi, &self.single]
                .into_iter()
                .flatten()
                .map(|raw| decode_name_values(raw))
                .find(|pairs| !pairs.is_empty())
                .unwrap_or_default()
        })
    }
}

/// Skips values that are neither a string nor a list of strings.
///
/// A single malformed header must not fail the event.
fn decode_name_values(raw: &RawValue) -> Vec<(String, Vec<String>)> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(raw.get()).unwrap_or_default();
    members
        .into_iter()
        .filter_map(|(name, value)| {
            let values: Vec<String> = match value {
                serde_json::Value::String(text) => vec![text],
                serde_json::Value::Array(items) => items
                    .into_iter()
                    .filter_map(|item| match item {
                        serde_json::Value::String(text) => Some(text),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            };
            (!values.is_empty()).then_some((name, values))
        })
        .collect()
}
