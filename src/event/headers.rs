//! The headers and the query string of the handshake request.

use std::fmt;

use super::wire::NameValues;

/// The request headers. Names are case-insensitive.
///
/// They are decoded on first use. Names keep the case in which the client sent them.
#[derive(Clone, Default)]
pub struct Headers(pub(crate) NameValues);

impl Headers {
    /// Returns the first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns all values of a header, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the subprotocols offered by the client, in order of preference.
    pub(crate) fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.get_all("Sec-WebSocket-Protocol")
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }

    /// Returns all names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.0)
    }
}

/// Shows the names only, since values carry credentials.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        names(&self.0, f)
    }
}

/// The decoded query string. Names are case-sensitive.
///
/// API Gateway decodes the percent-encoding. A parameter may have several values.
#[derive(Clone, Default)]
pub struct Query(pub(crate) NameValues);

impl Query {
    /// Returns the last value of a parameter, as API Gateway does in `queryStringParameters`.
    ///
    /// Use [`get_all`](Self::get_all) if a second value must not be missed, such as for a token.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().filter(|(found, _)| *found == name).last().map(|(_, value)| value)
    }

    /// Returns all values of a parameter, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Returns all names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.0)
    }
}

/// Shows the names only, since values carry tokens.
impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        names(&self.0, f)
    }
}

fn pairs(values: &NameValues) -> impl Iterator<Item = (&str, &str)> {
    values.decoded().iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())))
}

fn names(values: &NameValues, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_set().entries(values.decoded().iter().map(|(name, _)| name)).finish()
}
