//! What is missing for a transport without the SDK.

use std::fmt;

use crate::push::InvalidEndpoint;

/// The environment lacks what signed requests need.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum NotConfigured {
    /// There is no usable endpoint, or no region.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy's URL cannot be used. The error leaves it out, since it may have a password.
    #[error("this is not the URL of a proxy: expected {expected}")]
    Proxy {
        /// What was expected.
        expected: &'static str,
    },
    /// There are no credentials.
    #[error(
        "the environment has no credentials: {missing} is not set; Lambda sets it, and elsewhere a credentials provider can \
         be given to `Direct::new`"
    )]
    Credentials {
        /// The variable that is not set.
        missing: &'static str,
    },
}

/// The same text as `Display`: it is what a `main` prints that returns the error.
impl fmt::Debug for NotConfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
