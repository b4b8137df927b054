//! Tickets: short-lived tokens that open one connection.

#[cfg(feature = "dynamodb")]
mod dynamodb;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use serde::{Deserialize, Serialize};

#[cfg(feature = "dynamodb")]
pub use self::dynamodb::DynamoDb;
pub use self::store::{InMemory, Redeemer, TicketStore};
use super::{Authorization, Context, Denied, InvalidContext, Request};
use crate::clock;
use crate::event::{ApiId, Stage};
use crate::keys::{Keys, Known};

/// The prefix of a ticket. An address of `reply` never has it, so neither can be used as the other.
const VERSION: &str = "t1";
const LIFETIME: Duration = Duration::from_secs(60);
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer tickets are rejected, since an authorizer's response is limited to 8 KB.
const MAX_LENGTH: usize = 16 * 1024;

/// Issues and redeems tickets, each of which lets its principal connect once.
///
/// Your login is an ordinary HTTP endpoint. It [issues](Self::issue) a ticket to an authenticated
/// user, for example one with a session cookie. The client connects with the ticket at once, and
/// the authorizer [redeems](Self::redeem) it. The ticket travels in the WebSocket's URL or
/// subprotocol and may end up in a log, but it is worthless once it has been used, and expires
/// after a minute in any case.
///
/// A ticket is signed with HMAC-SHA-256. It belongs to one stage of one API, and expires after 60
/// seconds by default. With a small context, it has 200 to 300 characters: letters, digits, `.`,
/// `-`, and `_`. It can therefore be a subprotocol. Its content is not secret.
///
/// Clones share the store.
///
/// # Examples
///
/// ```
/// use lambda_websocket::authorizer::ticket::{InMemory, Tickets};
/// use lambda_websocket::authorizer::{Authorization, Denied, Request};
/// use lambda_websocket::event::{ApiId, Stage};
/// use lambda_websocket::Keys;
///
/// # fn start() -> Result<(), Box<dyn std::error::Error>> {
/// # let secret = [7; 32];
/// // In the login and in the authorizer; on AWS with a `DynamoDb` store.
/// let (api_id, stage) = (ApiId::new("a1b2c3d4e5")?, Stage::new("prod")?);
/// let tickets = Tickets::new(Keys::new("2026", secret)?, api_id, stage, InMemory::new());
///
/// // The login answers with this.
/// let ticket = tickets.issue("alice", &serde_json::json!({"org": 7}))?;
/// assert!(ticket.as_str().len() < 300);
///
/// // The authorizer.
/// async fn authorize(request: Request, tickets: Tickets) -> Result<Authorization, Denied> {
///     tickets.redeem(&request, request.token("Auth")?).await
/// }
/// # let _ = |request| authorize(request, tickets);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tickets {
    keys: Keys,
    api_id: ApiId,
    stage: Stage,
    lifetime: Duration,
    store: Arc<dyn TicketStore>,
}

/// A signed string that opens one connection.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ticket(String);

/// An error that occurs when issuing a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotIssued {
    /// The principal id is empty.
    #[error("the principal id is empty")]
    NoPrincipal,
    /// The context is not a valid context of an authorizer.
    #[error(transparent)]
    Context(#[from] InvalidContext),
    /// The ticket would be longer than 16 KB, which no authorizer accepts.
    #[error("the ticket has {bytes} bytes, more than the maximum of 16384: keep the context small")]
    TooLarge {
        /// The length of the ticket.
        bytes: usize,
    },
}

/// The reason that a ticket is not valid.
///
/// [`Tickets::redeem`] logs the reason and returns [`Denied::Forbidden`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTicket {
    /// The string does not have the form of a ticket.
    #[error("this is not a ticket")]
    Malformed,
    /// The ticket is signed with an unknown or retired key, or was modified.
    #[error("the signature of the ticket is wrong, or its key is not known")]
    Signature,
    /// The ticket is for another API or stage.
    #[error("the ticket is for another API or stage")]
    OtherStage,
    /// The ticket has expired.
    #[error("the ticket has expired")]
    Expired,
    /// The ticket has already opened a connection.
    #[error("the ticket has been used before")]
    Used,
}

/// The content of a ticket. Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Content {
    /// The ticket's id: 32 random hexadecimal digits.
    id: String,
    api: ApiId,
    stage: Stage,
    until: u64,
    principal: String,
    #[serde(default, skip_serializing_if = "Context::is_empty")]
    context: Context,
}

impl Tickets {
    /// Creates a `Tickets` for this stage of this API.
    ///
    /// New tickets are signed with the current key.
    pub fn new(keys: Keys, api_id: ApiId, stage: Stage, store: impl TicketStore + 'static) -> Self {
        Self { keys, api_id, stage, lifetime: LIFETIME, store: Arc::new(store) }
    }

    /// Sets how long tickets are valid, at most one day. Default: 60 seconds.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime.min(MAX_LIFETIME);
        self
    }

    /// Issues a ticket to a principal, with the context for its connection.
    ///
    /// # Errors
    ///
    /// - [`NotIssued::NoPrincipal`] if the principal id is empty.
    /// - [`NotIssued::Context`] if a value cannot be in the context of an authorizer.
    /// - [`NotIssued::TooLarge`] if the ticket would be longer than 16 KB.
    pub fn issue(
        &self,
        principal_id: impl Into<String>,
        context: &(impl Serialize + ?Sized),
    ) -> Result<Ticket, NotIssued> {
        let principal = principal_id.into();
        if principal.is_empty() {
            return Err(NotIssued::NoPrincipal);
        }
        let until = clock::now().checked_add(self.lifetime).and_then(|until| until.duration_since(UNIX_EPOCH).ok());
        let content = Content {
            // Ids need to be unique, not unpredictable: the signature protects the ticket.
            id: format!("{:032x}", fastrand::u128(..)),
            api: self.api_id.clone(),
            stage: self.stage.clone(),
            until: until.unwrap_or(Duration::MAX).as_secs(),
            principal,
            context: Context::new(context)?,
        };
        let json =
            serde_json::to_vec(&content).map_err(|error| InvalidContext::NotJson { reason: error.to_string() })?;
        let signed = format!("{VERSION}.{}.{}", self.keys.current(), URL_SAFE_NO_PAD.encode(json));
        let code = URL_SAFE_NO_PAD.encode(self.keys.code(&signed));
        let ticket = format!("{signed}.{code}");
        if ticket.len() > MAX_LENGTH {
            return Err(NotIssued::TooLarge { bytes: ticket.len() });
        }
        Ok(Ticket(ticket))
    }

    /// Redeems a ticket, and allows its principal to connect once.
    ///
    /// If API Gateway retries a handshake, the retry can redeem the same ticket again. If the
    /// function is killed in the meantime, the ticket is used up and the client needs a new one.
    ///
    /// # Errors
    ///
    /// - [`Denied::Forbidden`] if the ticket is [not valid](InvalidTicket).
    /// - [`Denied::Failed`] if the store fails.
    pub async fn redeem(&self, request: &Request, ticket: &str) -> Result<Authorization, Denied> {
        let context = request.request_context();
        let refuse = |invalid: InvalidTicket| {
            tracing::info!(reason = %invalid, "a ticket was refused");
            Denied::Forbidden
        };
        let content = self.open(ticket, &context.api_id, &context.stage, clock::now()).map_err(refuse)?;
        let redeemer = Redeemer::new(&context.request_id, &context.connection_id);
        // Kept for a minute longer, in case clocks differ.
        let keep_until = UNIX_EPOCH.checked_add(Duration::from_secs(content.until.saturating_add(60)));
        let keep_until = keep_until.unwrap_or_else(clock::now);
        if !self.store.redeem(&content.id, &redeemer, keep_until).await.map_err(Denied::Failed)? {
            return Err(refuse(InvalidTicket::Used));
        }
        Authorization::allow(content.principal).with_context(&content.context)
    }

    fn open(&self, ticket: &str, api_id: &ApiId, stage: &Stage, now: SystemTime) -> Result<Content, InvalidTicket> {
        if ticket.len() > MAX_LENGTH {
            return Err(InvalidTicket::Malformed);
        }
        let (signed, code) = ticket.rsplit_once('.').ok_or(InvalidTicket::Malformed)?;
        let mut parts = signed.split('.');
        let (Some(VERSION), Some(key_id), Some(content), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidTicket::Malformed);
        };
        let code = URL_SAFE_NO_PAD.decode(code).map_err(|_| InvalidTicket::Malformed)?;
        let Known::Key(key) = self.keys.find(key_id) else { return Err(InvalidTicket::Signature) };
        key.clone().chain_update(signed).verify_slice(&code).map_err(|_| InvalidTicket::Signature)?;
        let content = URL_SAFE_NO_PAD.decode(content).map_err(|_| InvalidTicket::Malformed)?;
        let content: Content = serde_json::from_slice(&content).map_err(|_| InvalidTicket::Malformed)?;
        if (&content.api, &content.stage) != (api_id, stage) || (&self.api_id, &self.stage) != (api_id, stage) {
            return Err(InvalidTicket::OtherStage);
        }
        if now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() >= content.until {
            return Err(InvalidTicket::Expired);
        }
        Ok(content)
    }
}

impl Ticket {
    /// Returns the string that the client connects with.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Hides the ticket, since it lets its holder connect.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} bytes)", self.0.len())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("keys", &self.keys)
            .field("api_id", &self.api_id)
            .field("stage", &self.stage)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
