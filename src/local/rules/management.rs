//! The `@connections` API.

use std::time::SystemTime;

use super::super::payload::iso_time;
use super::faults::{Occasion, failure};
use super::{Connection, Effect, Fault, Machine, Refusal};
use crate::event::ConnectionId;
use crate::local::timeline::Origin;

/// The response to a `POST` on `@connections`, as far as the rules know it.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Pass the message to the connection's socket; a full buffer is a 429.
    To(ConnectionId, String),
    /// A fault: pass the message twice.
    Twice(ConnectionId, String),
    /// Respond with success, but send nothing now.
    Swallowed,
    Refused(Refusal),
    /// A fault: pass the message if there is one, and never respond.
    Unanswered(Option<(ConnectionId, String)>),
}

impl Machine {
    /// Handles `POST /<stage>/@connections/<id>` (MGT-1, MGT-3, MGT-4).
    ///
    /// The size of the payload has been checked.
    pub(super) fn post(&mut self, now: SystemTime, stage: Option<&str>, raw_id: &str, text: String) -> Delivery {
        if !self.requests.take(now) {
            return Delivery::Refused(limit_exceeded());
        }
        let fault = self.strike(Occasion::Post, raw_id);
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
        let again = (fault == Some(Fault::PostDuplicated)).then(|| text.clone());
        let again = again.and_then(|text| self.send(now, &id, text, Origin::Push));
        match (self.send(now, &id, text, Origin::Push), fault) {
            (Some(Effect::Send { connection, text }), Some(Fault::PostDuplicated)) if again.is_some() => {
                Delivery::Twice(connection, text)
            }
            (Some(Effect::Send { connection, text }), Some(Fault::PostAnswerLost)) => {
                Delivery::Unanswered(Some((connection, text)))
            }
            (_, Some(Fault::PostAnswerLost)) => Delivery::Unanswered(None),
            (Some(Effect::Send { connection, text }), _) => Delivery::To(connection, text),
            _ => Delivery::Swallowed,
        }
    }

    /// Handles `GET /<stage>/@connections/<id>` (MGT-2).
    ///
    /// Returns `None` if a fault suppresses the response.
    pub(super) fn info(
        &mut self,
        now: SystemTime,
        stage: Option<&str>,
        raw_id: &str,
    ) -> Result<Option<String>, Refusal> {
        if !self.requests.take(now) {
            return Err(limit_exceeded());
        }
        match self.strike(Occasion::Get, raw_id) {
            Some(Fault::GetGone) => return Err(gone()),
            Some(Fault::GetThrottled) => return Err(limit_exceeded()),
            Some(Fault::GetFailed) => return Err(failure()),
            Some(Fault::GetUnanswered) => return Ok(None),
            _ => {}
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
        Ok(Some(info.to_string()))
    }

    /// Handles `DELETE /<stage>/@connections/<id>` (MGT-9).
    ///
    /// Returns whether the call gets a response, and the effects.
    pub(super) fn delete(
        &mut self,
        now: SystemTime,
        stage: Option<&str>,
        raw_id: &str,
    ) -> Result<(bool, Vec<Effect>), Refusal> {
        if !self.requests.take(now) {
            return Err(limit_exceeded());
        }
        let fault = self.strike(Occasion::Delete, raw_id);
        match fault {
            Some(Fault::DeleteGone) => return Err(gone()),
            Some(Fault::DeleteThrottled) => return Err(limit_exceeded()),
            Some(Fault::DeleteFailed) => return Err(failure()),
            Some(Fault::DeleteUnanswered) => return Ok((false, Vec::new())),
            _ => {}
        }
        let id = self.locate(stage, raw_id)?;
        let mut effects = vec![Effect::Close { connection: id.clone(), code: 1000, reason: "" }];
        effects.extend(self.remove(now, &id, 1000, "Connection Closed Normally", true));
        Ok((fault != Some(Fault::DeleteAnswerLost), effects))
    }

    /// Finds an open connection, in all stages if none is given.
    ///
    /// CON-6: a connection that is not open yet is a 410 as well.
    fn locate(&self, stage: Option<&str>, raw_id: &str) -> Result<ConnectionId, Refusal> {
        let well_formed = raw_id.len() == 16
            && raw_id
                .strip_suffix('=')
                .is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'));
        let id = ConnectionId::new(raw_id).ok().filter(|_| well_formed).ok_or_else(|| Refusal {
            status: 400,
            error_type: Some("BadRequestException"),
            body: serde_json::json!({"message": format!("Invalid connectionId: {raw_id}")}).to_string(),
        })?;
        let is_there = |stage: &str, connection: &Connection| connection.origin.stage == *stage;
        match self.connections.get(&id).filter(|connection| connection.pending.is_none()) {
            Some(connection) if stage.is_none_or(|stage| is_there(stage, connection)) => Ok(id),
            _ => Err(gone()),
        }
    }
}

/// MGT-6
pub(crate) fn too_large() -> Refusal {
    let body = r#"{"message":"Payload too large"}"#.to_owned();
    Refusal { status: 413, error_type: Some("PayloadTooLargeException"), body }
}

/// MGT-7
pub(crate) fn limit_exceeded() -> Refusal {
    let body = r#"{"message":"Limit exceeded"}"#.to_owned();
    Refusal { status: 429, error_type: Some("LimitExceededException"), body }
}

/// MGT-3: 410 with the error type and an empty body.
pub(crate) fn gone() -> Refusal {
    Refusal { status: 410, error_type: Some("GoneException"), body: String::new() }
}
