//! Conversions from and to the policies and responses of the `aws_lambda_events` crate.

use aws_lambda_events::event::apigw::{ApiGatewayCustomAuthorizerPolicy, ApiGatewayCustomAuthorizerResponse};
use aws_lambda_events::event::iam::{IamPolicyDocument, IamPolicyEffect, IamPolicyStatement};
use serde_json::{Value, json};

use super::Resource;
use super::arn::InvalidResource;
use super::context::{Context, InvalidContext};
use super::policy::{Effect, Policy, Statement};
use super::response::{InvalidAuthorization, Response};

/// A policy of the `aws_lambda_events` crate that this crate cannot evaluate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicy {
    /// A statement's effect is neither `Allow` nor `Deny`.
    #[error("statement {index} of the policy neither allows nor denies")]
    Effect {
        /// The index of the statement, counted from 0.
        index: usize,
    },
    /// A resource is too long, or is neither `*` nor an ARN.
    #[error(transparent)]
    Resource(#[from] InvalidResource),
}

impl From<&Policy> for IamPolicyDocument {
    fn from(policy: &Policy) -> Self {
        let mut document = Self::default();
        document.version = Some(policy.version().to_owned());
        document.statement = policy.statements().iter().map(IamPolicyStatement::from).collect();
        document
    }
}

impl From<&Statement> for IamPolicyStatement {
    fn from(statement: &Statement) -> Self {
        let mut iam = Self::default();
        iam.action = statement.actions().to_vec();
        iam.effect = match statement.effect() {
            Effect::Allow => IamPolicyEffect::Allow,
            Effect::Deny => IamPolicyEffect::Deny,
        };
        iam.resource = statement.resources().iter().map(|resource| resource.as_str().to_owned()).collect();
        for (operator, key, values) in statement.condition().iter() {
            let keys = iam.condition.get_or_insert_default().entry(operator.to_owned()).or_default();
            keys.insert(key.to_owned(), values.to_vec());
        }
        iam
    }
}

/// The `aws_lambda_events` crate has already read a missing effect as `Allow`. Prefer deserializing
/// a [`Policy`] directly.
impl TryFrom<&IamPolicyDocument> for Policy {
    type Error = InvalidPolicy;

    fn try_from(document: &IamPolicyDocument) -> Result<Self, InvalidPolicy> {
        document.statement.iter().enumerate().try_fold(Self::new(), |policy, (index, iam)| {
            let effect = match iam.effect {
                IamPolicyEffect::Allow => Effect::Allow,
                IamPolicyEffect::Deny => Effect::Deny,
                _ => return Err(InvalidPolicy::Effect { index }),
            };
            let resources: Result<Vec<Resource>, _> =
                iam.resource.iter().map(|text| Resource::new(text.as_str())).collect();
            let statement = Statement::new(effect, resources?).with_actions(iam.action.clone());
            let conditions = iam.condition.iter().flatten();
            let statement = conditions.fold(statement, |statement, (operator, keys)| {
                keys.iter().fold(statement, |statement, (key, values)| statement.when(operator, key, values.clone()))
            });
            Ok(policy.statement(statement))
        })
    }
}

/// The `aws_lambda_events` crate serializes a missing context and a missing usage identifier key as
/// `null`, which API Gateway has been seen to reject. Serialize [`Response`] itself where you can.
impl From<&Response> for ApiGatewayCustomAuthorizerResponse {
    fn from(response: &Response) -> Self {
        let policy = IamPolicyDocument::from(response.policy_document());
        let mut document = ApiGatewayCustomAuthorizerPolicy::default();
        document.version = policy.version;
        document.statement = policy.statement;
        let mut custom = Self::default();
        custom.principal_id = Some(response.principal_id().to_owned());
        custom.policy_document = document;
        custom.context = match response.context().is_empty() {
            true => Value::Null,
            false => json!(response.context()),
        };
        custom.usage_identifier_key = response.usage_identifier_key().map(str::to_owned);
        custom
    }
}

/// A response of the `aws_lambda_events` crate that API Gateway would reject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// The policy has something that this crate cannot evaluate.
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    /// The context has a value that cannot be passed through API Gateway.
    #[error(transparent)]
    Context(#[from] InvalidContext),
    /// The response has no principal, or is too large.
    #[error(transparent)]
    Authorization(#[from] InvalidAuthorization),
}

impl TryFrom<&ApiGatewayCustomAuthorizerResponse> for Response {
    type Error = InvalidResponse;

    fn try_from(custom: &ApiGatewayCustomAuthorizerResponse) -> Result<Self, InvalidResponse> {
        let mut document = IamPolicyDocument::default();
        document.statement.clone_from(&custom.policy_document.statement);
        let policy = Policy::try_from(&document)?;
        let context = Context::new(&custom.context)?;
        let principal_id = custom.principal_id.clone().unwrap_or_default();
        Ok(Self::new(principal_id, policy, context, custom.usage_identifier_key.clone())?)
    }
}
