//! The values that an authorizer passes to the routes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use crate::event::wire::{INTEGRATION_LATENCY, PRINCIPAL_ID};

/// Named values that an authorizer passes to the routes.
///
/// The values are strings, numbers, booleans, and nulls. API Gateway rejects lists and objects, and
/// turns every value into a string. A route that reads them with
/// [`RequestContext::context`](crate::event::RequestContext::context) gets numbers and booleans
/// back. JSON has no infinite numbers: they become null.
///
/// See [the output of an
/// authorizer](https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html).
#[derive(Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Context(Map<String, Value>);

/// Values that cannot be passed through API Gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidContext {
    /// A value is a list or an object.
    #[error(
        "{path}: {kind} are not supported in an authorizer's context: wrap the value in `AsJson` to pass it as a JSON \
         string"
    )]
    Nested {
        /// The path of the innermost of the first nested values, with the keys joined by dots.
        path: String,
        /// `arrays` or `objects`.
        kind: &'static str,
    },
    /// A key is reserved: API Gateway adds its own value under it.
    #[error("{key}: API Gateway reserves this key: use another name")]
    Reserved {
        /// The reserved key.
        key: &'static str,
    },
    /// The context is not a struct or a map.
    #[error("an authorizer's context must be a struct or a map, found {found}")]
    NotAMap {
        /// The type found instead, such as `a list`.
        found: &'static str,
    },
    /// The value failed to serialize, or has a number that JSON cannot represent.
    #[error("failed to serialize the authorizer's context as JSON: {reason}")]
    NotJson {
        /// The message of the serialization error.
        reason: String,
    },
}

impl Context {
    /// Creates a context from a struct or a map.
    ///
    /// `()` and `None` create an empty context.
    ///
    /// # Errors
    ///
    /// - [`InvalidContext::Nested`] for the first list or object, in the order of the keys.
    /// - [`InvalidContext::Reserved`] for a key that API Gateway sets itself.
    /// - [`InvalidContext::NotAMap`] if the value is not a struct or a map.
    /// - [`InvalidContext::NotJson`] if the value fails to serialize as JSON.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::authorizer::Context;
    /// use serde_json::json;
    ///
    /// assert!(Context::new(&json!({"org": 7, "admin": true})).is_ok());
    /// let error = Context::new(&json!({"session": {"roles": ["a", "b"]}})).unwrap_err();
    /// let text = error.to_string();
    /// assert!(text.starts_with("session.roles: arrays are not supported"), "{text}");
    /// ```
    pub fn new(values: &(impl Serialize + ?Sized)) -> Result<Self, InvalidContext> {
        let values =
            serde_json::to_value(values).map_err(|error| InvalidContext::NotJson { reason: error.to_string() })?;
        Self::from_value(values)
    }

    fn from_value(values: Value) -> Result<Self, InvalidContext> {
        let members = match values {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            Value::Array(_) => return Err(InvalidContext::NotAMap { found: "a list" }),
            Value::String(_) => return Err(InvalidContext::NotAMap { found: "a string" }),
            Value::Number(_) => return Err(InvalidContext::NotAMap { found: "a number" }),
            Value::Bool(_) => return Err(InvalidContext::NotAMap { found: "a boolean" }),
        };
        if let Some(key) = [PRINCIPAL_ID, INTEGRATION_LATENCY].into_iter().find(|key| members.contains_key(*key)) {
            return Err(InvalidContext::Reserved { key });
        }
        match first_nested(&members) {
            Some((path, kind)) => Err(InvalidContext::Nested { path, kind }),
            None => Ok(Self(members)),
        }
    }

    /// Adds a value that is not nested.
    pub(super) fn insert(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Returns whether the context has no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

/// Returns the path of the first nested value, followed down to the innermost nested value.
fn first_nested(members: &Map<String, Value>) -> Option<(String, &'static str)> {
    members.iter().find_map(|(key, value)| match value {
        Value::Array(_) => Some((key.clone(), "arrays")),
        Value::Object(inner) => Some(match first_nested(inner) {
            Some((path, kind)) => (format!("{key}.{path}"), kind),
            None => (key.clone(), "objects"),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// Shows only the keys.
impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
