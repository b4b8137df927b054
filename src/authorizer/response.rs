//! The response of an authorizer to API Gateway.

use std::io;

use serde::{Deserialize, Serialize};

use super::arn::InvalidResource;
use super::context::Context;
use super::policy::Policy;
use crate::quotas;

/// The response of an authorizer as API Gateway expects it, of at most 8 KB.
///
/// Serialization leaves out absent members, because API Gateway rejects some that are null.
/// Deserialization rejects unknown members and nested context values, but does not check the size
/// or the principal id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Response {
    principal_id: String,
    policy_document: Policy,
    #[serde(default, skip_serializing_if = "Context::is_empty")]
    context: Context,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage_identifier_key: Option<String>,
}

/// An authorization that API Gateway would reject, or that contradicts its own policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAuthorization {
    /// The principal id is empty.
    #[error("the principal id is empty")]
    NoPrincipal,
    /// The authorization allows, but no statement of its policy covers the route.
    #[error(
        "no statement of the policy matches `{method_arn}`, so nobody could connect; `RouteArn::whole_stage` makes a \
         pattern that does, while the form `…/<stage>/*/*` of REST APIs does not"
    )]
    NeverMatches {
        /// The ARN of the route that the policy should cover.
        method_arn: String,
    },
    /// The authorization denies, but its policy allows the route.
    #[error("the authorization denies, but its policy allows `{method_arn}`")]
    AllowsDeniedRoute {
        /// The ARN of the route that the policy allows.
        method_arn: String,
    },
    /// A resource is too long, or is neither `*` nor an ARN.
    #[error(transparent)]
    Resource(#[from] InvalidResource),
    /// The response is larger than the 8192 bytes that API Gateway accepts.
    #[error("the answer has {size} bytes, of which API Gateway takes at most 8192")]
    TooLarge {
        /// The size of the response as JSON, in bytes.
        size: usize,
    },
    /// The response failed to serialize as JSON.
    #[error("the answer cannot be made JSON: {reason}")]
    NotJson {
        /// The message of the serialization error.
        reason: String,
    },
}

impl Response {
    /// The maximum size of a response that API Gateway accepts, in bytes.
    pub const MAX_BYTES: usize = quotas::MAX_AUTHORIZER_RESPONSE_BYTES;

    pub(super) fn new(
        principal_id: String,
        policy_document: Policy,
        context: Context,
        usage_identifier_key: Option<String>,
    ) -> Result<Self, InvalidAuthorization> {
        if principal_id.is_empty() {
            return Err(InvalidAuthorization::NoPrincipal);
        }
        let response = Self { principal_id, policy_document, context, usage_identifier_key };
        let mut size = Size(0);
        serde_json::to_writer(&mut size, &response)
            .map_err(|error| InvalidAuthorization::NotJson { reason: error.to_string() })?;
        if size.0 > Self::MAX_BYTES {
            return Err(InvalidAuthorization::TooLarge { size: size.0 });
        }
        Ok(response)
    }

    /// Returns the id of the principal, which the routes can read.
    pub fn principal_id(&self) -> &str {
        &self.principal_id
    }

    /// Returns the policy that decides whether the client may connect.
    pub fn policy_document(&self) -> &Policy {
        &self.policy_document
    }

    /// Returns the values that are passed to the routes.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Returns the API key that the connection's usage counts toward.
    pub fn usage_identifier_key(&self) -> Option<&str> {
        self.usage_identifier_key.as_deref()
    }
}

/// A writer that only counts the bytes written.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
