//! Calls of `@connections` and their responses.

use bytes::Bytes;

use super::super::rules::Refusal;

/// The operation of a call of `@connections`.
pub(in super::super) enum Request {
    Post(Bytes),
    Get,
    Delete,
}

/// The HTTP response to a call of `@connections`.
pub(in super::super) struct Answer {
    pub(in super::super) status: u16,
    pub(in super::super) error_type: Option<&'static str>,
    pub(in super::super) body: String,
}

impl Answer {
    pub(in super::super) fn of(answer: Result<(u16, String), Refusal>) -> Self {
        match answer {
            Ok((status, body)) => Self { status, error_type: None, body },
            Err(Refusal { status, error_type, body }) => Self { status, error_type, body },
        }
    }
}
