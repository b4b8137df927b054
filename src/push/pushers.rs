//! Selects the pusher for a connection, if one function serves several APIs or stages.

use super::{Endpoint, PushError, Pusher};
use crate::event::{ApiId, ConnectionId, Stage};

/// A default pusher, and the pushers of further APIs and stages.
#[derive(Debug, Clone)]
pub(crate) struct Pushers {
    default: Pusher,
    others: Vec<(ApiId, Stage, Pusher)>,
}

impl Pushers {
    pub(crate) fn new(default: Pusher) -> Self {
        Self { default, others: Vec::new() }
    }

    pub(crate) fn default(&self) -> &Pusher {
        &self.default
    }

    /// Adds the pusher for a stage of an API.
    pub(crate) fn add(&mut self, api_id: ApiId, stage: Stage, pusher: Pusher) {
        self.others.push((api_id, stage, pusher));
    }

    /// Returns the pusher for a stage of an API, or the default pusher.
    pub(crate) fn of_api(&self, api_id: &ApiId, stage: &Stage) -> &Pusher {
        let own = self.others.iter().find(|(api, of_api, _)| api == api_id && of_api == stage);
        own.map_or(&self.default, |(_, _, pusher)| pusher)
    }

    /// Returns the pusher that reaches connections of this stage of this API.
    ///
    /// The default pusher serves every API and stage, unless its endpoint is known to belong to
    /// another one, where the connection would seem to be gone.
    pub(crate) fn find(
        &self,
        connection_id: &ConnectionId,
        api_id: &ApiId,
        stage: &Stage,
    ) -> Result<&Pusher, PushError> {
        let pusher = self.of_api(api_id, stage);
        match pusher.endpoint().and_then(Endpoint::api) {
            Some((api, of_api)) if api != api_id || of_api != stage => Err(PushError::OtherApi {
                connection_id: connection_id.clone(),
                api_id: api_id.clone(),
                stage: stage.clone(),
            }),
            _ => Ok(pusher),
        }
    }
}
