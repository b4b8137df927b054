//! Deserializes an authorizer's context values from strings.
//!
//! API Gateway stringifies every value of an authorizer's context before a route sees it: `7`
//! arrives as `"7"` and `true` as `"true"`. The deserializer parses each string as the type that
//! the target has.

use serde::de::value::MapDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use super::wire::{AUTHORIZATION_EXPIRES_AT, INTEGRATION_LATENCY, PRINCIPAL_ID};

/// The authorizer's context does not fit the requested type.
///
/// The error text names the key and the expected type, and never quotes a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the authorizer's context does not fit: {problem}")]
pub struct ContextMismatch {
    problem: String,
}

impl de::Error for ContextMismatch {
    fn custom<T: std::fmt::Display>(problem: T) -> Self {
        Self { problem: problem.to_string() }
    }

    /// Omits the value, unlike serde's default text, since it may be a secret.
    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {expected}"))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("expected one of {}", expected.join(", ")))
    }
}

/// Deserializes `T` from the authorizer's values.
///
/// The members that API Gateway and this crate add are left out.
pub(super) fn deserialize<T: DeserializeOwned>(authorizer: Option<&Value>) -> Result<T, ContextMismatch> {
    let none = Map::new();
    let members = match authorizer {
        None | Some(Value::Null) => &none,
        Some(Value::Object(members)) => members,
        Some(_) => return Err(de::Error::custom("`requestContext.authorizer` is not an object")),
    };
    let entries = || {
        MapDeserializer::new(
            members
                .iter()
                .filter(|(key, _)| {
                    !matches!(key.as_str(), PRINCIPAL_ID | INTEGRATION_LATENCY | AUTHORIZATION_EXPIRES_AT)
                })
                .map(|(key, value)| (key.as_str(), Scalar(value))),
        )
    };
    T::deserialize(entries()).map_err(|error| {
        // Deserialize again, to find the key.
        match serde_path_to_error::deserialize::<_, T>(entries()) {
            Err(located) if located.path().to_string() != "." => {
                let path = located.path().to_string();
                ContextMismatch { problem: format!("{path}: {}", located.into_inner().problem) }
            }
            _ => error,
        }
    })
}

/// A single value, parsed as the type that the target requests.
struct Scalar<'a>(&'a Value);

impl<'de> IntoDeserializer<'de, ContextMismatch> for Scalar<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parse {
    ($($method:ident => $visit:ident: $type:ty, $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ContextMismatch> {
            match self.0 {
                Value::String(text) => match text.parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(de::Error::custom(concat!("expected ", $expected))),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Scalar<'de> {
    type Error = ContextMismatch;

    parse! {
        deserialize_bool => visit_bool: bool, "`true` or `false`";
        deserialize_i8 => visit_i8: i8, "an integer that fits i8";
        deserialize_i16 => visit_i16: i16, "an integer that fits i16";
        deserialize_i32 => visit_i32: i32, "an integer that fits i32";
        deserialize_i64 => visit_i64: i64, "an integer that fits i64";
        deserialize_i128 => visit_i128: i128, "an integer that fits i128";
        deserialize_u8 => visit_u8: u8, "an integer that fits u8";
        deserialize_u16 => visit_u16: u16, "an integer that fits u16";
        deserialize_u32 => visit_u32: u32, "an integer that fits u32";
        deserialize_u64 => visit_u64: u64, "an integer that fits u64";
        deserialize_u128 => visit_u128: u128, "an integer that fits u128";
        deserialize_f32 => visit_f32: f32, "a number";
        deserialize_f64 => visit_f64: f64, "a number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ContextMismatch> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::Array(_) => Err(de::Error::custom("arrays cannot cross API Gateway")),
            Value::Object(_) => Err(de::Error::custom("objects cannot cross API Gateway")),
        }
    }

    /// Accepts a number or a boolean for a string.
    ///
    /// A gateway that does not stringify values must not fail a type with strings.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ContextMismatch> {
        match self.0 {
            Value::Bool(_) | Value::Number(_) => visitor.visit_string(self.0.to_string()),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ContextMismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ContextMismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ContextMismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ContextMismatch> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ContextMismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ContextMismatch> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(de::value::StrDeserializer::new(text)),
            _ => Err(de::Error::custom("expected the name of a variant")),
        }
    }

    forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct seq tuple tuple_struct map struct ignored_any
    }
}
