//! The lifetime of a connection, and how it ends.

use std::time::SystemTime;

use super::faults::{Late, Occasion};
use super::{Api, Connection, Due, Effect, Fault, Integration, Machine, Purpose};
use crate::event::{ConnectionId, RequestId, RouteKey};
use crate::local::timeline::EntryKind;

impl Machine {
    /// Returns the open connections, sorted by id.
    ///
    /// The order in which connections are closed determines their request ids, and must be the same
    /// for the same seed.
    pub(in super::super) fn open_connections(&self) -> Vec<ConnectionId> {
        let open = self.connections.iter().filter(|(_, connection)| connection.pending.is_none());
        let mut open: Vec<ConnectionId> = open.map(|(id, _)| id.clone()).collect();
        open.sort_unstable();
        open
    }

    /// Closes the connection of a client that broke a rule (LIM-1, LIM-2).
    pub(super) fn violation(
        &mut self,
        now: SystemTime,
        id: &ConnectionId,
        code: u16,
        reason: &'static str,
    ) -> Vec<Effect> {
        match self.is_half_open(id) || !self.is_open(id) {
            true => Vec::new(),
            false => self.close(now, id, code, reason),
        }
    }

    /// Handles a socket that the client closed or that was lost (EVT-15).
    pub(super) fn closed(&mut self, now: SystemTime, id: &ConnectionId, code: u16, reason: &str) -> Vec<Effect> {
        if self.is_half_open(id) {
            // Unnoticed until the fault is cleared. A handshake has nothing to lose yet.
            if let Some(connection) = self.connections.get_mut(id).filter(|connection| connection.pending.is_none()) {
                connection.is_lost = true;
            }
            return Vec::new();
        }
        match self.is_open(id) {
            true => self.remove(now, id, code, reason, false),
            false => Vec::new(),
        }
    }

    /// Handles a client that left during the handshake.
    ///
    /// Until `$connect` has responded, there is nothing to close: the client will not receive the
    /// verdict.
    pub(super) fn never_opened(&mut self, now: SystemTime, id: &ConnectionId) -> Vec<Effect> {
        match self.is_open(id) {
            true => self.close(now, id, 1006, ""),
            false => Vec::new(),
        }
    }

    pub(super) fn remove(
        &mut self,
        now: SystemTime,
        id: &ConnectionId,
        code: u16,
        reason: &str,
        by_gateway: bool,
    ) -> Vec<Effect> {
        let Some(connection) = self.connections.remove(id) else { return Vec::new() };
        self.note(id, EntryKind::Closed { code, reason: reason.to_owned(), by_gateway });
        if let Some(due) = connection.due {
            self.due.remove(&(due, Due::Connection(id.clone())));
        }
        let fault = self.strike(Occasion::Disconnect, id.as_str());
        self.faults.forget(id);
        let Some(Integration { function, timeout, .. }) = self.api.routes.get(RouteKey::DISCONNECT).copied() else {
            return Vec::new();
        };
        let request_id: RequestId = self.id();
        let payload = self.parts(&connection, &request_id, now).disconnect(code, reason);
        match fault {
            // DIS-1
            Some(Fault::DisconnectLost) => Vec::new(),
            Some(Fault::DisconnectLate(delay)) => {
                self.later(now, delay, id, Late::Disconnect { request_id, function, payload, timeout });
                Vec::new()
            }
            _ => self.invoke(now, id, &request_id, Purpose::Disconnect, function, payload, timeout),
        }
    }

    /// Closes a connection from the gateway's side.
    pub(super) fn close(&mut self, now: SystemTime, id: &ConnectionId, code: u16, reason: &'static str) -> Vec<Effect> {
        if !self.connections.contains_key(id) {
            return Vec::new();
        }
        let mut effects = vec![Effect::Close { connection: id.clone(), code, reason }];
        effects.extend(self.remove(now, id, code, reason, true));
        effects
    }

    /// Refuses pending and new clients, and closes every open connection.
    pub(super) fn drain(&mut self, now: SystemTime) -> Vec<Effect> {
        self.is_draining = true;
        let mut pending: Vec<ConnectionId> = self.connections.keys().cloned().collect();
        let open = self.open_connections();
        pending.retain(|id| !self.is_open(id));
        pending.sort_unstable();
        let mut effects = Vec::new();
        for id in pending {
            effects.extend(self.refuse(&id, 503, None, "Service Unavailable", "the gateway shuts down"));
        }
        for id in open {
            effects.extend(self.close(now, &id, 1001, "Going away"));
        }
        effects
    }

    /// Lets time pass: calls time out, and connections become idle or old.
    pub(super) fn tick(&mut self, now: SystemTime) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.next_due().is_some_and(|time| time <= now) {
            match self.due.pop_first() {
                Some((_, Due::Call(call))) => effects.extend(self.timed_out(now, call)),
                Some((_, Due::Connection(id))) => effects.extend(self.expired(now, id)),
                Some((_, Due::Late(number))) => effects.extend(self.at_last(now, number)),
                None => break,
            }
        }
        effects
    }

    /// Closes a connection after ten idle minutes or two hours (LIM-3).
    fn expired(&mut self, now: SystemTime, id: ConnectionId) -> Vec<Effect> {
        let Some(connection) = self.connections.get(&id) else { return Vec::new() };
        if connection_due(&self.api, connection) <= now {
            return self.close(now, &id, 1001, "Going away");
        }
        self.schedule(id);
        Vec::new()
    }

    /// Schedules when an open connection will have been idle for too long or be too old.
    pub(super) fn schedule(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let due = connection_due(&self.api, connection);
        connection.due = Some(due);
        self.due.insert((due, Due::Connection(id)));
    }

    pub(super) fn is_open(&self, id: &ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|connection| connection.pending.is_none())
    }

    /// Resets the idle time after a data frame in either direction.
    ///
    /// Returns whether the connection is open.
    pub(super) fn touch(&mut self, now: SystemTime, id: &ConnectionId) -> bool {
        match self.connections.get_mut(id).filter(|connection| connection.pending.is_none()) {
            Some(connection) => {
                connection.last_active_at = now;
                true
            }
            None => false,
        }
    }
}

fn connection_due(api: &Api, connection: &Connection) -> SystemTime {
    let idle = connection.last_active_at.checked_add(api.idle_timeout);
    let old = connection.origin.connected_at.checked_add(api.lifetime);
    match (idle, old) {
        (Some(idle), Some(old)) => idle.min(old),
        (one, other) => one.or(other).unwrap_or(connection.last_active_at),
    }
}
