//! Pushes to the gateway from the same process.

use std::future::pending;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use http::StatusCode;

use super::server::{Answer, Linked, Request};
use crate::event::ConnectionId;
use crate::push::{ConnectionInfo, Endpoint, Payload, Push, PushError};

/// The `@connections` API, called in-process, for the connections of every stage.
#[derive(Debug)]
pub(super) struct InProcess {
    gateway: Arc<OnceLock<Linked>>,
}

impl InProcess {
    pub(super) fn new(gateway: Arc<OnceLock<Linked>>) -> Self {
        Self { gateway }
    }

    async fn call(&self, connection_id: &ConnectionId, size: usize, request: Request) -> Result<Answer, PushError> {
        let gateway = self
            .gateway
            .get()
            .ok_or_else(|| PushError::Unreachable { source: "the gateway has not started".into() })?;
        let Some(answer) = gateway.manage(connection_id, request) else { return pending().await };
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match PushError::from_response(connection_id, size, status, answer.error_type, answer.body.as_bytes()) {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }
}

#[async_trait]
impl Push for InProcess {
    async fn post(&self, connection_id: &ConnectionId, payload: &Payload) -> Result<(), PushError> {
        self.call(connection_id, payload.bytes().len(), Request::Post(payload.bytes().clone())).await.map(drop)
    }

    async fn info(&self, connection_id: &ConnectionId) -> Result<ConnectionInfo, PushError> {
        let answer = self.call(connection_id, 0, Request::Get).await?;
        ConnectionInfo::from_json(answer.body.as_bytes())
            .map_err(|source| PushError::Unreachable { source: Box::new(source) })
    }

    async fn close(&self, connection_id: &ConnectionId) -> Result<(), PushError> {
        self.call(connection_id, 0, Request::Delete).await.map(drop)
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.gateway.get().map(|gateway| &gateway.endpoint)
    }
}
