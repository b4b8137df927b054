//! The REQUEST authorizer of a WebSocket API: who may connect, and what the routes learn about them.
//!
//! A function takes a [`Request`] and returns an [`Authorization`], or why it is [`Denied`]. API Gateway asks once, when a
//! client connects, and keeps the decision for the life of the connection.
//!
//! | the function returns | the client gets | because the function answers |
//! |---|---|---|
//! | [`Authorization::allow`] | the connection, if `$connect` agrees | a policy that allows the route |
//! | [`Authorization::deny`], [`Denied::Forbidden`] | 403 | a policy that denies the route |
//! | [`Denied::Unauthorized`] | 401 | an error with exactly the message `Unauthorized` |
//! | any other error, or an answer that API Gateway would refuse | 500 | an error |
//!
//! See [Lambda REQUEST authorizers of WebSocket APIs](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html).
//!
//! # Examples
//!
//! ```
//! use lambda_websocket::authorizer::{Authorization, Denied, Request};
//!
//! async fn authorize(request: Request) -> Result<Authorization, Denied> {
//!     match request.query("Auth").ok_or(Denied::Unauthorized)? {
//!         "open sesame" => Ok(Authorization::allow("ali")),
//!         _ => Err(Denied::Forbidden),
//!     }
//! }
//! ```

mod arn;
mod as_json;
#[cfg(feature = "aws_lambda_events")]
mod aws_lambda_events;
mod condition;
mod context;
mod origin;
mod policy;
mod request;
mod response;
#[cfg(feature = "runtime")]
mod service;
#[cfg(feature = "tickets")]
pub mod ticket;
mod token;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Instrument as _;

pub use self::arn::{InvalidArn, InvalidResource, Resource, RouteArn};
pub use self::as_json::AsJson;
#[cfg(feature = "aws_lambda_events")]
pub use self::aws_lambda_events::{InvalidPolicy, InvalidResponse};
pub use self::condition::ConditionKeys;
pub use self::context::{Context, InvalidContext};
pub use self::origin::{AllowedOrigins, InvalidOrigin};
pub use self::policy::{Decision, Effect, Policy, Statement};
pub use self::request::Request;
pub use self::response::{InvalidAuthorization, Response};
#[cfg(feature = "runtime")]
pub use self::service::run;
use crate::event::wire::AUTHORIZATION_EXPIRES_AT;
use crate::event::{chain, texts};
use crate::metrics;

/// Whether a principal may connect, and what the routes learn about it.
///
/// Unless [`with_policy`](Self::with_policy) says otherwise, the policy is about exactly the route that was asked for.
#[derive(Debug, Clone)]
#[must_use]
pub struct Authorization {
    principal_id: String,
    effect: Effect,
    policy: Option<Policy>,
    context: Context,
    expires_at: Option<SystemTime>,
    usage_identifier_key: Option<String>,
}

impl Authorization {
    /// Lets the principal connect. Its id is any text but the empty one.
    pub fn allow(principal_id: impl Into<String>) -> Self {
        Self::new(principal_id.into(), Effect::Allow)
    }

    /// Refuses the principal with 403.
    pub fn deny(principal_id: impl Into<String>) -> Self {
        Self::new(principal_id.into(), Effect::Deny)
    }

    fn new(principal_id: String, effect: Effect) -> Self {
        let context = Context::default();
        Self { principal_id, effect, policy: None, context, expires_at: None, usage_identifier_key: None }
    }

    /// Answers with this policy instead of the one about exactly the route that was asked for.
    ///
    /// [`respond`](Self::respond) checks that the policy says something about that route, and that it does not allow
    /// what [`deny`](Self::deny) denies.
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Hands values on to the routes, which read them with
    /// [`RequestContext::context`](crate::event::RequestContext::context).
    ///
    /// # Errors
    ///
    /// [`Denied::Failed`] with an [`InvalidContext`], when a value cannot cross API Gateway.
    pub fn with_context(mut self, values: &(impl serde::Serialize + ?Sized)) -> Result<Self, Denied> {
        self.context = Context::new(values)?;
        Ok(self)
    }

    /// Says until when the client is authorized, such as the `exp` of its token; cut off to the second.
    ///
    /// API Gateway asks the authorizer once, and keeps the connection open for up to two hours, whatever the token says. The time
    /// travels in the context, as `authorizationExpiresAt` in seconds since 1970.
    /// [`Router::close_expired`](crate::Router::close_expired) closes the connection of a client that goes on sending, and the sweeps
    /// of a [`Hub`](crate::hub::Hub) that of one that only listens.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use lambda_websocket::authorizer::Authorization;
    ///
    /// # let (subject, exp) = ("alice", 1_900_000_000);
    /// let authorization = Authorization::allow(subject).with_expiry(UNIX_EPOCH + Duration::from_secs(exp));
    /// ```
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Names the API key that the connection's usage counts for.
    ///
    /// For an API whose key source is the authorizer.
    pub fn usage_identifier_key(mut self, key: impl Into<String>) -> Self {
        self.usage_identifier_key = Some(key.into());
        self
    }

    /// The answer to API Gateway about this route.
    ///
    /// # Errors
    ///
    /// [`InvalidAuthorization`] when API Gateway would refuse the answer, or would let nobody in because of it.
    pub fn respond(mut self, method_arn: &RouteArn) -> Result<Response, InvalidAuthorization> {
        if let Some(expires_at) = self.expires_at {
            let seconds = expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.context.insert(AUTHORIZATION_EXPIRES_AT, seconds.into());
        }
        let policy = match self.policy {
            Some(policy) => policy,
            None => Policy::new().statement(Statement::new(self.effect, [Resource::new(method_arn.to_string())?])),
        };
        match (self.effect, policy.evaluate(method_arn)) {
            (Effect::Allow, Decision::Allow | Decision::Deny)
            | (Effect::Deny, Decision::Deny | Decision::ImplicitDeny) => {
                Response::new(self.principal_id, policy, self.context, self.usage_identifier_key)
            }
            // What a condition says is only known for a request.
            (Effect::Allow, Decision::ImplicitDeny) if policy.may_allow(method_arn) => {
                Response::new(self.principal_id, policy, self.context, self.usage_identifier_key)
            }
            (Effect::Allow, Decision::ImplicitDeny) => {
                Err(InvalidAuthorization::NeverMatches { method_arn: method_arn.to_string() })
            }
            (Effect::Deny, Decision::Allow) => {
                Err(InvalidAuthorization::AllowsTheDenied { method_arn: method_arn.to_string() })
            }
        }
    }
}

/// Why a client may not connect.
///
/// Any error becomes [`Denied::Failed`] with `?`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Denied {
    /// The client did not say who it is, or not in a way that can be believed: 401.
    Unauthorized,
    /// The client may not connect: 403.
    Forbidden,
    /// The decision could not be made: 500.
    Failed(Box<dyn StdError + Send + Sync>),
}

/// Any error, and whatever else becomes a boxed one: `anyhow::Error`, `Box<dyn Error + Send + Sync>`, `&str`, `String`.
impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Denied {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// An authorizer function that Lambda can run.
///
/// Clones are cheap and share the function.
pub struct Authorizer<F>(Arc<F>);

/// How an authorizer's invocation ends when it does not answer with a policy. There is no third way, so the enum is
/// complete.
#[derive(Debug)]
pub enum Failure {
    /// With exactly the message `Unauthorized`, which API Gateway turns into 401.
    Unauthorized,
    /// With another message, which API Gateway turns into 500.
    Failed(Box<dyn StdError + Send + Sync>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized => f.write_str("Unauthorized"),
            // The prefix keeps an error whose own text is `Unauthorized` from becoming a 401.
            Self::Failed(error) => {
                write!(f, "the authorizer failed: {}", texts(&**error).first().map_or("", String::as_str))
            }
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unauthorized => None,
            Self::Failed(error) => Some(&**error),
        }
    }
}

impl<F, Fut> Authorizer<F>
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Authorization, Denied>> + Send,
{
    /// Makes an authorizer of a function.
    pub fn new(authorize: F) -> Self {
        Self(Arc::new(authorize))
    }

    /// Answers one request.
    ///
    /// # Errors
    ///
    /// [`Failure`] is what fails the invocation: that is how API Gateway wants to hear of a 401 and of a 500.
    pub fn handle(&self, request: Request) -> impl Future<Output = Result<Response, Failure>> + Send + 'static {
        let context = request.request_context();
        // Of the highest level, so that lines of every level say which request they are about.
        let span = tracing::error_span!(
            "authorizer",
            request_id = %context.request_id,
            connection_id = %context.connection_id,
            route_key = %context.route_key,
            trace_id = context.invocation().and_then(|invocation| invocation.trace).map(|trace| trace.trace_id()),
        );
        let authorize = Arc::clone(&self.0);
        async move {
            let method_arn = request.method_arn().clone();
            let authorization = match authorize(request).await {
                Ok(authorization) => authorization,
                Err(Denied::Forbidden) => Authorization::deny("anonymous"),
                Err(Denied::Unauthorized) => {
                    metrics::authorized("unauthorized");
                    tracing::info!("the client is not authenticated");
                    return Err(Failure::Unauthorized);
                }
                Err(Denied::Failed(error)) => return Err(failed(error)),
            };
            let response = authorization.respond(&method_arn).map_err(|error| failed(Box::new(error)))?;
            let decision = response.policy_document().evaluate(&method_arn);
            metrics::authorized(if decision == Decision::Allow { "allow" } else { "deny" });
            tracing::info!(?decision, "the authorizer decided");
            Ok(response)
        }
        .instrument(span)
    }
}

fn failed(error: Box<dyn StdError + Send + Sync>) -> Failure {
    metrics::authorized("error");
    tracing::error!(error = %chain(&*error), "the authorizer failed");
    Failure::Failed(error)
}

impl<F> Clone for Authorizer<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> fmt::Debug for Authorizer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").finish_non_exhaustive()
    }
}
