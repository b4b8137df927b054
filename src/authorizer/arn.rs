//! Route ARNs, and the ARN patterns of policy resources.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::event::{ApiId, Region, RouteKey, Stage};

/// The ARN of one route of a WebSocket API, in any partition.
///
/// The format is `arn:<partition>:execute-api:<region>:<account>:<API id>/<stage>/<route key>`,
/// with at most 1600 bytes. Parsing validates every part.
///
/// See [the ARNs of
/// `execute-api`](https://docs.aws.amazon.com/apigateway/latest/developerguide/arn-format-reference.html).
///
/// # Examples
///
/// ```
/// use lambda_websocket::authorizer::RouteArn;
///
/// let arn: RouteArn =
///     "arn:aws-cn:execute-api:cn-north-1:123456789012:a1b2c3d4e5/dev/$connect"
///         .parse()?;
/// assert_eq!(arn.partition(), "aws-cn");
/// assert_eq!(
///     arn.whole_stage().as_str(),
///     "arn:aws-cn:execute-api:cn-north-1:123456789012:a1b2c3d4e5/dev/*"
/// );
/// # Ok::<(), lambda_websocket::authorizer::InvalidArn>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteArn {
    partition: String,
    region: Region,
    account: String,
    api_id: ApiId,
    stage: Stage,
    route_key: RouteKey,
}

/// A string that is not the ARN of a WebSocket route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not the ARN of a WebSocket route: expected {expected} at byte {position}")]
pub struct InvalidArn {
    found: String,
    expected: &'static str,
    position: usize,
}

impl InvalidArn {
    /// Returns the byte position, from 0, at which the expected part is missing.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl RouteArn {
    /// The maximum length of a route's ARN, in bytes.
    pub const MAX_BYTES: usize = 1600;

    /// Returns the partition: `aws`, `aws-cn`, `aws-us-gov`, ….
    pub fn partition(&self) -> &str {
        &self.partition
    }

    /// Returns the region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Returns the account id, which consists of digits.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Returns the API id.
    pub fn api_id(&self) -> &ApiId {
        &self.api_id
    }

    /// Returns the stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Returns the route key.
    pub fn route_key(&self) -> &RouteKey {
        &self.route_key
    }

    /// Returns the ARN of another route of the same stage.
    #[must_use]
    pub fn with_route_key(&self, route_key: RouteKey) -> Self {
        Self { route_key, ..self.clone() }
    }

    /// Returns a pattern for every route of the stage, including `$connect`:
    /// `…/<API id>/<stage>/*`.
    ///
    /// The form `…/<stage>/*/*` of REST APIs does not match a WebSocket route.
    pub fn whole_stage(&self) -> Resource {
        Resource(format!("{}{}/{}/*", self.prefix(), self.api_id, self.stage))
    }

    /// Returns a pattern for every route of every stage of the API: `…/<API id>/*`.
    pub fn whole_api(&self) -> Resource {
        Resource(format!("{}{}/*", self.prefix(), self.api_id))
    }

    fn prefix(&self) -> String {
        format!("arn:{}:execute-api:{}:{}:", self.partition, self.region, self.account)
    }
}

impl fmt::Display for RouteArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}/{}", self.prefix(), self.api_id, self.stage, self.route_key)
    }
}

impl FromStr for RouteArn {
    type Err = InvalidArn;

    fn from_str(text: &str) -> Result<Self, InvalidArn> {
        let mut parts = Parts { text, position: 0 };
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidArn {
                found: text.chars().take(80).chain(['…']).collect(),
                expected: "at most 1600 bytes",
                position: Self::MAX_BYTES,
            });
        }
        parts.next(':', "`arn`", |part| (part == "arn").then_some(()))?;
        let partition = parts.next(':', "a partition such as `aws`", |part| {
            let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (part.starts_with("aws") && part.bytes().all(legal)).then(|| part.to_owned())
        })?;
        parts.next(':', "`execute-api`", |part| (part == "execute-api").then_some(()))?;
        let region = parts.next(':', "a region", |part| Region::new(part).ok())?;
        let account = parts.next(':', "an account id of at most 12 digits", |part| {
            (part.len() <= 12 && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| part.to_owned())
        })?;
        let api_id = parts.next('/', "an API id", |part| ApiId::new(part).ok())?;
        let stage = parts.next('/', "a stage", |part| Stage::new(part).ok())?;
        let route_key = parts.rest("a route key", |part| RouteKey::new(part).ok())?;
        Ok(Self { partition, region, account, api_id, stage, route_key })
    }
}

/// Parses a string part by part, and tracks the position for errors.
struct Parts<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Parts<'a> {
    fn next<T>(
        &mut self,
        end: char,
        expected: &'static str,
        check: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, InvalidArn> {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let (part, _) = rest.split_once(end).ok_or_else(|| self.error(expected))?;
        let value = check(part).ok_or_else(|| self.error(expected))?;
        self.position = self.position.saturating_add(part.len()).saturating_add(end.len_utf8());
        Ok(value)
    }

    fn rest<T>(&self, expected: &'static str, check: impl FnOnce(&'a str) -> Option<T>) -> Result<T, InvalidArn> {
        check(self.text.get(self.position..).unwrap_or_default()).ok_or_else(|| self.error(expected))
    }

    fn error(&self, expected: &'static str) -> InvalidArn {
        InvalidArn { found: self.text.to_owned(), expected, position: self.position }
    }
}

impl Serialize for RouteArn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RouteArn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// An ARN pattern that a policy statement applies to.
///
/// `*` matches any characters and `?` matches one, both also across `:` and `/`. A pattern has at
/// most 512 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource(String);

/// A string that cannot be the resource of a policy statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the resource {found:?} is not valid: expected {expected}")]
pub struct InvalidResource {
    found: String,
    expected: &'static str,
}

impl Resource {
    /// The maximum length of a resource, in characters.
    pub const MAX_CHARS: usize = 512;

    /// Creates a custom pattern.
    ///
    /// [`RouteArn::whole_stage`] and [`RouteArn::whole_api`] create the usual ones.
    ///
    /// # Errors
    ///
    /// [`InvalidResource`] if the pattern is longer than 512 characters, or is neither `*` nor
    /// starts with `arn:`.
    pub fn new(pattern: impl Into<String>) -> Result<Self, InvalidResource> {
        let pattern = pattern.into();
        let refuse = |expected, found| Err(InvalidResource { found, expected });
        if pattern.chars().count() > Self::MAX_CHARS {
            refuse("at most 512 characters", pattern.chars().take(80).chain(['…']).collect())
        } else if pattern != "*" && !pattern.starts_with("arn:") {
            refuse("`*`, or an ARN with `*` and `?` as wildcards", pattern)
        } else {
            Ok(Self(pattern))
        }
    }

    /// Returns the pattern as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Creates a pattern that matches exactly this route.
impl From<&RouteArn> for Resource {
    fn from(arn: &RouteArn) -> Self {
        Self(arn.to_string())
    }
}

/// Creates a pattern that matches exactly this route.
impl From<RouteArn> for Resource {
    fn from(arn: RouteArn) -> Self {
        Self::from(&arn)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
