//! Errors of a registry.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::Group;
use crate::event::chain;

type Source = Box<dyn Error + Send + Sync>;

/// The error of reading from or writing to a registry.
///
/// A connection that is not registered is not an error: see [`Joined`](super::Joined) and
/// [`Left`](super::Left).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The store throttled the request, and retries did not succeed in time.
    #[error("the registry was throttled")]
    Throttled {
        /// The response of the store.
        source: Source,
    },
    /// Other writers kept changing the same records until there was no time left to retry.
    #[error("other writers keep changing the same connection or the same principal of a group")]
    Contended,
    /// The store did not respond in time. The change may have been made.
    #[error("no response from the registry within {} ms", .after.as_millis())]
    TimedOut {
        /// The time after which the call gave up.
        after: Duration,
    },
    /// The store cannot be reached or failed, and retries did not succeed in time.
    #[error("the registry cannot be reached, or failed")]
    Unavailable {
        /// The last failure.
        source: Source,
    },
    /// The caller lacks a permission.
    #[error(
        "access to the registry is denied: give the role the permissions that the documentation of the registry lists"
    )]
    Forbidden {
        /// The response of the store.
        source: Source,
    },
    /// The table or its index does not exist.
    #[error("there is no table {table:?} in this account and region, or it lacks the index `connections`")]
    NoTable {
        /// The name of the table.
        table: String,
    },
    /// A record does not have the format that this registry writes.
    #[error("a record of the registry is not readable: {problem}")]
    Unreadable {
        /// The attribute, and the expected value.
        problem: String,
    },
    /// The call names more groups than one change can have.
    #[error("{count} groups are too many for one change: join or leave at most {} at once", Group::MAX_AT_ONCE)]
    TooManyGroups {
        /// The number of groups.
        count: usize,
    },
    /// The store rejected the request for another reason.
    #[error("the registry refused the request")]
    Refused {
        /// The response of the store.
        source: Source,
    },
}

impl RegistryError {
    /// Returns whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Contended | Self::TimedOut { .. } | Self::Unavailable { .. } => true,
            Self::Forbidden { .. }
            | Self::NoTable { .. }
            | Self::Unreadable { .. }
            | Self::TooManyGroups { .. }
            | Self::Refused { .. } => false,
        }
    }
}

/// Shows the messages of the error and its sources.
///
/// A `main` that returns the error prints this.
///
/// The sources' own `Debug` may show a whole response, including a connection's data.
impl fmt::Debug for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// Provides a stable error type for logs and alarms.
#[cfg(feature = "runtime")]
impl From<RegistryError> for lambda_runtime::Diagnostic {
    fn from(error: RegistryError) -> Self {
        Self { error_type: "lambda_websocket::RegistryError".to_owned(), error_message: error.to_string() }
    }
}
