//! The trace context of an invocation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A trace context, in the formats of AWS X-Ray and of W3C Trace Context.
///
/// Lambda sets one for every invocation. It serializes as a string in X-Ray's format, such as
/// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`. `Display` writes
/// the same format.
///
/// See X-Ray's [tracing
/// header](https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader)
/// and W3C's [`traceparent`](https://www.w3.org/TR/trace-context/#traceparent-header).
///
/// # Examples
///
/// ```
/// use lambda_websocket::event::TraceContext;
///
/// let trace: TraceContext =
///     "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01".parse()?;
/// assert_eq!(
///     trace.to_string(),
///     "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
/// );
/// assert_eq!(trace.to_string().parse(), Ok(trace));
/// # Ok::<(), lambda_websocket::event::InvalidTrace>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    parent: Option<u64>,
    is_sampled: bool,
}

/// A hook that connects a span to the trace that it is a part of.
pub(crate) type OnTrace = Arc<dyn Fn(&tracing::Span, TraceContext) + Send + Sync>;

/// The string is not a trace context of X-Ray or W3C.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a trace: expected `Root=1-…;Parent=…;Sampled=…` or a `traceparent`")]
#[non_exhaustive]
pub struct InvalidTrace;

impl TraceContext {
    /// Returns the trace id as 32 hexadecimal digits.
    ///
    /// W3C Trace Context and OpenTelemetry use this format.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Returns whether the trace is sampled.
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// Returns the value of the `traceparent` header, if the parent span is known.
    pub fn traceparent(&self) -> Option<String> {
        let parent = self.parent?;
        Some(format!("00-{:032x}-{parent:016x}-{:02x}", self.trace_id, u8::from(self.is_sampled)))
    }
}

/// Parses either format. Other members of X-Ray's header, such as `Lineage`, are ignored.
impl FromStr for TraceContext {
    type Err = InvalidTrace;

    fn from_str(text: &str) -> Result<Self, InvalidTrace> {
        let read = if text.contains('=') { from_xray(text) } else { from_traceparent(text) };
        // Zero is not a valid id in either format.
        read.filter(|trace| trace.trace_id != 0 && trace.parent != Some(0)).ok_or(InvalidTrace)
    }
}

fn from_xray(text: &str) -> Option<TraceContext> {
    let (mut trace_id, mut parent, mut is_sampled) = (None, None, false);
    for member in text.split(';') {
        match member.trim().split_once('=')? {
            ("Root", root) => {
                let (time, rest) = root.strip_prefix("1-")?.split_once('-')?;
                let (time, rest) = (hex::<8>(time)?, hex::<24>(rest)?);
                trace_id = Some((time << 96) | rest);
            }
            ("Parent", id) => parent = Some(u64::try_from(hex::<16>(id)?).ok()?),
            ("Sampled", sampled) => is_sampled = sampled == "1",
            _ => {}
        }
    }
    Some(TraceContext { trace_id: trace_id?, parent, is_sampled })
}

fn from_traceparent(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let (version, trace_id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Later versions may have more parts, version 00 may not.
    let is_readable = hex::<2>(version)? != 0xff && (version != "00" || parts.next().is_none());
    let (trace_id, parent, flags) = (hex::<32>(trace_id)?, hex::<16>(parent)?, hex::<2>(flags)?);
    let trace = TraceContext { trace_id, parent: Some(u64::try_from(parent).ok()?), is_sampled: flags & 1 == 1 };
    is_readable.then_some(trace)
}

/// Parses exactly `DIGITS` lowercase hexadecimal digits.
fn hex<const DIGITS: usize>(text: &str) -> Option<u128> {
    let is_hex = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.trace_id();
        let (time, rest) = digits.split_at_checked(8).unwrap_or_default();
        write!(f, "Root=1-{time}-{rest}")?;
        if let Some(parent) = self.parent {
            write!(f, ";Parent={parent:016x}")?;
        }
        write!(f, ";Sampled={}", u8::from(self.is_sampled))
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
