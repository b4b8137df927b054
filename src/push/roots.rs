//! Root certificates that a transport trusts beside the usual ones.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// A certificate cannot be trusted, since it is none.
#[derive(Debug, thiserror::Error)]
#[error("this is not a certificate in DER form")]
pub struct UntrustedRoot {
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl UntrustedRoot {
    pub(super) fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into() }
    }
}

/// Adds a certificate in DER form.
pub(super) fn add(roots: &mut RootCertStore, der: Vec<u8>) -> Result<(), UntrustedRoot> {
    roots.add(CertificateDer::from(der)).map_err(UntrustedRoot::new)
}
