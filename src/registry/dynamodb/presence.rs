//! A principal in a group: an item with the principal's connections there.
//!
//! `version` orders the changes of the item, and every transaction that changes it checks that it
//! is still the version that was read. `members` has an entry for each connection: `api`, `stage`,
//! `host`, `at` (opened, in milliseconds), `until` (expires, in seconds), `authorized` (until when,
//! in seconds), and `data`. Expired entries do not count, and the next change removes them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::connection::{milliseconds, seconds};
use super::super::{Connection, ConnectionData, ConnectionKey, Group, Namespace, RegistryError};
use super::item::{self, Record, count, millis, number, text};
use crate::event::{ApiId, ConnectionId, Stage};

/// A principal in a group, as stored in the table.
pub(super) struct Presence {
    pub(super) version: u64,
    /// When the entry of each connection expires, in seconds since 1970.
    members: BTreeMap<String, u64>,
}

impl Presence {
    pub(super) fn read(record: &Record) -> Result<Self, RegistryError> {
        let members = entries(record)?.iter();
        let members = members.map(|(id, entry)| Ok((id.clone(), item::integer(fields(entry)?, "until")?)));
        Ok(Self { version: item::integer(record, "version")?, members: members.collect::<Result<_, _>>()? })
    }

    pub(super) fn has(&self, id: &ConnectionId, now: SystemTime) -> bool {
        self.members.get(id.as_str()).is_some_and(|until| *until > seconds(now))
    }

    /// Returns whether the principal has other connections in the group.
    pub(super) fn has_others(&self, id: &ConnectionId, now: SystemTime) -> bool {
        self.members.iter().any(|(other, until)| other != id.as_str() && *until > seconds(now))
    }

    /// Returns the ids of expired entries.
    pub(super) fn expired(&self, now: SystemTime) -> impl Iterator<Item = &str> {
        let now = seconds(now);
        self.members.iter().filter(move |(_, until)| **until <= now).map(|(id, _)| id.as_str())
    }

    /// Returns the ids of entries that have not expired.
    pub(super) fn living(&self, now: SystemTime) -> impl Iterator<Item = &str> {
        let now = seconds(now);
        self.members.iter().filter(move |(_, until)| **until > now).map(|(id, _)| id.as_str())
    }

    /// Returns when the item expires with this connection in it.
    pub(super) fn expiry_with(&self, connection: &Connection) -> u64 {
        self.members.values().copied().fold(seconds(connection.expires_at()), u64::max)
    }
}

/// Returns the version of a change now.
///
/// It is higher than the item's version, and than that of an item that was deleted earlier.
pub(super) fn next_version(before: Option<u64>, now: SystemTime) -> u64 {
    before.map_or(0, |before| before.saturating_add(1)).max(milliseconds(now))
}

/// Returns the item of a principal whose only connection in the group is this one.
pub(super) fn of_first(connection: &Connection, group: &Group, shards: u8, version: u64) -> Record {
    let mut record = item::member_key(connection.key(), connection.principal(), group, shards);
    record.extend([
        ("version".to_owned(), count(version)),
        ("expiresAt".to_owned(), number(connection.expires_at())),
        (
            "members".to_owned(),
            AttributeValue::M(HashMap::from([(connection.id().to_string(), AttributeValue::M(entry(connection)))])),
        ),
    ]);
    if let Some(principal) = connection.principal() {
        record.insert("principal".to_owned(), text(principal.as_str()));
    }
    record
}

pub(super) fn entry(connection: &Connection) -> Record {
    let mut entry = HashMap::from([
        ("api".to_owned(), text(connection.api_id().as_str())),
        ("stage".to_owned(), text(connection.stage().as_str())),
        ("host".to_owned(), text(connection.domain_name())),
        ("at".to_owned(), millis(connection.connected_at())),
        ("until".to_owned(), number(connection.expires_at())),
    ]);
    if let Some(end) = connection.authorization_expires_at() {
        entry.insert("authorized".to_owned(), number(end));
    }
    if let Some(data) = connection.data_json() {
        entry.insert("data".to_owned(), text(data));
    }
    entry
}

/// Returns the connections of an item that have not expired.
pub(super) fn connections(
    namespace: &Namespace,
    record: &Record,
    now: SystemTime,
) -> Result<Vec<Connection>, RegistryError> {
    let principal = record.contains_key("principal").then(|| item::principal(record)).transpose()?;
    let mut connections = Vec::new();
    for (id, entry) in entries(record)? {
        let entry = fields(entry)?;
        let until = item::integer(entry, "until")?;
        if until <= seconds(now) {
            continue;
        }
        let connection = Connection::new(
            ConnectionKey::new(namespace.clone(), item::parse("members", id, ConnectionId::new)?),
            item::parse("api", item::string(entry, "api")?, ApiId::new)?,
            item::parse("stage", item::string(entry, "stage")?, Stage::new)?,
            item::string(entry, "host")?,
            item::time("at", Duration::from_millis(item::integer(entry, "at")?))?,
        );
        let data = entry.contains_key("data").then(|| item::string(entry, "data")).transpose()?;
        let connection = connection
            .with_expiry(item::time("until", Duration::from_secs(until))?)
            .with_authorization_expiry(item::optional_seconds(entry, "authorized")?)
            .replacing_data(data.map(ConnectionData::from_stored));
        connections.push(match &principal {
            Some(principal) => connection.with_principal(principal.clone()),
            None => connection,
        });
    }
    Ok(connections)
}

fn entries(record: &Record) -> Result<&Record, RegistryError> {
    let members = record.get("members").and_then(|members| members.as_m().ok());
    members.ok_or_else(|| item::unreadable("members", "a map"))
}

fn fields(entry: &AttributeValue) -> Result<&Record, RegistryError> {
    entry.as_m().map_err(|_| item::unreadable("members", "maps in a map"))
}
