//! The `@connections` API.

use std::time::SystemTime;

use super::super::event::iso_time;
use super::faults::{Occasion, failure};
use super::{Effect, Fault, Machine, Refusal};
use crate::event::ConnectionId;

/// The answer to a `POST` on `@connections`, as far as the rules know it.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Hand the text to the connection's socket; a full buffer is a 429.
    To(ConnectionId, String),
    /// As far as the caller can tell it has arrived.
    Swallowed,
    Refused(Refusal),
    /// A fault: hand the text over, where there is one, and never answer.
    Unanswered(Option<(ConnectionId, String)>),
}

impl Machine {
    /// `POST /<stage>/@connections/<id>`; the size has been checked (MGT-1, MGT-3, MGT-4).
    pub(crate) fn post(&mut self, now: SystemTime, stage: &str, raw_id: &str, text: String) -> Delivery {
        if !self.requests.take(now) {
            return Delivery::Refused(limit_exceeded());
        }
        let fault = self.faults.strike(Occasion::Post, raw_id);
        match fault {
            Some(Fault::PostGone) => return Delivery::Refused(gone()),
            Some(Fault::PostThrottled) => return Delivery::Refused(limit_exceeded()),
            Some(Fault::PostFailed) => return Delivery::Refused(failure()),
            Some(Fault::PostUnanswered) => return Delivery::Unanswered(None),
            _ => {}
        }
        let id = match self.locate(stage, raw_id) {
            Ok(id) => id,
            Err(refusal) => return Delivery::Refused(refusal),
        };
        self.touch(now, &id);
        match (self.send(now, &id, text), fault) {
            (Some(Effect::Send { connection, text }), Some(Fault::PostAnswerLost)) => {
                Delivery::Unanswered(Some((connection, text)))
            }
            (_, Some(Fault::PostAnswerLost)) => Delivery::Unanswered(None),
            (Some(Effect::Send { connection, text }), _) => Delivery::To(connection, text),
            _ => Delivery::Swallowed,
        }
    }

    /// `GET /<stage>/@connections/<id>` (MGT-2).
    pub(crate) fn info(&mut self, now: SystemTime, stage: &str, raw_id: &str) -> Result<String, Refusal> {
        if !self.requests.take(now) {
            return Err(limit_exceeded());
        }
        let id = self.locate(stage, raw_id)?;
        let Some(connection) = self.connections.get(&id) else { return Err(gone()) };
        let info = serde_json::json!({
            "connectedAt": iso_time(connection.origin.connected_at),
            "identity": {
                "sourceIp": connection.origin.source_ip,
                "userAgent": connection.origin.user_agent,
            },
            "lastActiveAt": iso_time(connection.last_active_at),
        });
        Ok(info.to_string())
    }

    /// `DELETE /<stage>/@connections/<id>` (MGT-9).
    pub(crate) fn delete(&mut self, now: SystemTime, stage: &str, raw_id: &str) -> Result<Vec<Effect>, Refusal> {
        if !self.requests.take(now) {
            return Err(limit_exceeded());
        }
        let id = self.locate(stage, raw_id)?;
        let mut effects = vec![Effect::Close { connection: id.clone(), code: 1000, reason: "" }];
        effects.extend(self.remove(now, &id, 1000, "Connection Closed Normally"));
        Ok(effects)
    }

    /// CON-6: a connection that is not open yet is gone too.
    fn locate(&self, stage: &str, raw_id: &str) -> Result<ConnectionId, Refusal> {
        let well_formed = raw_id.len() == 16
            && raw_id
                .strip_suffix('=')
                .is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'));
        let id = ConnectionId::new(raw_id).ok().filter(|_| well_formed).ok_or_else(|| Refusal {
            status: 400,
            error_type: Some("BadRequestException"),
            body: serde_json::json!({"message": format!("Invalid connectionId: {raw_id}")}).to_string(),
        })?;
        match self.connections.get(&id) {
            Some(connection) if connection.pending.is_none() && connection.origin.stage == *stage => Ok(id),
            _ => Err(gone()),
        }
    }
}

/// MGT-7
pub(crate) fn limit_exceeded() -> Refusal {
    let body = r#"{"message":"Limit exceeded"}"#.to_owned();
    Refusal { status: 429, error_type: Some("LimitExceededException"), body }
}

/// MGT-3: 410 with the error's type and an empty body.
pub(crate) fn gone() -> Refusal {
    Refusal { status: 410, error_type: Some("GoneException"), body: String::new() }
}
