//! Conditions of policy statements, evaluated as IAM does with the keys that API Gateway sets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// Condition operators, each with the keys that it tests and the values to compare them with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Condition(BTreeMap<String, BTreeMap<String, Values>>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct Values(Vec<String>);

/// The global condition keys that API Gateway sets and policy conditions can test.
///
/// | key | set by |
/// |---|---|
/// | `aws:SourceIp` | [`with_source_ip`](Self::with_source_ip) |
/// | `aws:UserAgent` | [`with_user_agent`](Self::with_user_agent) |
/// | `aws:Referer` | [`with_referer`](Self::with_referer) |
/// | `aws:CurrentTime`, `aws:EpochTime` | [`with_time`](Self::with_time) |
/// | `aws:SecureTransport` | [`with_secure_transport`](Self::with_secure_transport) |
///
/// See [global condition
/// keys](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConditionKeys {
    source_ip: Option<IpAddr>,
    user_agent: Option<String>,
    referer: Option<String>,
    time: Option<SystemTime>,
    secure_transport: Option<bool>,
}

impl ConditionKeys {
    /// Creates an empty set of condition keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the client's address.
    #[must_use]
    pub fn with_source_ip(mut self, address: IpAddr) -> Self {
        self.source_ip = Some(address);
        self
    }

    /// Sets the `User-Agent` header.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = Some(user_agent.into());
        self
    }

    /// Sets the `Referer` header.
    #[must_use]
    pub fn with_referer(mut self, referer: impl Into<String>) -> Self {
        self.referer = Some(referer.into());
        self
    }

    /// Sets the time of the request.
    #[must_use]
    pub fn with_time(mut self, time: SystemTime) -> Self {
        self.time = Some(time);
        self
    }

    /// Sets whether the request used TLS.
    #[must_use]
    pub fn with_secure_transport(mut self, is_secure: bool) -> Self {
        self.secure_transport = Some(is_secure);
        self
    }

    /// Returns the value of a key. The outer `None` means that the key is unknown.
    fn find(&self, key: &str) -> Option<Option<String>> {
        let seconds = self.time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs());
        // The date operators accept seconds, too.
        let seconds = seconds.map(|seconds| seconds.to_string());
        Some(match key.to_ascii_lowercase().as_str() {
            "aws:sourceip" => self.source_ip.map(|address| address.to_string()),
            "aws:useragent" => self.user_agent.clone(),
            "aws:referer" => self.referer.clone(),
            "aws:currenttime" | "aws:epochtime" => seconds,
            "aws:securetransport" => self.secure_transport.map(|is_secure| is_secure.to_string()),
            _ => return None,
        })
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Yes,
    No,
    /// The condition has an unknown operator or key, so it cannot be evaluated.
    Unknown,
}

impl Condition {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, operator: String, key: String, values: Vec<String>) {
        self.0.entry(operator).or_default().insert(key, Values(values));
    }

    #[cfg(feature = "aws_lambda_events")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &[String])> {
        self.0.iter().flat_map(|(operator, keys)| {
            keys.iter().map(move |(key, values)| (operator.as_str(), key.as_str(), values.0.as_slice()))
        })
    }

    /// Evaluates the condition: every key of every operator has to match.
    pub(super) fn holds(&self, keys: &ConditionKeys) -> Holds {
        let mut holds = Holds::Yes;
        for (operator, tested) in &self.0 {
            for (key, values) in tested {
                match test(operator, key, &values.0, keys) {
                    Some(true) => {}
                    // One failed test is enough: the condition does not hold.
                    Some(false) => return Holds::No,
                    None => {
                        tracing::warn!(operator, key, "the policy has an unsupported condition: access is denied");
                        holds = Holds::Unknown;
                    }
                }
            }
        }
        holds
    }
}

/// Evaluates one test of a condition.
///
/// Returns `None` for an unknown operator or key, and for values that the operator cannot compare.
fn test(operator: &str, key: &str, values: &[String], keys: &ConditionKeys) -> Option<bool> {
    let (set, name) = match operator.split_once(':') {
        Some((set @ ("ForAllValues" | "ForAnyValue"), name)) => (Some(set), name),
        Some(_) => return None,
        None => (None, operator),
    };
    let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
    let found = keys.find(key)?;
    if name == "Null" {
        let wants_absent = values.iter().any(|value| value.eq_ignore_ascii_case("true"));
        return Some(found.is_none() == wants_absent);
    }
    let (compare, is_negated) = comparison(name)?;
    if key.eq_ignore_ascii_case("aws:CurrentTime") && !name.starts_with("Date") {
        return None;
    }
    let Some(found) = found else {
        // In IAM, an absent key matches nothing. A negated operator therefore holds, and so does
        // `ForAllValues`, which holds for an empty set.
        return Some(if_exists || set == Some("ForAllValues") || (is_negated && set.is_none()));
    };
    let mut matches = false;
    for value in values {
        matches |= compare(&found, value)?;
    }
    Some(matches != is_negated)
}

/// Compares a key's value with a value of the policy.
///
/// Returns `None` if one of them does not have the operator's type.
type Compare = fn(&str, &str) -> Option<bool>;

/// Returns the comparison for an operator's name, and whether the operator negates it.
fn comparison(name: &str) -> Option<(Compare, bool)> {
    let equal: Compare = |found, value| Some(found == value);
    let same: Compare = |found, value| Some(found.to_lowercase() == value.to_lowercase());
    let like: Compare = |found, value| Some(WildMatch::new(value).matches(found));
    let within: Compare = |found, value| is_within(found, value);
    Some(match name {
        "StringEquals" => (equal, false),
        "StringNotEquals" => (equal, true),
        "StringEqualsIgnoreCase" => (same, false),
        "StringNotEqualsIgnoreCase" => (same, true),
        "StringLike" | "ArnLike" | "ArnEquals" => (like, false),
        "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => (like, true),
        "Bool" => (same, false),
        "IpAddress" => (within, false),
        "NotIpAddress" => (within, true),
        "NumericEquals" => (|found, value| Some(number(found)? == number(value)?), false),
        "NumericNotEquals" => (|found, value| Some(number(found)? == number(value)?), true),
        "NumericLessThan" => (|found, value| Some(number(found)? < number(value)?), false),
        "NumericLessThanEquals" => (|found, value| Some(number(found)? <= number(value)?), false),
        "NumericGreaterThan" => (|found, value| Some(number(found)? > number(value)?), false),
        "NumericGreaterThanEquals" => (|found, value| Some(number(found)? >= number(value)?), false),
        "DateEquals" => (|found, value| Some(date(found)? == date(value)?), false),
        "DateNotEquals" => (|found, value| Some(date(found)? == date(value)?), true),
        "DateLessThan" => (|found, value| Some(date(found)? < date(value)?), false),
        "DateLessThanEquals" => (|found, value| Some(date(found)? <= date(value)?), false),
        "DateGreaterThan" => (|found, value| Some(date(found)? > date(value)?), false),
        "DateGreaterThanEquals" => (|found, value| Some(date(found)? >= date(value)?), false),
        _ => return None,
    })
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Parses a date as IAM writes it into seconds since 1970.
///
/// A date is a number of seconds, or `2026-06-01T12:00:00Z`, with an offset instead of `Z`, or
/// without a time. Fractions of a second are dropped.
fn date(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(f64::from(seconds));
    }
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let [year, month, day] = numbers(day, '-')?;
    if !(1.0..=12.0).contains(&month) || !(1.0..=31.0).contains(&day) {
        return None;
    }
    let (time, offset) = match time.strip_suffix('Z') {
        Some(time) => (time, 0.0),
        None => {
            let (time, offset) = time.split_at_checked(time.find(['+', '-'])?)?;
            let [hours, minutes, _] = numbers(&format!("{}:0", offset.get(1..)?), ':')?;
            let sign = if offset.starts_with('-') { -1.0 } else { 1.0 };
            (time, sign * (hours * 3600.0 + minutes * 60.0))
        }
    };
    let [hours, minutes, seconds] = numbers(time.split('.').next()?, ':')?;
    if hours >= 24.0 || minutes >= 60.0 || seconds > 60.0 {
        return None;
    }
    Some(days(year, month, day) * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds - offset)
}

/// Parses three unsigned numbers.
fn numbers(text: &str, separator: char) -> Option<[f64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<u16>().ok().map(f64::from));
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// Returns the days since 1970 for a date of the Gregorian calendar.
///
/// It counts years from March, so that February is the last month.
fn days(year: f64, month: f64, day: f64) -> f64 {
    let (year, month) = if month <= 2.0 { (year - 1.0, month + 9.0) } else { (year, month - 3.0) };
    let leap_days = (year / 4.0).floor() - (year / 100.0).floor() + (year / 400.0).floor();
    year * 365.0 + leap_days + ((153.0 * month + 2.0) / 5.0).floor() + day - 1.0 - 719_468.0
}

/// Returns whether an address equals this address, or is in this CIDR range.
fn is_within(address: &str, range: &str) -> Option<bool> {
    let (start, length) = match range.split_once('/') {
        Some((start, length)) => (start, Some(length.parse::<u32>().ok()?)),
        None => (range, None),
    };
    let (address, start): (IpAddr, IpAddr) = (address.parse().ok()?, start.parse().ok()?);
    let (address, start, bits) = match (address, start) {
        (IpAddr::V4(address), IpAddr::V4(start)) => {
            (u128::from(address.to_bits()), u128::from(start.to_bits()), 32_u32)
        }
        (IpAddr::V6(address), IpAddr::V6(start)) => (address.to_bits(), start.to_bits(), 128),
        _ => return Some(false),
    };
    let rest = bits.checked_sub(length.unwrap_or(bits))?;
    // The shift is too wide when the range covers every address; then there is nothing to compare.
    Some(address.checked_shr(rest).unwrap_or(0) == start.checked_shr(rest).unwrap_or(0))
}

/// IAM accepts one value in place of a list, and unquoted numbers and booleans.
impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("one value or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                Ok(Values(vec![text.to_owned()]))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Values, E> {
                self.visit_str(if value { "true" } else { "false" })
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Values, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Values, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Values, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(Values(one)) = list.next_element()? {
                    values.extend(one);
                }
                Ok(Values(values))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aut_13_dates_parse_as_unix_seconds() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2000-02-29T00:00:00Z", 951_782_400.0),
            ("2000-03-01", 951_868_800.0),
            ("2026-06-01T12:00:00Z", 1_780_315_200.0),
            ("2026-06-01T12:00:00.999Z", 1_780_315_200.0),
            ("2026-06-01T14:00:00+02:00", 1_780_315_200.0),
            ("2026-06-01T06:30:00-05:30", 1_780_315_200.0),
            ("1969-12-31T23:59:59Z", -1.0),
            ("1780315200", 1_780_315_200.0),
        ] {
            assert_eq!(date(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "2026-13-01",
            "2026-06-01T25:00:00Z",
            "2026-06-01T12:00:00",
            "2026-06",
            "2026-06-01-01",
            "T",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
