//! The reasons for which JSON is not a valid event.

/// The JSON is not an event that this function can handle.
///
/// The error text never quotes a header, a query parameter, or a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// The input is not JSON.
    #[error("the event is not JSON: line {line}, column {column}")]
    NotJson {
        /// The line, counted from 1.
        line: usize,
        /// The column in bytes, counted from 1.
        column: usize,
    },
    /// The JSON is not an object, or a member has the wrong type.
    #[error("the event does not have the shape that API Gateway sends: line {line}, column {column}")]
    Shape {
        /// The line, counted from 1.
        line: usize,
        /// The column in bytes, counted from 1.
        column: usize,
    },
    /// The JSON is an event of another kind, such as that of a REST API.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// The kind of event that the function handles.
        expected: &'static str,
        /// The kind of event found.
        found: &'static str,
    },
    /// A required member is absent or `null`.
    #[error("the event lacks `{member}`")]
    Missing {
        /// The member's path.
        member: &'static str,
    },
    /// The value of a member is not valid.
    #[error("the event's `{member}` is not valid: {reason}")]
    Member {
        /// The member's path.
        member: String,
        /// What was expected instead.
        reason: String,
    },
}
