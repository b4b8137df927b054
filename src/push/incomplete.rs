//! An error for reports in which something failed.

use std::error::Error;
use std::fmt;

use crate::event::chain;

/// A report that was [required](super::Report::require_all) to be complete, and is not.
///
/// Its message says how many failed, and why the first one did.
pub struct Incomplete<R> {
    report: Box<R>,
    text: String,
}

impl<R> Incomplete<R> {
    pub(crate) fn new(report: R, text: String) -> Self {
        Self { report: Box::new(report), text }
    }

    /// Joins a message and its cause in one line.
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

/// Same output as `Display`, because `main` prints the `Debug` form of an error that it returns.
impl<R> fmt::Debug for Incomplete<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<R> Error for Incomplete<R> {}
