//! Reads jobs from the events of SQS, SNS, and EventBridge.

use aws_lambda_events::sns::SnsEvent;
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use serde::Deserialize;
use serde_json::Value;

use super::UnfinishedJob;
use crate::event::TraceContext;
use crate::reply::Job;

/// The message attribute that contains the address if the body is the job alone.
const REPLY_TO: &str = "replyTo";

/// The attribute in which SQS counts deliveries.
const RECEIVE_COUNT: &str = "ApproximateReceiveCount";

/// The attribute in which SQS propagates the sender's trace.
const TRACE: &str = "AWSTraceHeader";

/// The messages of one event.
pub(super) struct Incoming {
    /// Whether the source accepts a partial batch response.
    pub(super) is_sqs: bool,
    pub(super) messages: Vec<Delivered>,
}

/// One message.
pub(super) struct Delivered {
    pub(super) message_id: String,
    /// The message group id, if the message comes from a FIFO queue.
    pub(super) group: Option<String>,
    /// The number of deliveries, if the source counts them.
    pub(super) receive_count: Option<u32>,
    /// The trace named by the source.
    pub(super) trace: Option<TraceContext>,
    reply_to: Option<String>,
    body: String,
}

impl Incoming {
    pub(super) fn read(event: Value) -> Result<Self, UnfinishedJob> {
        let source = event.pointer("/Records/0").and_then(|record| {
            let source = record.get("eventSource").or_else(|| record.get("EventSource"))?;
            source.as_str().map(str::to_owned)
        });
        let unreadable = |_| UnfinishedJob::Event;
        match source.as_deref() {
            Some("aws:sqs") => {
                let event: SqsEvent = serde_json::from_value(event).map_err(unreadable)?;
                let messages = event.records.into_iter().map(|mut record| Delivered {
                    // Messages of a standard queue may have groups too, which do not imply an
                    // order.
                    group: match is_fifo(&record) {
                        true => record.attributes.remove("MessageGroupId"),
                        false => None,
                    },
                    message_id: record.message_id.unwrap_or_default(),
                    receive_count: record.attributes.get(RECEIVE_COUNT).and_then(|count| count.parse().ok()),
                    trace: record.attributes.get(TRACE).and_then(|trace| trace.parse().ok()),
                    reply_to: record.message_attributes.remove(REPLY_TO).and_then(|attribute| attribute.string_value),
                    body: record.body.unwrap_or_default(),
                });
                Ok(Self { is_sqs: true, messages: messages.collect() })
            }
            Some("aws:sns") => {
                let event: SnsEvent = serde_json::from_value(event).map_err(unreadable)?;
                let messages = event.records.into_iter().map(|mut record| Delivered {
                    message_id: record.sns.message_id,
                    group: None,
                    receive_count: None,
                    trace: None,
                    reply_to: record.sns.message_attributes.remove(REPLY_TO).map(|attribute| attribute.value),
                    body: record.sns.message,
                });
                Ok(Self { is_sqs: false, messages: messages.collect() })
            }
            None if event.get("detail-type").is_some() => {
                let message_id = event.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
                // An event that comes through SQS is unwrapped in the same way.
                let body = event.to_string();
                let message =
                    Delivered { message_id, group: None, receive_count: None, trace: None, reply_to: None, body };
                Ok(Self { is_sqs: false, messages: vec![message] })
            }
            _ => Err(UnfinishedJob::Event),
        }
    }
}

/// Returns whether a message comes from a FIFO queue.
fn is_fifo(record: &SqsMessage) -> bool {
    record.event_source_arn.as_deref().is_some_and(|arn| arn.ends_with(".fifo"))
        || record.attributes.contains_key("SequenceNumber")
}

/// The envelope that SNS puts around a message delivered through SQS.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Notification {
    message: String,
    #[serde(default)]
    message_attributes: std::collections::BTreeMap<String, Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    value: String,
}

impl Delivered {
    /// Returns the job and its address, or the expected form if there is no job.
    pub(super) fn job(self) -> Result<Job, &'static str> {
        let Self { reply_to, body, .. } = self;
        if let Some(reply_to) = reply_to {
            return Ok(Job::from_parts(reply_to.into(), body));
        }
        let value: Value = serde_json::from_str(&body).map_err(|_| "JSON")?;
        // An object with these members is an envelope, since a `Job` has neither.
        if value.get("Type").and_then(Value::as_str) == Some("Notification") {
            let notification = serde_json::from_value(value).map_err(|_| "a notification of SNS")?;
            let Notification { message, mut message_attributes } = notification;
            let reply_to = message_attributes.remove(REPLY_TO).map(|attribute| attribute.value);
            let message_id = String::new();
            return Self { message_id, group: None, receive_count: None, trace: None, reply_to, body: message }.job();
        }
        let value = match value {
            Value::Object(mut members) if members.contains_key("detail-type") => {
                members.remove("detail").ok_or("an event with a `detail`")?
            }
            other => other,
        };
        serde_json::from_value(value).map_err(|_| "`replyTo` and `job`, both strings")
    }
}
