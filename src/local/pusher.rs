//! Pushing into the gateway from the same process.

use std::future::pending;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use http::StatusCode;

use super::server::{Answer, Managed, Server};
use crate::event::ConnectionId;
use crate::push::{ConnectionInfo, Payload, Push, PushError};

/// The `@connections` API, called as a function.
#[derive(Debug)]
pub(super) struct InProcess {
    server: Arc<OnceLock<Server>>,
    stage: String,
}

impl InProcess {
    pub(super) fn new(server: Arc<OnceLock<Server>>, stage: String) -> Self {
        Self { server, stage }
    }

    async fn call(&self, connection_id: &ConnectionId, size: usize, managed: Managed) -> Result<Answer, PushError> {
        let server =
            self.server.get().ok_or_else(|| PushError::Unreachable { source: "the gateway has not started".into() })?;
        let Some(answer) = server.manage(&self.stage, connection_id.as_str(), managed) else { return pending().await };
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match PushError::of_answer(connection_id, size, status, answer.error_type, answer.body.as_bytes()) {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }
}

#[async_trait]
impl Push for InProcess {
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        self.call(connection_id, payload.bytes().len(), Managed::Post(payload.bytes().clone())).await.map(drop)
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        let answer = self.call(connection_id, 0, Managed::Get).await?;
        ConnectionInfo::from_json(answer.body.as_bytes())
            .map_err(|source| PushError::Unreachable { source: Box::new(source) })
    }

    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.call(connection_id, 0, Managed::Delete).await.map(drop)
    }
}
