//! The identifiers of a WebSocket API: text that has been checked once and is cheap to clone.
//!
//! API Gateway's own ids are short enough to be kept without an allocation.

use std::fmt;

/// The text is not a legal identifier of its kind.
///
/// Its `Display` quotes the text, for those who configure a program. A route that returns it as its error rejects the
/// message: then the client gets this text, and the log one that quotes nothing.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {found:?} is not valid: expected {expected}")]
pub struct InvalidId {
    kind: &'static str,
    expected: &'static str,
    found: String,
}

impl InvalidId {
    pub(crate) fn new(kind: &'static str, expected: &'static str, found: &str) -> Self {
        // An offending text of any length must not flood a log.
        const SHOWN: usize = 80;
        let mut shown: String = found.chars().take(SHOWN).collect();
        if shown.len() < found.len() {
            shown.push('…');
        }
        Self { kind, expected, found: shown }
    }

    /// The kind of identifier that refused to exist, such as `connection id`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The error without the text that was found.
    pub(crate) fn unquoted(&self) -> String {
        format!("{} is not valid: expected {}", self.kind, self.expected)
    }
}

/// Leaves out the text that was found, which may be a client's.
impl fmt::Debug for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidId({})", self.unquoted())
    }
}

macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $expected:literal, $is_valid:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(::smol_str::SmolStr);

        impl $name {
            /// Checks the text and keeps it.
            ///
            /// # Errors
            ///
            /// [`InvalidId`](crate::event::InvalidId) when the text is not a legal identifier of this kind.
            pub fn new(text: impl AsRef<str>) -> Result<Self, $crate::event::InvalidId> {
                let text = text.as_ref();
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(text) {
                    Ok(Self(::smol_str::SmolStr::new(text)))
                } else {
                    Err($crate::event::InvalidId::new($kind, $expected, text))
                }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::event::InvalidId;

            fn from_str(text: &str) -> Result<Self, $crate::event::InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::event::InvalidId;

            fn try_from(text: &str) -> Result<Self, $crate::event::InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::event::InvalidId;

            fn try_from(text: String) -> Result<Self, $crate::event::InvalidId> {
                Self::new(text)
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'_, str> as ::serde::Deserialize>::deserialize(deserializer)?;
                Self::new(text).map_err(::serde::de::Error::custom)
            }
        }
    };
}

#[cfg(feature = "registry")]
pub(crate) use identifier;

pub(crate) fn within(text: &str, longest: usize, legal: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= longest && text.bytes().all(legal)
}

fn is_opaque(text: &str) -> bool {
    within(text, 128, |byte| byte.is_ascii_graphic())
}

identifier! {
    /// Names one open connection: 1 to 128 visible ASCII characters, otherwise opaque.
    ///
    /// API Gateway makes 16 characters such as `L0SM9cOFvHcCIhw=`. They contain `=`, `-` and `_`, so an id is
    /// percent-encoded wherever it becomes part of a URL. There `.` and `..` would mean another path, so they are none.
    ConnectionId,
    "connection id",
    "1 to 128 visible ASCII characters, not `.` or `..`",
    |text| is_opaque(text) && !matches!(text, "." | "..")
}

identifier! {
    /// Names one message of a client: 1 to 128 visible ASCII characters, otherwise opaque.
    MessageId, "message id", "1 to 128 visible ASCII characters", is_opaque
}

identifier! {
    /// Names one request to the gateway, as its access logs do: 1 to 128 visible ASCII characters.
    RequestId, "request id", "1 to 128 visible ASCII characters", is_opaque
}

identifier! {
    /// Names an API: 1 to 63 letters, digits or `-`, since it is the first label of the API's host.
    ApiId, "API id", "1 to 63 letters, digits or `-`",
    |text| within(text, 63, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

identifier! {
    /// Names a stage of an API: 1 to 128 of `A-Z a-z 0-9 _ -`.
    ///
    /// See [stages](https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html) among the quotas.
    Stage, "stage", "1 to 128 letters, digits, `_` or `-`",
    |text| within(text, 128, |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

identifier! {
    /// Names an AWS region, such as `eu-central-1`: 1 to 63 lower-case letters, digits or `-`.
    Region, "region", "1 to 63 lower-case letters, digits or `-`, such as `eu-central-1`",
    |text| within(text, 63, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

identifier! {
    /// Selects a route: `$connect`, `$disconnect`, `$default`, or a text of yours that does not start with `$`.
    ///
    /// A custom key is what the API's route selection expression makes of a message, usually the value of its `action`
    /// member. It has 1 to 128 bytes, none of them a control character, and is compared exactly.
    ///
    /// See [routes](https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-develop-routes.html).
    RouteKey, "route key",
    "`$connect`, `$disconnect`, `$default`, or 1 to 128 bytes that do not start with `$`",
    is_route_key
}

fn is_route_key(text: &str) -> bool {
    match text.strip_prefix('$') {
        Some(rest) => matches!(rest, "connect" | "disconnect" | "default"),
        None => within(text, 128, |byte| !byte.is_ascii_control()),
    }
}

impl RouteKey {
    /// The key of the route that a new connection selects.
    pub const CONNECT: &'static str = "$connect";
    /// The key of the route that a closed connection selects.
    pub const DISCONNECT: &'static str = "$disconnect";
    /// The key of the route for messages that select no other.
    pub const DEFAULT: &'static str = "$default";
}

/// So that a route can be looked up by its key's text.
impl std::borrow::Borrow<str> for RouteKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}
