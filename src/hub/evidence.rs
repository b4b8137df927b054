//! Decides which 410 responses are believed.
//!
//! A 410 means that a connection is closed, or that the endpoint belongs to another API. If a hub
//! believed the second kind, it would remove every connection. So a 410 counts only from an
//! endpoint that cannot belong to another API: the default endpoint, which names its API; a
//! transport without an address; or an endpoint through which a connection of the same API and
//! stage has been reached. If most responses are 410, none of them is believed.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::Hub;
use crate::event::{ApiId, Stage};
use crate::push::Endpoint;
use crate::registry::{Connection, ConnectionKey};

/// This many 410 responses are always plausible.
const PLAUSIBLE: usize = 20;
/// The maximum number of connections kept until their 410 responses are believed.
const MAX_HELD: usize = 10_000;

/// The responses of one broadcast or sweep.
pub(super) struct Evidence<'a> {
    hub: &'a Hub,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    alive: usize,
    gone: usize,
    /// Connections whose 410 is not believed yet.
    held: Vec<Origin>,
    /// The number of such connections beyond `MAX_HELD`.
    more: usize,
}

impl Answers {
    fn is_plausible(&self) -> bool {
        self.gone <= PLAUSIBLE || self.gone <= self.alive
    }
}

/// A connection with its API and stage.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) key: ConnectionKey,
    api_id: ApiId,
    stage: Stage,
}

impl Origin {
    pub(super) fn new(connection: &Connection) -> Self {
        let (api_id, stage) = (connection.api_id().clone(), connection.stage().clone());
        Self { key: connection.key().clone(), api_id, stage }
    }
}

impl<'a> Evidence<'a> {
    pub(super) fn new(hub: &'a Hub) -> Self {
        Self { hub, answers: Mutex::default() }
    }

    /// Records that a connection was reached. Returns connections whose 410 is now believed.
    pub(super) fn alive(&self, origin: &Origin) -> Vec<ConnectionKey> {
        let is_new = self.hub.prove(&origin.api_id, &origin.stage);
        let mut answers = self.answers();
        let was_plausible = answers.is_plausible();
        answers.alive = answers.alive.saturating_add(1);
        // Held connections are checked again only when something has changed for them.
        match answers.is_plausible() && (is_new || !was_plausible) {
            true => self.believed(&mut answers),
            false => Vec::new(),
        }
    }

    /// Records a 410 for a connection. Returns its key if the 410 is believed.
    pub(super) fn gone(&self, origin: Origin) -> Vec<ConnectionKey> {
        let is_proven = self.hub.is_proven(&origin.api_id, &origin.stage);
        let mut answers = self.answers();
        answers.gone = answers.gone.saturating_add(1);
        if is_proven && answers.is_plausible() {
            return vec![origin.key];
        }
        match answers.held.len() < MAX_HELD {
            true => answers.held.push(origin),
            false => answers.more = answers.more.saturating_add(1),
        }
        Vec::new()
    }

    /// Returns how many 410 responses were not believed, and logs why if there are any.
    pub(super) fn withheld(&self) -> usize {
        let answers = self.answers();
        let withheld = answers.held.len().saturating_add(answers.more);
        if withheld > 0 {
            let (alive, gone) = (answers.alive, answers.gone);
            tracing::warn!(
                withheld,
                alive,
                gone,
                "connections stay registered although API Gateway returned 410 for them: too many of all responses are \
                 410, or no successful call has confirmed that the endpoint belongs to their API"
            );
        }
        withheld
    }

    fn believed(&self, answers: &mut Answers) -> Vec<ConnectionKey> {
        let held = std::mem::take(&mut answers.held);
        let (believed, held): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|origin| self.hub.is_proven(&origin.api_id, &origin.stage));
        answers.held = held;
        believed.into_iter().map(|origin| origin.key).collect()
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The APIs and stages of which a connection has been reached.
pub(super) type Proven = Mutex<BTreeSet<(ApiId, Stage)>>;

impl Hub {
    /// Records that a connection of this API and stage was reached. Returns whether that is new.
    fn prove(&self, api_id: &ApiId, stage: &Stage) -> bool {
        !self.is_proven(api_id, stage)
            && self.parts.proven.lock().unwrap_or_else(PoisonError::into_inner).insert((api_id.clone(), stage.clone()))
    }

    /// Returns whether a 410 for this API and stage means that a connection is closed.
    pub(super) fn is_proven(&self, api_id: &ApiId, stage: &Stage) -> bool {
        let endpoint = self.parts.pushers.of_api(api_id, stage).endpoint().map(Endpoint::is_default);
        endpoint.unwrap_or(true)
            || self
                .parts
                .proven
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .any(|(api, of_api)| api == api_id && of_api == stage)
    }
}
