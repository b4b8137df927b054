//! What goes into the queue, and the route's reply meanwhile.

use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sealed::Binding;
use super::{InvalidAddress, Keys, ReplyAddress, SealedAddress};
use crate::event::CorrelationId;
use crate::route::{Reply, Response};

/// A job and where its result goes: the body of a message in a queue.
///
/// In JSON it is `{"replyTo": "…", "job": "…"}`, where `job` is the job's own JSON as a *string*. The address is sealed for exactly
/// these bytes: nobody can send its client the result of another job, or of a changed one. A string survives EventBridge and
/// other services that read and write JSON anew, which may reorder an object's members.
///
/// Instead of in the body the address may travel in the message attribute `replyTo`, where the body is [`json`](Self::json) alone:
///
/// | carried by | body of the message, or `detail` of the event | attribute |
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

/// JSON as text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Json(String);

impl Job {
    /// Seals an address for this job, signed with the current key.
    ///
    /// Sealed twice, a job becomes two jobs: each has its own [key](super::IdempotencyKey).
    ///
    /// # Errors
    ///
    /// When the job fails to serialize as JSON.
    pub fn seal<T: Serialize + ?Sized>(
        job: &T,
        address: &ReplyAddress,
        keys: &Keys,
    ) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_string(job)?;
        Ok(Self { reply_to: address.seal(Some(&json), keys), job: Json(json) })
    }

    /// Creates a job whose address nobody has signed.
    ///
    /// For tests, and for queues that nobody else can write to; see [`ReplyAddress::unsigned`].
    ///
    /// # Errors
    ///
    /// When the job fails to serialize as JSON.
    pub fn unsigned<T: Serialize + ?Sized>(job: &T, address: &ReplyAddress) -> Result<Self, serde_json::Error> {
        Ok(Self::from_parts(address.unsigned(), serde_json::to_string(job)?))
    }

    /// Joins an address and a job's JSON, which have traveled apart.
    ///
    /// [`open`](Self::open) tells whether they belong together.
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

    /// Opens the address, at this time.
    ///
    /// # Errors
    ///
    /// As of [`SealedAddress::open_for`].
    pub fn open(&self, keys: &Keys, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
        self.reply_to.open(Binding::To(self.json()), keys, now)
    }

    /// Deserializes the job. [Open](Self::open) it first: only then it is the one that was sealed.
    ///
    /// # Errors
    ///
    /// When the job's JSON does not fit `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.json())
    }
}

/// Shows the length: a job is the client's own affair.
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The reply of a route that has put a request into a queue: `{"id":…,"accepted":true}`.
///
/// It does not end the request: that does the worker's frame with the same id. The id is that of the client's message, or
/// else the gateway's request id, which the client learns here. The reply of a quick worker may overtake it, so a client that
/// leaves the ids to the gateway keeps replies that it does not know yet.
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

    /// Returns the id that the reply, and those of the worker, carry.
    pub fn correlation_id(&self) -> &CorrelationId {
        &self.correlation_id
    }
}

impl Reply for Accepted {
    fn into_response(self) -> crate::route::Result<Response> {
        Ok(Response::accepted(self.correlation_id))
    }
}
