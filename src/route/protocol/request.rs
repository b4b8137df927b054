//! What a message says about itself: its id, and what it asks for.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Member, ReplyFormat};
use crate::event::{Body, CorrelationId};

/// What the router knows of a message beside its route.
#[derive(Debug, Default)]
pub(in crate::route) struct Request {
    pub(in crate::route) id: Option<CorrelationId>,
    /// Where it was asked for, and is a text.
    pub(in crate::route) action: Option<String>,
}

/// The member `id` of a message is not an id. It quotes nothing of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::route) struct InvalidRequestId {
    /// The member's name in quotes.
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

/// An action that an error repeats has at most so many bytes, as a route key has.
const MAX_ACTION: usize = 128;

impl Request {
    /// Reads the members that the protocol knows, from no more of the message than need be.
    ///
    /// A message that is not a JSON object has none of them. Whether it may be that is up to its route.
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
        // Another place may be the second `id` of the same object.
        let rest = first.and_then(|at| bytes.get(at.saturating_add(1)..)).unwrap_or_default();
        let again = format.ids.as_ref().is_some_and(|name| wants_id && name.find(rest).is_some());
        let mut members = Members::default();
        let visitor = Find { format, members: &mut members, wants_id, again, wants_action };
        // The error of a message that is not an object, or was not read to its end, says nothing.
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
    /// The id, or what it is instead.
    fn id(&self) -> Result<Option<CorrelationId>, &'static str> {
        let Some(id) = self.id.map(RawValue::get) else { return Ok(None) };
        if self.is_twice {
            return Err("two of them");
        }
        match id.as_bytes().first() {
            Some(b'n') => Ok(None),
            Some(b't' | b'f') => Err("a boolean"),
            Some(b'[') => Err("an array"),
            Some(b'{') => Err("an object"),
            _ => CorrelationId::from_json(id).map(Some).map_err(|_| "more than that"),
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
    /// Whether there may be an id after the first.
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

/// Tells which member it is, without a copy of its name.
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
