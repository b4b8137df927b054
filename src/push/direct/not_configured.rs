//! The error of creating a transport without the AWS SDK.

use std::fmt;

use crate::push::InvalidEndpoint;

/// A transport without the AWS SDK could not be configured.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum NotConfigured {
    /// The endpoint is missing or invalid, or has no region.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// TLS could not be set up.
    #[error("failed to set up TLS")]
    Tls {
        /// The error of rustls.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy's URL is invalid. The error leaves it out, since it may contain a password.
    #[error("the proxy URL is not valid: expected {expected}")]
    Proxy {
        /// The expected form of the URL.
        expected: &'static str,
    },
    /// The environment has no credentials.
    #[error(
        "the environment has no credentials: {missing} is not set; Lambda sets it, and elsewhere pass a credentials \
         provider to `Direct::new`"
    )]
    Credentials {
        /// The variable that is not set.
        missing: &'static str,
    },
}

/// Same output as `Display`, because `main` prints the `Debug` form of an error that it returns.
impl fmt::Debug for NotConfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
