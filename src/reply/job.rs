//! The message that goes into the queue, and the route's reply in the meantime.

use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sealed::Binding;
use super::{InvalidAddress, Keys, ReplyAddress, SealedAddress};
use crate::event::CorrelationId;
use crate::route::{Reply, Response};

/// A job and the address for its result, as the body of a queue message.
///
/// Its JSON is `{"replyTo": "…", "job": "…"}`, where `job` is the job's own JSON as a *string*. The
/// address is sealed for exactly these bytes, so nobody can send its client the result of another
/// or a modified job. A string also survives services that parse and re-serialize JSON, such as
/// EventBridge, which may reorder an object's members.
///
/// Alternatively, the address travels in the message attribute `replyTo`, and the body is
/// [`json`](Self::json) alone:
///
/// | service | message body, or `detail` of the event | attribute |
/// |---|---|---|
/// | SQS, SNS, EventBridge | the `Job` as JSON | – |
/// | SQS, SNS | [`json()`](Self::json) | `replyTo`: [`reply_to()`](Self::reply_to) |
///
/// # Examples
///
/// ```
/// use std::time::SystemTime;
/// use lambda_websocket::reply::{InvalidAddress, Job, Keys, ReplyAddress};
///
/// # fn seal(address: &ReplyAddress, keys: &Keys) -> Result<(), Box<dyn std::error::Error>> {
/// let job = Job::seal(&[1, 2, 3], address, keys)?;
/// assert_eq!(job.json(), "[1,2,3]");
///
/// let exchanged = Job::from_parts(job.reply_to().clone(), "[4]");
/// assert_eq!(exchanged.open(keys, SystemTime::now()), Err(InvalidAddress::OtherJob));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    #[serde(rename = "replyTo")]
    reply_to: SealedAddress,
    job: Json,
}

/// A JSON document as a string.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Json(String);

impl Job {
    /// Seals the address for this job, signing it with the current key.
    ///
    /// Sealing a job twice creates two jobs, each with its own [key](super::IdempotencyKey).
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`] if the job fails to serialize as JSON.
    pub fn seal<T: Serialize + ?Sized>(
        job: &T,
        address: &ReplyAddress,
        keys: &Keys,
    ) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_string(job)?;
        Ok(Self { reply_to: address.seal(Some(&json), keys), job: Json(json) })
    }

    /// Creates a job whose address is not signed.
    ///
    /// Use it in tests, and for queues that nobody else can write to; see
    /// [`ReplyAddress::unsigned`].
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`] if the job fails to serialize as JSON.
    pub fn unsigned<T: Serialize + ?Sized>(job: &T, address: &ReplyAddress) -> Result<Self, serde_json::Error> {
        Ok(Self::from_parts(address.unsigned(), serde_json::to_string(job)?))
    }

    /// Creates a job from an address and the job's JSON that were sent separately.
    ///
    /// [`open`](Self::open) checks that they belong together.
    pub fn from_parts(reply_to: SealedAddress, json: impl Into<String>) -> Self {
        Self { reply_to, job: Json(json.into()) }
    }

    /// Returns the sealed address.
    pub fn reply_to(&self) -> &SealedAddress {
        &self.reply_to
    }

    /// Returns the job as JSON, byte for byte as it was sealed.
    pub fn json(&self) -> &str {
        &self.job.0
    }

    /// Verifies and opens the address, as of `now`.
    ///
    /// # Errors
    ///
    /// - [`InvalidAddress::OtherJob`] if the address was sealed with another job, and
    ///   [`InvalidAddress::Unbound`] if it was sealed without one.
    /// - [`InvalidAddress::Expired`] if it has expired.
    /// - [`InvalidAddress::Malformed`] and [`InvalidAddress::Version`] if it cannot be parsed.
    /// - [`InvalidAddress::Unsigned`], [`InvalidAddress::UnknownKey`],
    ///   [`InvalidAddress::RetiredKey`], and [`InvalidAddress::Tampered`] if none of the keys has
    ///   signed it.
    pub fn open(&self, keys: &Keys, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
        self.reply_to.open(Binding::To(self.json()), keys, now)
    }

    /// Deserializes the job.
    ///
    /// [Open](Self::open) the address first: that verifies that the job is the one that was sealed.
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`] if the job's JSON does not deserialize as `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.json())
    }
}

/// Shows only the length, because a job may contain a client's data.
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Acknowledges a request that a route has put into a queue: `{"id":…,"accepted":true}`.
///
/// It does not complete the request: the worker's frame with the same id does. The id is the one in
/// the client's message, or API Gateway's request id if the message has none; the client learns
/// that id from this reply. The reply of a fast worker may arrive first, so a client that does not
/// choose its ids should keep replies whose ids it does not know yet.
///
/// # Examples
///
/// ```
/// use lambda_websocket::reply::{Accepted, Job, Keys};
/// use lambda_websocket::{Message, Result};
///
/// async fn enqueue(event: Message, keys: &Keys) -> Result<Accepted> {
///     let address = event.reply_address()?;
///     # let queue = |_: String| {};
///     queue(serde_json::to_string(&Job::seal("the job", &address, keys)?)?);
///     Ok(Accepted::for_address(&address))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Accepted {
    correlation_id: CorrelationId,
}

impl Accepted {
    /// Creates the reply to the request that this address belongs to.
    pub fn for_address(address: &ReplyAddress) -> Self {
        Self { correlation_id: address.correlation_id().clone() }
    }

    /// Returns the id that this reply and the worker's replies carry.
    pub fn correlation_id(&self) -> &CorrelationId {
        &self.correlation_id
    }
}

impl Reply for Accepted {
    fn into_response(self) -> crate::route::Result<Response> {
        Ok(Response::accepted(self.correlation_id))
    }
}
