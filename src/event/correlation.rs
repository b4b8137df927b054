//! The correlation id, by which a client matches replies to requests.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::{InvalidId, RequestId};

/// Identifies the request that a reply belongs to: a JSON string or a JSON number.
///
/// A client chooses it as the member `id` of its message, and gets it back exactly as written: `7`
/// stays a number, `"7"` a string, and `1e3` is not reformatted. Without one, replies from a queue
/// carry API Gateway's [request id](RequestId).
///
/// - Its JSON has at most [`MAX_BYTES`](Self::MAX_BYTES), including the quotes of a string.
/// - Two ids are equal if their JSON is identical.
///
/// The id is part of the client's message, so this crate does not log it.
///
/// # Examples
///
/// ```
/// use lambda_websocket::event::CorrelationId;
///
/// assert_eq!(CorrelationId::from_json("1e3")?.as_json(), "1e3");
/// assert_eq!(CorrelationId::new("question 1")?.as_json(), r#""question 1""#);
/// assert_ne!(CorrelationId::from(7), CorrelationId::new("7")?);
/// assert!(CorrelationId::from_json("true").is_err());
/// # Ok::<(), lambda_websocket::event::InvalidId>(())
/// ```
// The JSON, without surrounding whitespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CorrelationId(SmolStr);

const KIND: &str = "correlation id";
const EXPECTED: &str = "a JSON string or number of at most 64 bytes";
/// The size of a request id with 128 escaped characters, including its quotes.
const MAX_OWN_BYTES: usize = 258;

impl CorrelationId {
    /// The maximum size of a client's id, in bytes of JSON.
    pub const MAX_BYTES: usize = 64;

    /// Creates an id from a string, which becomes a JSON string.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if its JSON has more than 64 bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
        let text = text.as_ref();
        let json = string(text);
        if json.len() > Self::MAX_BYTES {
            return Err(InvalidId::new(KIND, EXPECTED, text));
        }
        Ok(Self(json))
    }

    /// Creates an id from its JSON, which is kept as written.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] if the JSON is neither a string nor a number, or has more than 64 bytes.
    pub fn from_json(json: &str) -> Result<Self, InvalidId> {
        if json.len() > Self::MAX_BYTES || !is_string_or_number(json) {
            return Err(InvalidId::new(KIND, EXPECTED, json));
        }
        Ok(Self(json.into()))
    }

    /// Returns the id as JSON, as it was written.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Creates an id from its JSON in a reply address.
    ///
    /// It may be a request id, which can have more than 64 bytes.
    #[cfg(feature = "reply")]
    pub(crate) fn from_address(json: &str) -> Option<Self> {
        (json.len() <= MAX_OWN_BYTES && is_string_or_number(json)).then(|| Self(json.into()))
    }
}

fn string(text: &str) -> SmolStr {
    // Serializing a string cannot fail.
    serde_json::to_string(text).unwrap_or_default().into()
}

fn is_string_or_number(json: &str) -> bool {
    let first = json.as_bytes().first();
    let last = json.as_bytes().last();
    // `RawValue` accepts trailing whitespace, so the last byte is checked here.
    first.is_some_and(|first| *first == b'"' || *first == b'-' || first.is_ascii_digit())
        && last.is_some_and(|last| !last.is_ascii_whitespace())
        && serde_json::from_str::<&RawValue>(json).is_ok()
}

/// Creates a JSON string from API Gateway's request id.
impl From<&RequestId> for CorrelationId {
    fn from(request_id: &RequestId) -> Self {
        debug_assert!(request_id.as_str().len().saturating_mul(2).saturating_add(2) <= MAX_OWN_BYTES);
        Self(string(request_id.as_str()))
    }
}

impl From<u64> for CorrelationId {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

/// Writes the id as JSON.
impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CorrelationId({})", self.0)
    }
}

impl std::str::FromStr for CorrelationId {
    type Err = InvalidId;

    /// Creates an id from a string, like [`CorrelationId::new`].
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

/// Serializes the string or the number. With `serde_json` it stays as written.
impl Serialize for CorrelationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Deserializes a string or a number.
///
/// A number that is not a 64-bit integer may be reformatted.
impl<'de> Deserialize<'de> for CorrelationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrNumber;

        impl Visitor<'_> for StringOrNumber {
            type Value = CorrelationId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CorrelationId, E> {
                CorrelationId::new(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<CorrelationId, E> {
                Ok(number.into())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<CorrelationId, E> {
                CorrelationId::from_json(&number.to_string()).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<CorrelationId, E> {
                let json = serde_json::to_string(&number).map_err(E::custom)?;
                CorrelationId::from_json(&json).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(StringOrNumber)
    }
}
