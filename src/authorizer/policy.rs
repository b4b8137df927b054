//! IAM policies: building, serializing, parsing, and evaluating them.

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::arn::{Resource, RouteArn};
use super::condition::{Condition, ConditionKeys, Holds};

/// An IAM policy about the routes of an API.
///
/// API Gateway evaluates an authorizer's policy once, for `$connect`. It does not enforce
/// statements about other routes when messages arrive. See [the output of an
/// authorizer](https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html).
///
/// # Examples
///
/// ```
/// use lambda_websocket::authorizer::{Decision, Policy, RouteArn};
///
/// let connect: RouteArn =
///     "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/dev/$connect"
///         .parse()?;
/// let policy =
///     Policy::new().allow(connect.whole_api()).deny(connect.whole_stage());
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

/// The result of evaluating a policy for a route.
///
/// The enum is exhaustive: there are no other results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows the route, and none denies it.
    Allow,
    /// A statement denies the route.
    Deny,
    /// No statement applies to the route, so it is denied.
    ImplicitDeny,
}

impl Policy {
    /// Creates a policy without statements, which denies everything.
    pub fn new() -> Self {
        Self { version: Version::Current, id: None, statement: Vec::new() }
    }

    /// Adds a statement that allows a route, or the routes that a pattern matches.
    #[must_use]
    pub fn allow(self, resource: impl Into<Resource>) -> Self {
        self.statement(Statement::new(Effect::Allow, [resource.into()]))
    }

    /// Adds a statement that denies a route, or the routes that a pattern matches.
    ///
    /// It overrides every statement that allows.
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

    /// Returns the statements, in the order in which they were added.
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

    /// Evaluates the policy for a route, without condition keys.
    ///
    /// The evaluation follows IAM's rules: actions are compared case-insensitively, resources
    /// case-sensitively, both with `*` and `?` as wildcards.
    pub fn evaluate(&self, arn: &RouteArn) -> Decision {
        self.evaluate_for(arn, &ConditionKeys::new())
    }

    /// Returns whether a statement allows the route, ignoring its condition.
    pub(super) fn may_allow(&self, arn: &RouteArn) -> bool {
        let arn = arn.to_string();
        self.statement.iter().any(|statement| statement.effect == Effect::Allow && statement.covers(&arn))
    }

    /// Evaluates the policy for a route, with these condition keys.
    ///
    /// The evaluation follows IAM's rules. A condition with an unknown operator or key leads to a
    /// denial: a statement that allows does not apply, and one that denies does. A warning in the
    /// log names the operator and the key.
    ///
    /// Known operators are `String…`, `Arn…`, `Numeric…`, `Date…`, `IpAddress`, `NotIpAddress`,
    /// `Bool`, and `Null`, with `IfExists`, `ForAllValues:`, and `ForAnyValue:`. Known keys are
    /// those of [`ConditionKeys`].
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::authorizer::{
    ///     ConditionKeys, Decision, Effect, Policy, RouteArn, Statement,
    /// };
    ///
    /// let connect: RouteArn =
    ///     "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/dev/$connect"
    ///         .parse()?;
    /// let from_the_office = Statement::new(Effect::Allow, [connect.whole_stage()])
    ///     .when("IpAddress", "aws:SourceIp", ["203.0.113.0/24"]);
    /// let policy = Policy::new().statement(from_the_office);
    /// let from = |address: &str| {
    ///     ConditionKeys::new().with_source_ip(address.parse().unwrap())
    /// };
    /// assert_eq!(policy.evaluate_for(&connect, &from("203.0.113.7")), Decision::Allow);
    /// assert_eq!(
    ///     policy.evaluate_for(&connect, &from("198.51.100.7")),
    ///     Decision::ImplicitDeny
    /// );
    /// # Ok::<(), lambda_websocket::authorizer::InvalidArn>(())
    /// ```
    pub fn evaluate_for(&self, arn: &RouteArn, keys: &ConditionKeys) -> Decision {
        let arn = arn.to_string();
        let has = |effect| {
            let of_effect = self.statement.iter().filter(|statement| statement.effect == effect);
            of_effect.into_iter().any(|statement| statement.covers(&arn) && statement.applies(keys))
        };
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

/// Whether a statement allows or denies.
///
/// The enum is exhaustive: IAM has no other effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Allows the resources, unless another statement denies them.
    Allow,
    /// Denies the resources.
    Deny,
}

/// One statement of a policy.
///
/// Deserialization rejects `NotAction`, `NotResource`, and `Principal`: they are not evaluated
/// here, and ignoring them would allow too much.
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
    // AUT-11: absent rather than null.
    #[serde(default, skip_serializing_if = "Condition::is_empty")]
    condition: Condition,
}

impl Statement {
    /// The action for connecting and sending: `execute-api:Invoke`.
    pub const INVOKE: &'static str = "execute-api:Invoke";

    /// Creates a statement about invoking the routes that these resources match.
    pub fn new(effect: Effect, resources: impl IntoIterator<Item = Resource>) -> Self {
        Self {
            sid: None,
            action: vec![Self::INVOKE.to_owned()],
            effect,
            resource: resources.into_iter().collect(),
            condition: Condition::default(),
        }
    }

    /// Adds a condition; the statement applies only if all its conditions hold.
    ///
    /// `operator` is an IAM condition operator, such as `IpAddress` or `StringLikeIfExists`. `key`
    /// is a condition key, such as `aws:SourceIp`. The condition holds if the key matches one of
    /// the values, or for a negated operator if it matches none. A second condition with the same
    /// operator and key replaces the first.
    #[must_use]
    pub fn when(
        mut self,
        operator: impl Into<String>,
        key: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.condition.insert(operator.into(), key.into(), values.into_iter().map(Into::into).collect());
        self
    }

    #[cfg(feature = "aws_lambda_events")]
    pub(super) fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Replaces the actions, in which `*` and `?` are wildcards.
    #[must_use]
    pub fn with_actions(mut self, actions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.action = actions.into_iter().map(Into::into).collect();
        self
    }

    /// Returns whether the statement allows or denies.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Returns the actions that the statement applies to.
    pub fn actions(&self) -> &[String] {
        &self.action
    }

    /// Returns the resources that the statement applies to.
    pub fn resources(&self) -> &[Resource] {
        &self.resource
    }

    /// Returns whether the condition holds. An unknown condition counts as holding if the statement
    /// denies.
    fn applies(&self, keys: &ConditionKeys) -> bool {
        match self.condition.holds(keys) {
            Holds::Yes => true,
            Holds::No => false,
            Holds::Unknown => self.effect == Effect::Deny,
        }
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

/// IAM accepts a single value in place of a list.
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
