//! The layout of the table, which only this file knows.
//!
//! | item | `pk` | `sk` |
//! |---|---|---|
//! | connection, or its tombstone | `C#<namespace>#<id>` | `@` |
//! | principal in a group, with its connections there | `G#<namespace>#<shard>#<group>` | `P#<principal>` |
//! | connection without a principal in a group | `G#<namespace>#<shard>#<group>` | `C#<id>` |
//!
//! The index `connections` has `listKey`, `<namespace>#<shard>`, and `listSort`,
//! `<position>#<principal>\t<id>`, so one index lists everyone, a slice, and a principal. Keys are
//! unambiguous, because a namespace contains no `#`, a principal contains no control character, and
//! free text comes last.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::connection::{milliseconds, seconds};
use super::super::slice::position_of;
use super::super::{Connection, ConnectionData, ConnectionKey, Group, Namespace, Principal, RegistryError};
use crate::event::{ApiId, ConnectionId, Stage};

pub(super) type Record = HashMap<String, AttributeValue>;

/// The index of all connections, by `listKey` and `listSort`.
pub(super) const CONNECTIONS: &str = "connections";
/// The non-key attributes of the index.
pub(super) const PROJECTED: [&str; 8] =
    ["apiId", "stage", "domainName", "principal", "connectedAt", "expiresAt", "authorizedUntil", "data"];
/// The number of shards of the index.
///
/// Each shard has the positions with the same first four bits.
pub(super) const INDEX_SHARDS: u16 = 16;
const POSITIONS_OF_A_SHARD: u16 = 256;

/// A connection with its groups.
pub(super) struct Row {
    pub(super) connection: Connection,
    pub(super) groups: BTreeSet<Group>,
}

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// The seconds since 1970, as the time-to-live attribute requires.
pub(super) fn number(time: SystemTime) -> AttributeValue {
    AttributeValue::N(seconds(time).to_string())
}

pub(super) fn millis(time: SystemTime) -> AttributeValue {
    AttributeValue::N(milliseconds(time).to_string())
}

pub(super) fn count(count: u64) -> AttributeValue {
    AttributeValue::N(count.to_string())
}

pub(super) fn set<'g>(groups: impl IntoIterator<Item = &'g Group>) -> AttributeValue {
    AttributeValue::Ss(groups.into_iter().map(ToString::to_string).collect())
}

fn key(pk: String, sk: String) -> Record {
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

pub(super) fn connection_key(of: &ConnectionKey) -> Record {
    key(format!("C#{}#{}", of.namespace(), of.id()), "@".to_owned())
}

/// Returns the key of a principal in a group, or of a connection without a principal.
pub(super) fn member_key(of: &ConnectionKey, principal: Option<&Principal>, group: &Group, shards: u8) -> Record {
    let (name, sk) = match principal {
        Some(principal) => (principal.as_str(), format!("P#{principal}")),
        None => (of.id().as_str(), format!("C#{}", of.id())),
    };
    let shard = position_of(name).checked_rem(u16::from(shards)).unwrap_or_default();
    key(group_partition(of.namespace(), group, shard), sk)
}

pub(super) fn group_partition(namespace: &Namespace, group: &Group, shard: u16) -> String {
    format!("G#{namespace}#{shard}#{group}")
}

pub(super) fn list_key(namespace: &Namespace, shard: u16) -> String {
    format!("{namespace}#{shard:x}")
}

pub(super) fn shard_of(position: u16) -> u16 {
    position.checked_div(POSITIONS_OF_A_SHARD).unwrap_or_default()
}

/// Returns the positions in a shard of the index.
pub(super) fn positions_of(shard: u16) -> std::ops::Range<u16> {
    let start = shard.saturating_mul(POSITIONS_OF_A_SHARD);
    start..start.saturating_add(POSITIONS_OF_A_SHARD)
}

/// Returns the first and last possible sort key of connections at these positions.
pub(super) fn sort_range(positions: std::ops::Range<u16>) -> (String, String) {
    // `$` sorts right after `#`.
    (format!("{:03x}#", positions.start), format!("{:03x}$", positions.end.saturating_sub(1)))
}

/// Returns the shard of a principal's connections, and the prefix of their sort keys.
pub(super) fn principal_prefix(principal: &Principal) -> (u16, String) {
    let position = position_of(principal.as_str());
    (shard_of(position), format!("{position:03x}#{principal}\t"))
}

fn list_place(connection: &Connection) -> (u16, String) {
    let id = connection.id();
    match connection.principal() {
        Some(principal) => {
            let (shard, prefix) = principal_prefix(principal);
            (shard, format!("{prefix}{id}"))
        }
        None => {
            let position = position_of(id.as_str());
            (shard_of(position), format!("{position:03x}#\t{id}"))
        }
    }
}

pub(super) fn of_connection<'g>(connection: &Connection, groups: impl IntoIterator<Item = &'g Group>) -> Record {
    let key = connection.key();
    let mut record = connection_key(key);
    let (shard, sort) = list_place(connection);
    record.extend([
        ("apiId".to_owned(), text(connection.api_id().as_str())),
        ("stage".to_owned(), text(connection.stage().as_str())),
        ("domainName".to_owned(), text(connection.domain_name())),
        ("connectedAt".to_owned(), millis(connection.connected_at())),
        ("expiresAt".to_owned(), number(connection.expires_at())),
        ("listKey".to_owned(), text(list_key(key.namespace(), shard))),
        ("listSort".to_owned(), text(sort)),
    ]);
    if let Some(principal) = connection.principal() {
        record.insert("principal".to_owned(), text(principal.as_str()));
    }
    if let Some(end) = connection.authorization_expires_at() {
        record.insert("authorizedUntil".to_owned(), number(end));
    }
    if let Some(data) = connection.data_json() {
        record.insert("data".to_owned(), text(data));
    }
    let mut groups = groups.into_iter().peekable();
    if groups.peek().is_some() {
        record.insert("groups".to_owned(), set(groups));
    }
    record
}

pub(super) fn is_tombstone(record: &Record) -> bool {
    record.contains_key("isClosed")
}

/// Reads a connection with its groups from its item or tombstone.
///
/// Returns `None` for the tombstone of an unknown connection.
pub(super) fn row(namespace: &Namespace, record: &Record) -> Result<Option<Row>, RegistryError> {
    if !record.contains_key("connectedAt") {
        return Ok(None);
    }
    let groups = match record.get("groups") {
        None => BTreeSet::new(),
        Some(AttributeValue::Ss(names)) => {
            names.iter().map(|name| parse("groups", name, Group::new)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(unreadable("groups", "a string set")),
    };
    Ok(Some(Row { connection: connection(namespace, record)?, groups }))
}

/// Reads a connection from its item, or from the index.
pub(super) fn connection(namespace: &Namespace, record: &Record) -> Result<Connection, RegistryError> {
    let id = string(record, "pk")?.splitn(3, '#').nth(2).ok_or_else(|| unreadable("pk", "a connection's key"))?;
    let connection = Connection::new(
        ConnectionKey::new(namespace.clone(), parse("pk", id, ConnectionId::new)?),
        parse("apiId", string(record, "apiId")?, ApiId::new)?,
        parse("stage", string(record, "stage")?, Stage::new)?,
        string(record, "domainName")?,
        time("connectedAt", Duration::from_millis(integer(record, "connectedAt")?))?,
    );
    let data = record.contains_key("data").then(|| string(record, "data")).transpose()?;
    let connection = connection
        .with_expiry(seconds_of(record, "expiresAt")?)
        .with_authorization_expiry(optional_seconds(record, "authorizedUntil")?)
        .replacing_data(data.map(ConnectionData::from_stored));
    Ok(match record.contains_key("principal") {
        true => connection.with_principal(principal(record)?),
        false => connection,
    })
}

pub(super) fn principal(record: &Record) -> Result<Principal, RegistryError> {
    parse("principal", string(record, "principal")?, Principal::new)
}

pub(super) fn integer(record: &Record, attribute: &'static str) -> Result<u64, RegistryError> {
    let number = record.get(attribute).and_then(|value| value.as_n().ok()).and_then(|number| number.parse().ok());
    number.ok_or_else(|| unreadable(attribute, "a non-negative integer"))
}

/// Reads a time that is stored in seconds since 1970.
pub(super) fn seconds_of(record: &Record, attribute: &'static str) -> Result<SystemTime, RegistryError> {
    time(attribute, Duration::from_secs(integer(record, attribute)?))
}

pub(super) fn optional_seconds(record: &Record, attribute: &'static str) -> Result<Option<SystemTime>, RegistryError> {
    record.contains_key(attribute).then(|| seconds_of(record, attribute)).transpose()
}

pub(super) fn string<'a>(record: &'a Record, attribute: &'static str) -> Result<&'a str, RegistryError> {
    let text = record.get(attribute).and_then(|value| value.as_s().ok());
    text.map(String::as_str).ok_or_else(|| unreadable(attribute, "a text"))
}

pub(super) fn time(attribute: &'static str, since_1970: Duration) -> Result<SystemTime, RegistryError> {
    UNIX_EPOCH.checked_add(since_1970).ok_or_else(|| unreadable(attribute, "a time within the range of `SystemTime`"))
}

pub(super) fn parse<'a, T, E: std::fmt::Display>(
    attribute: &'static str,
    text: &'a str,
    parse: impl Fn(&'a str) -> Result<T, E>,
) -> Result<T, RegistryError> {
    parse(text).map_err(|error| RegistryError::Unreadable { problem: format!("`{attribute}`: {error}") })
}

pub(super) fn unreadable(attribute: &'static str, expected: &'static str) -> RegistryError {
    RegistryError::Unreadable { problem: format!("`{attribute}`: expected {expected}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic fails the test")]
mod tests;
