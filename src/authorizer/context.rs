//! The values that an authorizer hands on to the routes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use crate::event::wire::{INTEGRATION_LATENCY, PRINCIPAL_ID};

/// Named values that an authorizer hands on to the routes: strings, numbers, booleans and nulls.
///
/// API Gateway takes no lists and no objects, and makes text of every value: a route that reads them with
/// [`RequestContext::context`](crate::event::RequestContext::context) gets numbers and booleans back. JSON has no
/// infinite numbers: they become null.
///
/// See [the output of an authorizer](https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html).
#[derive(Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Context(Map<String, Value>);

/// The values cannot cross API Gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidContext {
    /// A value is a list or an object.
    #[error("{path}: {kind} cannot cross API Gateway; `AsJson` carries them as text")]
    Nested {
        /// The members that lead to the innermost of the first nested values, joined by dots.
        path: String,
        /// `arrays` or `objects`.
        kind: &'static str,
    },
    /// A key is one that API Gateway itself puts beside the values.
    #[error("{key}: API Gateway puts its own value under this key")]
    Reserved {
        /// The key.
        key: &'static str,
    },
    /// The whole is not a map from names to values.
    #[error("an authorizer's context is a struct or a map, found {found}")]
    NotAMap {
        /// What it is instead.
        found: &'static str,
    },
    /// The value refuses to be serialised, or has a number that JSON cannot carry.
    #[error("the authorizer's context cannot be made JSON: {reason}")]
    NotJson {
        /// Why not.
        reason: String,
    },
}

impl Context {
    /// Makes a context of a struct or a map.
    ///
    /// `()` and `None` make an empty one.
    ///
    /// # Errors
    ///
    /// [`InvalidContext`] names the first value that cannot cross API Gateway, keys in the order of their text.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::authorizer::Context;
    /// use serde_json::json;
    ///
    /// assert!(Context::new(&json!({"org": 7, "admin": true})).is_ok());
    /// let error = Context::new(&json!({"session": {"roles": ["a", "b"]}})).unwrap_err();
    /// assert_eq!(error.to_string(), "session.roles: arrays cannot cross API Gateway; `AsJson` carries them as text");
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

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values, in the order of their keys' text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

/// The path of the first nested value, followed inwards as long as it is nested itself.
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

/// Shows the keys only.
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
