//! What connections are found by.

use super::RegistryError;
use crate::event::{RequestContext, identifier, within};

identifier! {
    /// Separates the connections of one application from those of others: 1 to 192 of `A-Z a-z 0-9 _ - . : /`.
    ///
    /// Groups and principals exist within one namespace. Default: each stage of each API is a namespace of its own. An
    /// application of several APIs, such as one in each region, has one namespace for all of them.
    Namespace, "namespace", "1 to 192 letters, digits, `_`, `-`, `.`, `:` or `/`",
    |text| within(text, 192, |byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte))
}

identifier! {
    /// Names a group of connections, such as a room: 1 to 256 bytes without control characters.
    Group, "group", "1 to 256 bytes without control characters",
    |text| is_text(text, 256)
}

identifier! {
    /// Names whose connection it is, as the authorizer does: 1 to 512 bytes without control characters.
    ///
    /// A principal is one person or one device. If many share one, the registry's writes about it wait for each other.
    Principal, "principal", "1 to 512 bytes without control characters",
    |text| is_text(text, 512)
}

fn is_text(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
}

impl Group {
    /// The maximum number of groups that one call joins or leaves.
    ///
    /// A transaction of DynamoDB has at most 100 items, of which the connection is one.
    pub const MAX_AT_ONCE: usize = 99;
}

/// Each group once, in the order of the call.
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
    /// The namespace of the API and stage that an event came from.
    pub fn from_context(context: &RequestContext) -> Self {
        Self::for_stage(&context.api_id, &context.stage)
    }

    /// The namespace of a stage of an API: `<api id>/<stage>`.
    pub fn for_stage(api_id: &crate::event::ApiId, stage: &crate::event::Stage) -> Self {
        // An API id has at most 63 characters and a stage 128, all of them legal here.
        Self(format!("{api_id}/{stage}").into())
    }

    /// All of its connections.
    pub fn everyone(&self) -> Audience {
        Audience { namespace: self.clone(), who: Who::Everyone }
    }

    /// The connections of one of its groups.
    pub fn group(&self, group: &Group) -> Audience {
        Audience { namespace: self.clone(), who: Who::Group(group.clone()) }
    }

    /// The connections of one principal.
    pub fn principal(&self, principal: &Principal) -> Audience {
        Audience { namespace: self.clone(), who: Who::Principal(principal.clone()) }
    }
}

/// The recipients of a message: [everyone](Namespace::everyone), a [group](Namespace::group), or those of a
/// [principal](Namespace::principal), of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Audience {
    namespace: Namespace,
    who: Who,
}

/// Who in its namespace an [`Audience`] is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Who {
    /// Every connection.
    Everyone,
    /// Those that have joined a group.
    Group(Group),
    /// Those of a principal.
    Principal(Principal),
}

impl Audience {
    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Who in it.
    pub fn who(&self) -> &Who {
        &self.who
    }
}
