//! Formats an error and its sources as one line for the log.

use std::error::Error;

use super::InvalidId;

/// Returns the texts of an error and its sources as one line.
///
/// For an [`InvalidId`] among them, the quoted value is left out, since it may be a client's.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    texts(error).join(": ")
}

/// Returns the texts of an error and its sources.
///
/// Consecutive duplicates are removed, since some sources repeat the text of their error.
pub(crate) fn texts(error: &(dyn Error + 'static)) -> Vec<String> {
    let errors = || std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    let mut texts: Vec<String> = errors().map(ToString::to_string).collect();
    for invalid in errors().filter_map(|error| error.downcast_ref::<InvalidId>()) {
        for text in &mut texts {
            *text = text.replace(&invalid.to_string(), &invalid.unquoted());
        }
    }
    texts.dedup();
    texts
}
