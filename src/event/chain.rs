//! An error as one line of a log.

use std::error::Error;

use super::InvalidId;

/// The text of an error and of its sources, as one line.
///
/// An [`InvalidId`] among them quotes nothing here, though its own text does: what was found may be what a client sent.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    texts(error).join(": ")
}

/// The texts of an error and of its sources. A source that says the same as its error is left out.
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
