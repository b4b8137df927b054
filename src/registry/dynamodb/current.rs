//! The state on which a change is based: a connection, and its principal in groups.

use std::collections::BTreeMap;

use super::super::connection::seconds;
use super::super::{Connection, ConnectionKey, Group, RegistryError};
use super::DynamoDb;
use super::item::{self, Record, Row};
use super::presence::Presence;
use crate::retry::Span;

/// A registered connection, with the presences of its principal in the groups of a call.
pub(super) struct Current {
    pub(super) row: Row,
    pub(super) presences: BTreeMap<Group, Presence>,
}

/// The state of a connection in the table.
pub(super) enum Known {
    /// There is no item, or it has expired.
    Nothing,
    /// The connection was removed.
    Tombstone,
    Registered(Box<Current>),
}

impl DynamoDb {
    /// Reads a connection, and the presences of its principal in these groups.
    ///
    /// This takes one round trip if the key has the principal or there is none, otherwise two.
    pub(super) async fn current(
        &self,
        key: &ConnectionKey,
        groups: &[Group],
        span: Span,
    ) -> Result<Known, RegistryError> {
        let names: BTreeMap<(String, String), &Group> = groups
            .iter()
            .map(|group| Ok((name(&self.member_key(key, key.principal(), group))?, group)))
            .collect::<Result<_, RegistryError>>()?;
        let own_name = name(&item::connection_key(key))?;
        let mut keys = vec![item::connection_key(key)];
        keys.extend(groups.iter().map(|group| self.member_key(key, key.principal(), group)));
        let (mut own, mut presences) = (None, BTreeMap::new());
        for record in self.read(span, keys).await? {
            match names.get(&name(&record)?) {
                Some(group) => drop(presences.insert((*group).clone(), Presence::read(&record)?)),
                None if name(&record)? == own_name => own = Some(record),
                None => {}
            }
        }
        let now = self.now();
        let Some(own) = own else { return Ok(Known::Nothing) };
        if item::integer(&own, "expiresAt")? <= seconds(now) {
            return Ok(Known::Nothing);
        }
        if item::is_tombstone(&own) {
            let bars = item::integer(&own, "returnsAt")? > seconds(now);
            return Ok(if bars { Known::Tombstone } else { Known::Nothing });
        }
        let Some(row) = item::row(key.namespace(), &own)? else { return Ok(Known::Nothing) };
        if row.connection.principal() == key.principal() || groups.is_empty() {
            return Ok(Known::Registered(Box::new(Current { row, presences })));
        }
        // The key does not have the principal.
        let presences = self.presences(&row.connection, groups, span).await?;
        Ok(Known::Registered(Box::new(Current { row, presences })))
    }

    /// Reads the presences of a connection's principal in these groups, at most a hundred.
    pub(super) async fn presences(
        &self,
        connection: &Connection,
        groups: &[Group],
        span: Span,
    ) -> Result<BTreeMap<Group, Presence>, RegistryError> {
        let key = |group| self.member_key(connection.key(), connection.principal(), group);
        let names: BTreeMap<(String, String), &Group> =
            groups.iter().map(|group| Ok((name(&key(group))?, group))).collect::<Result<_, RegistryError>>()?;
        let mut presences = BTreeMap::new();
        for record in self.read(span, groups.iter().map(key).collect()).await? {
            if let Some(group) = names.get(&name(&record)?) {
                presences.insert((*group).clone(), Presence::read(&record)?);
            }
        }
        Ok(presences)
    }
}

/// Returns the key of an item in a form that can be compared.
pub(super) fn name(record: &Record) -> Result<(String, String), RegistryError> {
    Ok((item::string(record, "pk")?.to_owned(), item::string(record, "sk")?.to_owned()))
}
