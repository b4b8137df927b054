//! Namespaces, groups, principals, and audiences.

use super::RegistryError;
use crate::event::{RequestContext, identifier, within};

identifier! {
    /// Isolates the connections of one application from those of others.
    ///
    /// A namespace has 1 to 192 of `A-Z a-z 0-9 _ - . : /`.
    ///
    /// Groups and principals exist within one namespace. Default: each stage of each API has its
    /// own namespace. An application with several APIs, such as one in each region, uses one
    /// namespace for all of them.
    Namespace, "namespace", "1 to 192 letters, digits, `_`, `-`, `.`, `:` or `/`",
    |text| within(text, 192, |byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte))
}

identifier! {
    /// The name of a group of connections, such as a room.
    ///
    /// A name has 1 to 256 bytes without control characters.
    Group, "group", "1 to 256 bytes without control characters",
    |text| is_text(text, 256)
}

identifier! {
    /// Identifies the owner of connections: the authorizer's `principalId`.
    ///
    /// A principal has 1 to 512 bytes without control characters.
    ///
    /// A principal is one person or one device. If many share one, the registry's writes about it
    /// contend with each other.
    Principal, "principal", "1 to 512 bytes without control characters",
    |text| is_text(text, 512)
}

fn is_text(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
}

impl Group {
    /// The maximum number of groups that one call joins or leaves.
    ///
    /// A DynamoDB transaction has at most 100 items, one of which is the connection.
    pub const MAX_AT_ONCE: usize = 99;
}

/// Returns each group once, in the order of the call.
pub(super) fn unique(groups: &[Group]) -> Result<Vec<Group>, RegistryError> {
    let mut unique: Vec<Group> = Vec::with_capacity(groups.len().min(Group::MAX_AT_ONCE));
    for group in groups {
        if !unique.contains(group) {
            unique.push(group.clone());
        }
        if unique.len() > Group::MAX_AT_ONCE {
            return Err(RegistryError::TooManyGroups { count: groups.len() });
        }
    }
    Ok(unique)
}

impl Namespace {
    /// Returns the namespace of the API and stage of an event.
    pub fn from_context(context: &RequestContext) -> Self {
        Self::for_stage(&context.api_id, &context.stage)
    }

    /// Returns the namespace of a stage of an API: `<api id>/<stage>`.
    pub fn for_stage(api_id: &crate::event::ApiId, stage: &crate::event::Stage) -> Self {
        // An API id has at most 63 characters and a stage 128, all of them legal here.
        Self(format!("{api_id}/{stage}").into())
    }

    /// Returns the audience of all connections in the namespace.
    pub fn everyone(&self) -> Audience {
        Audience { namespace: self.clone(), who: AudienceKind::Everyone }
    }

    /// Returns the audience of one of its groups.
    pub fn group(&self, group: &Group) -> Audience {
        Audience { namespace: self.clone(), who: AudienceKind::Group(group.clone()) }
    }

    /// Returns the audience of one principal.
    pub fn principal(&self, principal: &Principal) -> Audience {
        Audience { namespace: self.clone(), who: AudienceKind::Principal(principal.clone()) }
    }
}

/// The recipients of a message within one namespace.
///
/// An audience is [everyone](Namespace::everyone), a [group](Namespace::group), or a
/// [principal](Namespace::principal).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Audience {
    namespace: Namespace,
    who: AudienceKind,
}

/// The kind of an [`Audience`] within its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AudienceKind {
    /// All connections.
    Everyone,
    /// The connections in a group.
    Group(Group),
    /// The connections of a principal.
    Principal(Principal),
}

impl Audience {
    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the kind of the audience.
    pub fn who(&self) -> &AudienceKind {
        &self.who
    }
}
