//! Policies: how they are built, written, read and evaluated.

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::arn::{Resource, RouteArn};

/// An IAM policy about the routes of an API.
///
/// An authorizer's policy is evaluated once, for `$connect`: statements about other routes are not enforced when messages
/// come. See [the output of an authorizer](https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html).
///
/// # Examples
///
/// ```
/// use lambda_websocket::authorizer::{Decision, Policy, RouteArn};
///
/// let connect: RouteArn = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/dev/$connect".parse()?;
/// let policy = Policy::new().allow(connect.whole_api()).deny(connect.whole_stage());
/// assert_eq!(policy.evaluate(&connect), Decision::Deny);
/// # Ok::<(), lambda_websocket::authorizer::InvalidArn>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(deserialize_with = "one_or_many")]
    statement: Vec<Statement>,
}

/// What a policy says about a route. There is no other outcome, so the enum is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allow,
    /// A statement denies it.
    Deny,
    /// No statement is about it, so it is denied.
    ImplicitDeny,
}

impl Policy {
    /// A policy without statements: it denies everything.
    pub fn new() -> Self {
        Self { version: Version::Current, id: None, statement: Vec::new() }
    }

    /// Adds a statement that allows a route, or what a pattern matches.
    #[must_use]
    pub fn allow(self, resource: impl Into<Resource>) -> Self {
        self.statement(Statement::new(Effect::Allow, [resource.into()]))
    }

    /// Adds a statement that denies a route, or what a pattern matches. It wins over every one that allows.
    #[must_use]
    pub fn deny(self, resource: impl Into<Resource>) -> Self {
        self.statement(Statement::new(Effect::Deny, [resource.into()]))
    }

    /// Adds a statement.
    #[must_use]
    pub fn statement(mut self, statement: Statement) -> Self {
        self.statement.push(statement);
        self
    }

    /// The statements, in the order in which they were added.
    pub fn statements(&self) -> &[Statement] {
        &self.statement
    }

    #[cfg(feature = "aws_lambda_events")]
    pub(super) fn version(&self) -> &'static str {
        match self.version {
            Version::Current => "2012-10-17",
            Version::Old => "2008-10-17",
        }
    }

    /// What the policy says about invoking a route, as IAM evaluates it.
    ///
    /// Actions are compared without regard to case, resources exactly, both with `*` and `?` as wildcards.
    pub fn evaluate(&self, arn: &RouteArn) -> Decision {
        let arn = arn.to_string();
        let has = |effect| self.statement.iter().any(|statement| statement.effect == effect && statement.covers(&arn));
        if has(Effect::Deny) {
            Decision::Deny
        } else if has(Effect::Allow) {
            Decision::Allow
        } else {
            Decision::ImplicitDeny
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a statement allows or denies. IAM knows no other effect, so the enum is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// What the statement is about is allowed, unless another statement denies it.
    Allow,
    /// What the statement is about is denied.
    Deny,
}

/// One statement of a policy.
///
/// Reading one refuses `Condition`, `NotAction`, `NotResource` and `Principal`: they are not evaluated here, and passing
/// over them would allow too much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Statement {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    #[serde(deserialize_with = "one_or_many")]
    action: Vec<String>,
    effect: Effect,
    #[serde(deserialize_with = "one_or_many")]
    resource: Vec<Resource>,
}

impl Statement {
    /// The action that connecting and sending are: `execute-api:Invoke`.
    pub const INVOKE: &'static str = "execute-api:Invoke";

    /// A statement about invoking the routes that these resources match.
    pub fn new(effect: Effect, resources: impl IntoIterator<Item = Resource>) -> Self {
        Self { sid: None, action: vec![Self::INVOKE.to_owned()], effect, resource: resources.into_iter().collect() }
    }

    /// The same statement about these actions, in which `*` and `?` are wildcards.
    #[must_use]
    pub fn with_actions(mut self, actions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.action = actions.into_iter().map(Into::into).collect();
        self
    }

    /// Whether it allows or denies.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The actions it is about.
    pub fn actions(&self) -> &[String] {
        &self.action
    }

    /// What it is about.
    pub fn resources(&self) -> &[Resource] {
        &self.resource
    }

    fn covers(&self, arn: &str) -> bool {
        let invoke = Self::INVOKE.to_ascii_lowercase();
        self.action.iter().any(|action| WildMatch::new(&action.to_ascii_lowercase()).matches(&invoke))
            && self.resource.iter().any(|resource| WildMatch::new(resource.as_str()).matches(arn))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "2012-10-17")]
    Current,
    #[serde(rename = "2008-10-17")]
    Old,
}

/// IAM takes a single value where it takes a list.
fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct OneOrMany<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("one value or a list of them")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(serde::de::value::StrDeserializer::new(text)).map(|one| vec![one])
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut many = Vec::new();
            while let Some(item) = list.next_element()? {
                many.push(item);
            }
            Ok(many)
        }
    }

    deserializer.deserialize_any(OneOrMany(std::marker::PhantomData))
}
