//! What goes into the queue, and what the client gets meanwhile.

use serde::{Deserialize, Serialize};

use super::{ReplyAddress, SealedAddress};
use crate::event::CorrelationId;

/// A job and where its result goes: the body of a message in the queue.
///
/// In JSON `{"replyTo": "…", "job": …}`. Where the address travels as the attribute `replyTo` of the message, the body is the
/// job alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job<T> {
    /// Where the result goes.
    #[serde(rename = "replyTo")]
    pub reply_to: SealedAddress,
    /// What is to be done.
    pub job: T,
}

impl<T> Job<T> {
    /// A job whose result goes there.
    pub fn new(reply_to: SealedAddress, job: T) -> Self {
        Self { reply_to, job }
    }
}

/// Tells the client that its question has been taken, and how it will know the answer: `{"correlationId": "…"}`.
///
/// As the reply of a two-way route it is `Json<Acknowledged>`; on a one-way route it is pushed. The answer of a quick worker may
/// overtake it, so a client either keeps answers that it does not know yet, or numbers its questions itself, with
/// [`ReplyAddress::with_correlation_id`].
///
/// # Examples
///
/// ```
/// use lambda_websocket::reply::{Acknowledged, Keys};
/// use lambda_websocket::{Json, Message, Result};
///
/// async fn enqueue(event: Message, keys: &Keys) -> Result<Json<Acknowledged>> {
///     let address = event.reply_address()?;
///     # let queue = |_: &str| {};
///     queue(address.seal(keys).as_str());
///     Ok(Json(Acknowledged::of(&address)))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledged {
    /// What the answer will carry.
    pub correlation_id: CorrelationId,
}

impl Acknowledged {
    /// The acknowledgement of the question that this address belongs to.
    pub fn of(address: &ReplyAddress) -> Self {
        Self { correlation_id: address.correlation_id().clone() }
    }
}
