//! Identity sources: what a request must carry before the authorizer is asked.

use std::str::FromStr;

use super::event::Handshake;

/// Something that a client's request must carry, or it is refused with 401 without asking the authorizer.
///
/// `route.request.header.<name>`, `route.request.querystring.<name>`, `stageVariables.<name>` or `context.<name>`.
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

/// The text is not an identity source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an identity source of a WebSocket API: expected `route.request.header.<name>`, \
     `route.request.querystring.<name>`, `stageVariables.<name>` or `context.<name>`"
)]
pub struct InvalidIdentitySource {
    text: String,
}

impl IdentitySource {
    /// Whether the request carries it, and not empty.
    pub(super) fn is_in(&self, handshake: &Handshake, variables: &[(String, String)], context: &ContextNames) -> bool {
        let mut found = match self.place {
            Place::Header => find(&handshake.headers, |name| name.eq_ignore_ascii_case(&self.name)),
            Place::Query => find(&handshake.query, |name| name == self.name),
            Place::StageVariable => find(variables, |name| name == self.name),
            Place::Context => find(context, |name| name == self.name),
        };
        found.any(|value| !value.is_empty())
    }
}

/// The members of `requestContext` that can be an identity source, by their dotted names.
pub(super) type ContextNames = [(String, String)];

fn find<'a>(
    pairs: &'a [(String, String)],
    is_it: impl Fn(&str) -> bool + 'a,
) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    Box::new(pairs.iter().filter(move |(name, _)| is_it(name)).map(|(_, value)| value.as_str()))
}

impl FromStr for IdentitySource {
    type Err = InvalidIdentitySource;

    fn from_str(text: &str) -> Result<Self, InvalidIdentitySource> {
        const PLACES: [(&str, Place); 4] = [
            ("route.request.header.", Place::Header),
            ("route.request.querystring.", Place::Query),
            ("stageVariables.", Place::StageVariable),
            ("context.", Place::Context),
        ];
        PLACES
            .into_iter()
            .find_map(|(prefix, place)| Some((place, text.strip_prefix(prefix)?)))
            .filter(|(_, name)| !name.is_empty())
            .map(|(place, name)| Self { place, name: name.to_owned() })
            .ok_or_else(|| InvalidIdentitySource { text: text.to_owned() })
    }
}
