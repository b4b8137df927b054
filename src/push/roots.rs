//! Root certificates that a transport trusts beside the usual ones.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// A certificate cannot be trusted, since it is none.
#[derive(thiserror::Error)]
#[error("this is not a certificate in DER form")]
pub struct UntrustedRoot {
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The texts of the error and its source: it is what a `main` prints that returns the error.
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

/// Adds a certificate in DER form.
pub(super) fn add(roots: &mut RootCertStore, der: Vec<u8>) -> Result<(), UntrustedRoot> {
    roots.add(CertificateDer::from(der)).map_err(UntrustedRoot::new)
}
