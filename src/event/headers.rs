//! The headers and the query string of the request that opened a connection.

use std::fmt;

use super::wire::NameValues;

/// The request headers, with names compared without regard to case.
///
/// They are decoded when first asked for. Names keep the case that the client sent.
#[derive(Clone, Default)]
pub struct Headers(pub(crate) NameValues);

impl Headers {
    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Every value of a header, in the order in which they came.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The subprotocols offered by the client, in order of preference.
    pub(crate) fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.get_all("Sec-WebSocket-Protocol")
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }

    /// Every header with every value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.0)
    }
}

/// Shows the names only: values carry credentials.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        names(&self.0, f)
    }
}

/// The query string, decoded, with names compared exactly.
///
/// API Gateway has undone the percent-encoding. A parameter may have several values.
#[derive(Clone, Default)]
pub struct Query(pub(crate) NameValues);

impl Query {
    /// The last value of a parameter, which is the one that API Gateway puts in `queryStringParameters`.
    ///
    /// Use [`get_all`](Self::get_all) where a second value must not be overlooked, as with a token.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().filter(|(found, _)| *found == name).last().map(|(_, value)| value)
    }

    /// Every value of a parameter, in the order in which they came.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Every parameter with every value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.0)
    }
}

/// Shows the names only: values carry tokens.
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
