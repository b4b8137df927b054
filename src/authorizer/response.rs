//! What an authorizer answers API Gateway.

use std::io;

use serde::{Deserialize, Serialize};

use super::arn::InvalidResource;
use super::context::Context;
use super::policy::Policy;

/// The answer of an authorizer as API Gateway takes it: at most 8 KB.
///
/// Absent members are left out, since API Gateway refuses some that are null. Reading one is as strict as the gateway is.
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

/// API Gateway would refuse the answer, or would let nobody in because of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAuthorization {
    /// The principal's id is empty.
    #[error("the principal id is empty")]
    NoPrincipal,
    /// The principal may connect, but no statement is about connecting.
    #[error(
        "no statement of the policy matches `{method_arn}`, so nobody could connect; `RouteArn::whole_stage` makes a \
         pattern that does, while the form `…/<stage>/*/*` of REST APIs does not"
    )]
    NeverMatches {
        /// The route that the policy should be about.
        method_arn: String,
    },
    /// The principal may not connect, but the policy lets it.
    #[error("the authorization denies, but its policy allows `{method_arn}`")]
    AllowsTheDenied {
        /// The route that the policy allows.
        method_arn: String,
    },
    /// A resource is too long, or is not one.
    #[error(transparent)]
    Resource(#[from] InvalidResource),
    /// The answer is larger than the 8192 bytes that API Gateway takes.
    #[error("the answer has {size} bytes, of which API Gateway takes at most 8192")]
    TooLarge {
        /// Its size as JSON, in bytes.
        size: usize,
    },
    /// The answer cannot be made JSON.
    #[error("the answer cannot be made JSON: {reason}")]
    NotJson {
        /// Why not.
        reason: String,
    },
}

impl Response {
    /// The largest answer that API Gateway takes, in bytes.
    pub const MAX_BYTES: usize = 8192;

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

    /// The principal that the routes learn of.
    pub fn principal_id(&self) -> &str {
        &self.principal_id
    }

    /// The policy that decides.
    pub fn policy_document(&self) -> &Policy {
        &self.policy_document
    }

    /// The values that the routes learn.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The API key that the connection's usage counts for.
    pub fn usage_identifier_key(&self) -> Option<&str> {
        self.usage_identifier_key.as_deref()
    }
}

/// Counts what is written.
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
