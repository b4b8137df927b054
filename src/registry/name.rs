//! What connections are found by.

use crate::event::{RequestContext, identifier, within};

identifier! {
    /// Keeps apart what has nothing to do with each other: 1 to 192 of `A-Z a-z 0-9 _ - . : /`.
    ///
    /// Connections see each other's groups within one namespace only. Each stage of each API is a namespace of its own,
    /// unless told otherwise; an application of several APIs, such as one in each region, has one for all of them.
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
    /// It is to name one person or one device: where many share a principal, the registry's writes about it queue up.
    Principal, "principal", "1 to 512 bytes without control characters",
    |text| is_text(text, 512)
}

fn is_text(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
}

impl Namespace {
    /// The namespace of the API and stage that an event came from.
    pub fn of(context: &RequestContext) -> Self {
        Self::of_stage(&context.api_id, &context.stage)
    }

    /// The namespace of a stage of an API: `<api id>/<stage>`.
    pub fn of_stage(api_id: &crate::event::ApiId, stage: &crate::event::Stage) -> Self {
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

/// Connections that are meant together: [everyone](Namespace::everyone), a [group](Namespace::group), or those of a
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
