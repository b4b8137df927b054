//! The key that identifies a job.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::ReplyAddress;

/// Identifies one job: an opaque string of 43 letters, digits, `-` and `_`.
///
/// Two deliveries of one message have the same key. Two messages have different keys, even if they
///
/// - have the same correlation id and come from different clients, or from one client before and
///   after it reconnects;
/// - are two jobs for one request;
/// - are the same job, sealed twice.
///
/// A key therefore detects redeliveries by a queue, not requests that a client repeats. It is a
/// hash of the API and stage (of the endpoint's URL if they are unknown), the connection, the
/// correlation id, and a random number added by [sealing](super::Job::seal). None of these can be
/// recovered from the key, so you may log it, store it, and pass it to another service as its
/// idempotency key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Returns the key as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ReplyAddress {
    /// Returns the key of the job that this address was opened from.
    ///
    /// The address of an event does not belong to a job yet: its key is that of the request.
    pub fn idempotency_key(&self) -> IdempotencyKey {
        #[derive(Serialize)]
        enum Audience<'a> {
            Api(&'a str, &'a str),
            Url(&'a str),
        }
        let audience = match self.endpoint.api() {
            Some((api_id, stage)) => Audience::Api(api_id.as_str(), stage.as_str()),
            None => Audience::Url(self.endpoint.as_str()),
        };
        // JSON delimits the parts unambiguously. Serializing strings cannot fail.
        let parts = (audience, &self.connection_id, self.correlation_id.as_json(), &self.job_id);
        let json = serde_json::to_vec(&parts).unwrap_or_default();
        IdempotencyKey(URL_SAFE_NO_PAD.encode(Sha256::digest(json)))
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({})", self.0)
    }
}
