//! Reads the id and the action of a message.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Member, ReplyFormat};
use crate::event::{Body, CorrelationId};

/// The members of a message that the router reads, apart from the route key.
#[derive(Debug, Default)]
pub(in crate::route) struct Request {
    pub(in crate::route) id: Option<CorrelationId>,
    /// The action, if it was requested and is a string.
    pub(in crate::route) action: Option<String>,
}

/// The member `id` of a message is not a valid correlation id.
///
/// The error text quotes nothing of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::route) struct InvalidRequestId {
    /// The name of the member, in quotes.
    member: String,
    found: &'static str,
}

impl fmt::Display for InvalidRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.member.trim_matches('"');
        write!(
            f,
            "`{name}` must be a string or a number of at most {} bytes of JSON, found {}",
            CorrelationId::MAX_BYTES,
            self.found
        )
    }
}

/// The maximum size of an action that an error repeats, in bytes. Route keys have the same limit.
const MAX_ACTION: usize = 128;

impl Request {
    /// Reads the members that the protocol defines, and no more of the message than needed.
    ///
    /// A message that is not a JSON object has none of them. Its route decides whether to accept
    /// it.
    pub(in crate::route) fn read(
        format: &ReplyFormat,
        body: &Body,
        wants_action: bool,
    ) -> (Self, Option<InvalidRequestId>) {
        let bytes = body.as_bytes();
        let first = format.ids.as_ref().and_then(|name| name.find(bytes));
        let wants_id = first.is_some();
        if !wants_id && !wants_action {
            return (Self::default(), None);
        }
        // A further occurrence may be a second `id` of the same object.
        let rest = first.and_then(|at| bytes.get(at.saturating_add(1)..)).unwrap_or_default();
        let again = format.ids.as_ref().is_some_and(|name| wants_id && name.find(rest).is_some());
        let mut members = Members::default();
        let visitor = Find { format, members: &mut members, wants_id, again, wants_action };
        // Ignore the error: it means that the message is not an object, or was not read to its end.
        let _ = match body {
            Body::Text(text) => serde_json::Deserializer::from_str(text).deserialize_map(visitor),
            Body::Bytes(bytes) => serde_json::Deserializer::from_slice(bytes).deserialize_map(visitor),
        };
        let (id, invalid) = match members.id() {
            Ok(id) => (id, None),
            Err(found) => (None, Some(InvalidRequestId { member: format.name(Member::Id).to_owned(), found })),
        };
        (Self { id, action: members.action() }, invalid)
    }
}

#[derive(Default)]
struct Members<'a> {
    id: Option<&'a RawValue>,
    is_twice: bool,
    action: Option<&'a RawValue>,
}

impl Members<'_> {
    /// Returns the id, or a description of an invalid one.
    fn id(&self) -> Result<Option<CorrelationId>, &'static str> {
        let Some(id) = self.id.map(RawValue::get) else { return Ok(None) };
        if self.is_twice {
            return Err("more than one");
        }
        match id.as_bytes().first() {
            Some(b'n') => Ok(None),
            Some(b't' | b'f') => Err("a boolean"),
            Some(b'[') => Err("an array"),
            Some(b'{') => Err("an object"),
            _ => CorrelationId::from_json(id).map(Some).map_err(|_| "a longer one"),
        }
    }

    fn action(&self) -> Option<String> {
        let action: String = serde_json::from_str(self.action?.get()).ok()?;
        (action.len() <= MAX_ACTION).then_some(action)
    }
}

struct Find<'f, 'a> {
    format: &'f ReplyFormat,
    members: &'f mut Members<'a>,
    wants_id: bool,
    /// Whether the message may have another id after the first.
    again: bool,
    wants_action: bool,
}

impl<'a> Visitor<'a> for Find<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key_seed(Name(self.format))? {
            let value: &'a RawValue = match name {
                Some(Member::Id) if self.wants_id => map.next_value()?,
                Some(Member::Action) if self.wants_action => map.next_value()?,
                _ => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                    continue;
                }
            };
            match name {
                Some(Member::Id) => self.members.is_twice |= self.members.id.replace(value).is_some(),
                _ => self.members.action = Some(value),
            }
            let has_id = !self.wants_id || (self.members.id.is_some() && !self.again);
            if has_id && (!self.wants_action || self.members.action.is_some()) {
                break;
            }
        }
        Ok(())
    }
}

/// Identifies a member by its name, without copying the name.
struct Name<'f>(&'f ReplyFormat);

impl<'a> DeserializeSeed<'a> for Name<'_> {
    type Value = Option<Member>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Option<Member>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<Member>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Member>, E> {
        let is = |member| self.0.name(member).trim_matches('"') == text;
        Ok([Member::Id, Member::Action].into_iter().find(|member| is(*member)))
    }
}
