//! REQUEST authorizers: decide who may connect, and pass values to the routes.
//!
//! An authorizer function takes a [`Request`] and returns an [`Authorization`] or [`Denied`]. API
//! Gateway invokes it once, when a client connects, and keeps the decision for the lifetime of the
//! connection.
//!
//! | The function returns | The client gets | Because Lambda returns |
//! |---|---|---|
//! | [`Authorization::allow`] | the connection, if `$connect` accepts it | a policy that allows the route |
//! | [`Authorization::deny`], [`Denied::Forbidden`] | 403 | a policy that denies the route |
//! | [`Denied::Unauthorized`] | 401 | an error with exactly the message `Unauthorized` |
//! | any other error, or a response that API Gateway would reject | 500 | an error |
//!
//! See [Lambda REQUEST authorizers of WebSocket
//! APIs](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-lambda-auth.html).
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

/// Whether a principal may connect, and the values passed to the routes.
///
/// By default, the policy covers exactly the requested route; see
/// [`with_policy`](Self::with_policy).
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
    /// Allows the principal to connect. Its id must not be empty.
    pub fn allow(principal_id: impl Into<String>) -> Self {
        Self::new(principal_id.into(), Effect::Allow)
    }

    /// Rejects the principal with 403.
    pub fn deny(principal_id: impl Into<String>) -> Self {
        Self::new(principal_id.into(), Effect::Deny)
    }

    fn new(principal_id: String, effect: Effect) -> Self {
        let context = Context::default();
        Self { principal_id, effect, policy: None, context, expires_at: None, usage_identifier_key: None }
    }

    /// Sets a policy to use instead of one that covers exactly the requested route.
    ///
    /// [`respond`](Self::respond) checks that the policy covers that route, and that it does not
    /// allow a principal rejected with [`deny`](Self::deny).
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Passes values to the routes.
    ///
    /// Routes read them with [`RequestContext::context`](crate::event::RequestContext::context).
    ///
    /// # Errors
    ///
    /// [`Denied::Failed`] with an [`InvalidContext`] if a value cannot be passed through API
    /// Gateway.
    pub fn with_context(mut self, values: &(impl serde::Serialize + ?Sized)) -> Result<Self, Denied> {
        self.context = Context::new(values)?;
        Ok(self)
    }

    /// Sets when the authorization expires, for example to the `exp` of a token.
    ///
    /// API Gateway invokes the authorizer once and keeps the connection open for up to two hours,
    /// even if the token expires earlier. The time is stored in the context as
    /// `authorizationExpiresAt`, in whole seconds since 1970.
    /// [`Router::close_expired`](crate::Router::close_expired) closes the connection when the
    /// client sends a message after that time. The sweeps of a [`Hub`](crate::hub::Hub) close the
    /// connections of clients that only listen.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::authorizer::Authorization;
    /// use std::time::{Duration, UNIX_EPOCH};
    ///
    /// # let (subject, exp) = ("alice", 1_900_000_000);
    /// let authorization = Authorization::allow(subject)
    ///     .with_expiry(UNIX_EPOCH + Duration::from_secs(exp));
    /// ```
    pub fn with_expiry(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Sets the API key that the connection's usage counts toward.
    ///
    /// Use it for an API whose API key source is the authorizer.
    pub fn usage_identifier_key(mut self, key: impl Into<String>) -> Self {
        self.usage_identifier_key = Some(key.into());
        self
    }

    /// Returns the response to API Gateway for this route.
    ///
    /// # Errors
    ///
    /// - [`InvalidAuthorization::NoPrincipal`] if the principal id is empty.
    /// - [`InvalidAuthorization::NeverMatches`] if an allowed principal's policy does not cover the
    ///   route.
    /// - [`InvalidAuthorization::AllowsDeniedRoute`] if a denied principal's policy allows the route.
    /// - [`InvalidAuthorization::Resource`] if the ARN is too long to be a policy resource.
    /// - [`InvalidAuthorization::TooLarge`] if the response exceeds [`Response::MAX_BYTES`].
    /// - [`InvalidAuthorization::NotJson`] if the response fails to serialize as JSON.
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
            // The outcome of a condition is known only when there is a request to evaluate.
            (Effect::Allow, Decision::ImplicitDeny) if policy.may_allow(method_arn) => {
                Response::new(self.principal_id, policy, self.context, self.usage_identifier_key)
            }
            (Effect::Allow, Decision::ImplicitDeny) => {
                Err(InvalidAuthorization::NeverMatches { method_arn: method_arn.to_string() })
            }
            (Effect::Deny, Decision::Allow) => {
                Err(InvalidAuthorization::AllowsDeniedRoute { method_arn: method_arn.to_string() })
            }
        }
    }
}

/// The reason for rejecting a client.
///
/// The `?` operator converts any error to [`Denied::Failed`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Denied {
    /// The client did not authenticate, or its credentials are not valid: 401.
    Unauthorized,
    /// The client may not connect: 403.
    Forbidden,
    /// The decision could not be made: 500.
    Failed(Box<dyn StdError + Send + Sync>),
}

/// Converts any error, and any other type that converts to a boxed error: `anyhow::Error`,
/// `Box<dyn Error + Send + Sync>`, `&str`, `String`.
impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Denied {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// An authorizer function that Lambda can run.
///
/// Clones are cheap and share the function.
pub struct Authorizer<F>(Arc<F>);

/// An authorizer invocation that fails instead of returning a policy.
///
/// The enum is exhaustive: API Gateway distinguishes only these two failures.
#[derive(Debug)]
pub enum AuthorizerError {
    /// The error message is exactly `Unauthorized`, which API Gateway turns into 401.
    Unauthorized,
    /// The error has any other message, which API Gateway turns into 500.
    Failed(Box<dyn StdError + Send + Sync>),
}

impl fmt::Display for AuthorizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized => f.write_str("Unauthorized"),
            // The prefix prevents an error whose own message is `Unauthorized` from becoming a 401.
            Self::Failed(error) => {
                write!(f, "the authorizer failed: {}", texts(&**error).first().map_or("", String::as_str))
            }
        }
    }
}

impl StdError for AuthorizerError {
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
    /// Creates an authorizer from a function.
    pub fn new(authorize: F) -> Self {
        Self(Arc::new(authorize))
    }

    /// Handles one request.
    ///
    /// # Errors
    ///
    /// Each error fails the invocation, which API Gateway turns into a 401 or a 500.
    ///
    /// - [`AuthorizerError::Unauthorized`] if the function returns [`Denied::Unauthorized`].
    /// - [`AuthorizerError::Failed`] if the function returns [`Denied::Failed`], or if
    ///   [`Authorization::respond`] rejects the authorization.
    pub fn handle(&self, request: Request) -> impl Future<Output = Result<Response, AuthorizerError>> + Send + 'static {
        let context = request.request_context();
        // The span has the highest level, so that log lines of every level identify their request.
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
                    return Err(AuthorizerError::Unauthorized);
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

fn failed(error: Box<dyn StdError + Send + Sync>) -> AuthorizerError {
    metrics::authorized("error");
    tracing::error!(error = %chain(&*error), "the authorizer failed");
    AuthorizerError::Failed(error)
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
