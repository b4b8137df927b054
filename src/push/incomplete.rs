//! A report as an error, for those who need all of it to have succeeded.

use std::error::Error;
use std::fmt;

use crate::event::chain;

/// Not everything succeeded: a report that was [required](super::Report::require_all) to be complete.
///
/// Its text says how many failed, and why the first one did.
pub struct Incomplete<R> {
    report: Box<R>,
    text: String,
}

impl<R> Incomplete<R> {
    pub(crate) fn new(report: R, text: String) -> Self {
        Self { report: Box::new(report), text }
    }

    /// A text and its cause in one line.
    pub(crate) fn text(text: String, cause: Option<&(dyn Error + 'static)>) -> String {
        match cause {
            Some(cause) => format!("{text}: {}", chain(cause)),
            None => text,
        }
    }

    /// Returns the report.
    pub fn report(&self) -> &R {
        &self.report
    }

    /// Takes the report out of the error.
    pub fn into_report(self) -> R {
        *self.report
    }
}

impl<R> fmt::Display for Incomplete<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The same text as `Display`: it is what a `main` prints that returns the error.
impl<R> fmt::Debug for Incomplete<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<R> Error for Incomplete<R> {}
