//! The messages that a client gets for a request: results, progress and errors.
//!
//! The only file that knows the names of their members and the codes of errors.

use serde::Serialize;

use crate::event::CorrelationId;

/// One message to the client, with the id of its request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Frame<'a, T: ?Sized> {
    correlation_id: &'a CorrelationId,
    #[serde(flatten)]
    content: Content<'a, T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Content<'a, T: ?Sized> {
    Result(&'a T),
    Progress(&'a T),
    Error { code: ErrorCode, message: &'a str },
}

/// Why a request has no result, in a form that programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ErrorCode {
    /// The result is larger than a push can be.
    TooLarge,
    /// The service failed.
    Internal,
}

impl<'a, T: Serialize + ?Sized> Frame<'a, T> {
    /// `{"correlationId": …, "result": …}`
    pub(super) fn result(correlation_id: &'a CorrelationId, result: &'a T) -> Self {
        Self { correlation_id, content: Content::Result(result) }
    }

    /// `{"correlationId": …, "progress": …}`
    pub(super) fn progress(correlation_id: &'a CorrelationId, progress: &'a T) -> Self {
        Self { correlation_id, content: Content::Progress(progress) }
    }
}

impl<'a> Frame<'a, ()> {
    /// `{"correlationId": …, "error": {"code": …, "message": …}}`
    pub(super) fn error(correlation_id: &'a CorrelationId, code: ErrorCode, message: &'a str) -> Self {
        Self { correlation_id, content: Content::Error { code, message } }
    }
}
