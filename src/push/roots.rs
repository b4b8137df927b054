//! Root certificates that a transport trusts in addition to the default ones.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// The bytes are not a DER-encoded certificate.
#[derive(thiserror::Error)]
#[error("the bytes are not a DER-encoded certificate")]
pub struct UntrustedRoot {
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Prints the error and its source, because `main` prints the `Debug` form of an error that it
/// returns.
impl std::fmt::Debug for UntrustedRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::event::chain(self))
    }
}

impl UntrustedRoot {
    pub(super) fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into() }
    }
}

/// Adds a DER-encoded certificate.
pub(super) fn add(roots: &mut RootCertStore, der: Vec<u8>) -> Result<(), UntrustedRoot> {
    roots.add(CertificateDer::from(der)).map_err(UntrustedRoot::new)
}
