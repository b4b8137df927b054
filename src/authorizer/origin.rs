//! The origins of the web pages that may connect.

use std::fmt;

use http::Uri;

use super::{Denied, Request};
use crate::event::Headers;

/// An allow-list of the origins whose pages may connect.
///
/// A browser lets every page open a WebSocket to every host, and sends that host's cookies along.
/// The `Origin` header names the page's scheme, host, and port, and a page cannot change it. Other
/// programs can send any value, so the list does not replace a token.
///
/// Schemes and hosts are compared case-insensitively, and the default port of `http` and `https`
/// can be left out. Everything else must be equal. The opaque origin `null`, sent for example by a
/// sandboxed frame, is never allowed. A request without an `Origin` header is rejected by default;
/// see [`with_missing_origin`](Self::with_missing_origin).
///
/// See [origins](https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Origin).
///
/// # Examples
///
/// ```
/// use lambda_websocket::authorizer::{
///     AllowedOrigins, Authorization, Denied, Request,
/// };
///
/// async fn authorize(
///     request: Request,
///     origins: &AllowedOrigins,
/// ) -> Result<Authorization, Denied> {
///     origins.check(&request)?; // 403
///     // … and a token.
///     # Ok(Authorization::allow("alice"))
/// }
///
/// let origins = AllowedOrigins::new([
///     "https://chat.example.com",
///     "https://*.preview.example.com",
/// ])?;
/// # let _ = |request| authorize(request, &origins);
/// # Ok::<(), lambda_websocket::authorizer::InvalidOrigin>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AllowedOrigins {
    patterns: Vec<Pattern>,
    missing: bool,
}

/// A string that is not a valid origin for the allow-list.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin:?} is not an origin: {reason}")]
pub struct InvalidOrigin {
    origin: String,
    reason: &'static str,
}

/// Shows the message, which is what a `main` that returns this error prints.
impl fmt::Debug for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A scheme, a host, and a port, all in lower case and without default ports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exactly(Origin),
    /// The host of the origin is a suffix that starts with a dot.
    Subdomains(Origin),
}

impl AllowedOrigins {
    /// Allows pages of these origins, such as `https://example.com` and `http://localhost:3000`.
    ///
    /// `https://*.example.com` allows every subdomain of `example.com`, at any depth, but not
    /// `example.com` itself.
    ///
    /// # Errors
    ///
    /// [`InvalidOrigin`] for a string that is neither an origin nor a wildcard for subdomains, such
    /// as one with a path, `*`, or `null`.
    pub fn new<I>(origins: I) -> Result<Self, InvalidOrigin>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let patterns = origins.into_iter().map(|origin| Pattern::new(origin.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { patterns, missing: false })
    }

    /// Also allows requests without an `Origin` header, as sent by programs other than browsers.
    #[must_use]
    pub fn with_missing_origin(mut self) -> Self {
        self.missing = true;
        self
    }

    /// Checks the `Origin` header of a client that is connecting.
    ///
    /// # Errors
    ///
    /// [`Denied::Forbidden`] if the origin is not allowed.
    pub fn check(&self, request: &Request) -> Result<(), Denied> {
        if self.allows(request.headers()) { Ok(()) } else { Err(Denied::Forbidden) }
    }

    /// Returns whether the headers have exactly one `Origin`, and the list allows it.
    ///
    /// Use it in a `$connect` route without an authorizer: `origins.allows(event.headers())`.
    pub fn allows(&self, headers: &Headers) -> bool {
        let mut origins = headers.get_all("Origin");
        match (origins.next(), origins.next()) {
            (None, _) => self.missing,
            (Some(origin), None) => {
                Origin::parse(origin).is_ok_and(|origin| self.patterns.iter().any(|pattern| pattern.matches(&origin)))
            }
            (Some(_), Some(_)) => false,
        }
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, InvalidOrigin> {
        let invalid = |reason| InvalidOrigin { origin: text.to_owned(), reason };
        let mut origin = Origin::parse(text).map_err(invalid)?;
        let Some(suffix) = origin.host.strip_prefix('*') else {
            return Ok(Self::Exactly(origin));
        };
        // `*.com` would allow every site under `.com`.
        let is_suffix = suffix.starts_with('.') && suffix.matches('.').count() > 1 && !suffix.contains(['*', ':']);
        if !is_suffix {
            return Err(invalid("a wildcard must replace subdomains, as in `https://*.example.com`"));
        }
        origin.host = suffix.to_owned();
        Ok(Self::Subdomains(origin))
    }

    fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Exactly(allowed) => allowed == origin,
            Self::Subdomains(allowed) => {
                let is_subdomain = origin.host.strip_suffix(&allowed.host).is_some_and(|label| !label.is_empty());
                allowed.scheme == origin.scheme && allowed.port == origin.port && is_subdomain
            }
        }
    }
}

impl Origin {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected a scheme, a host and an optional port, as in `https://example.com`";
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        if rest.contains(['/', '?', '#', '@']) {
            return Err("expected nothing after the host and the port, not even a path");
        }
        if !rest.is_ascii() {
            return Err("write an international host name as browsers do, in Punycode");
        }
        let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(EXPECTED)?.to_ascii_lowercase();
        if host.contains('*') && !host.starts_with("*.") {
            return Err("a wildcard must replace subdomains, as in `https://*.example.com`");
        }
        // `Uri` accepts a colon without a number, and returns no port for a number that is too
        // large.
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = uri.port_u16();
        if has_port && port.is_none() {
            return Err("the port is not a number from 0 to 65535");
        }
        let scheme = scheme.to_ascii_lowercase();
        let port = port.filter(|port| !matches!((scheme.as_str(), port), ("http", 80) | ("https", 443)));
        Ok(Self { scheme, host, port })
    }
}
