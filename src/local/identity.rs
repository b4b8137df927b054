//! Identity sources: values that a request must carry before the authorizer is called.

use std::fmt;
use std::str::FromStr;

use super::payload::Handshake;

/// A value that a client's request must carry.
///
/// Without it, the gateway refuses the request with 401 and does not call the authorizer. A source
/// is `route.request.header.<name>`, `route.request.querystring.<name>`, `stageVariables.<name>`,
/// or `context.<name>`.
///
/// See [identity sources](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdentitySource {
    place: Place,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Query,
    StageVariable,
    Context,
}

const PLACES: [(&str, Place); 4] = [
    ("route.request.header.", Place::Header),
    ("route.request.querystring.", Place::Query),
    ("stageVariables.", Place::StageVariable),
    ("context.", Place::Context),
];

/// The members of `requestContext` that every authorizer event has, never empty.
const CONTEXT: [&str; 13] = [
    "apiId",
    "connectedAt",
    "connectionId",
    "domainName",
    "eventType",
    "extendedRequestId",
    "identity.sourceIp",
    "messageDirection",
    "requestId",
    "requestTime",
    "requestTimeEpoch",
    "routeKey",
    "stage",
];
/// The only member that an event may lack.
const USER_AGENT: &str = "identity.userAgent";

/// An error returned when a string is not a valid identity source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an identity source of a WebSocket API: expected {expected}")]
pub struct InvalidIdentitySource {
    text: String,
    expected: String,
}

impl IdentitySource {
    /// Returns whether the request carries a non-empty value for this source.
    pub(super) fn is_in(&self, handshake: &Handshake, variables: &[(String, String)], context: &ContextNames) -> bool {
        let mut found = match self.place {
            Place::Header => find(&handshake.headers, |name| name.eq_ignore_ascii_case(&self.name)),
            Place::Query => find(&handshake.query, |name| name == self.name),
            Place::StageVariable => find(variables, |name| name == self.name),
            Place::Context if self.name != USER_AGENT => return true,
            Place::Context => find(context, |name| name == self.name),
        };
        found.any(|value| !value.is_empty())
    }
}

/// The optional members of `requestContext`, by their dotted names.
pub(super) type ContextNames = [(String, String)];

fn find<'a>(
    pairs: &'a [(String, String)],
    is_it: impl Fn(&str) -> bool + 'a,
) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    Box::new(pairs.iter().filter(move |(name, _)| is_it(name)).map(|(_, value)| value.as_str()))
}

impl fmt::Display for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = PLACES.iter().find(|(_, place)| *place == self.place).map_or("", |(prefix, _)| prefix);
        write!(f, "{prefix}{}", self.name)
    }
}

impl FromStr for IdentitySource {
    type Err = InvalidIdentitySource;

    fn from_str(text: &str) -> Result<Self, InvalidIdentitySource> {
        let invalid = |expected: &str| InvalidIdentitySource { text: text.to_owned(), expected: expected.to_owned() };
        let (place, name) = PLACES
            .into_iter()
            .find_map(|(prefix, place)| Some((place, text.strip_prefix(prefix)?)))
            .filter(|(_, name)| !name.is_empty())
            .ok_or_else(|| {
                invalid(
                    "`route.request.header.<name>`, `route.request.querystring.<name>`, `stageVariables.<name>` or \
                     `context.<name>`",
                )
            })?;
        if name.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control()) {
            return Err(invalid("one source in each text, without a comma or a space"));
        }
        if place == Place::Context && !CONTEXT.contains(&name) && name != USER_AGENT {
            let known: Vec<&str> = CONTEXT.into_iter().chain([USER_AGENT]).collect();
            return Err(invalid(&format!("a member of the request context: {}", known.join(", "))));
        }
        Ok(Self { place, name: name.to_owned() })
    }
}
