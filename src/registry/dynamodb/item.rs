//! What is in the table, and under which keys. The only file that knows.
//!
//! | item | `pk` | `sk` |
//! |---|---|---|
//! | connection, or its grave | `C#<namespace>#<id>` | `@` |
//! | connection in a group | `G#<namespace>#<shard of its id>#<group>` | `C#<id>` |
//! | principal in a group | `G#<namespace>#<shard of its name>#<group>` | `P#<principal>` |
//!
//! A namespace contains no `#`, and what is free text comes last, so that no two of them are the same.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::connection::{milliseconds, seconds};
use super::super::{Connection, ConnectionKey, Group, Namespace, Principal, RegistryError};
use crate::event::{ApiId, ConnectionId, Stage};

pub(super) type Record = HashMap<String, AttributeValue>;

/// The index of a principal's connections, by `principalKey` and `id`.
pub(super) const PRINCIPALS: &str = "principals";
/// The index of all connections, by `everyoneKey` and `id`.
pub(super) const EVERYONE: &str = "everyone";
/// What the indexes show beside keys.
pub(super) const SHOWN: [&str; 7] = ["apiId", "stage", "domainName", "principal", "connectedAt", "expiresAt", "data"];

/// A connection with its groups.
pub(super) struct Row {
    pub(super) connection: Connection,
    pub(super) groups: BTreeSet<Group>,
}

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// Seconds since 1970, as the time-to-live attribute wants it.
pub(super) fn number(time: SystemTime) -> AttributeValue {
    AttributeValue::N(seconds(time).to_string())
}

pub(super) fn millis(time: SystemTime) -> AttributeValue {
    AttributeValue::N(milliseconds(time).to_string())
}

pub(super) fn count(count: u64) -> AttributeValue {
    AttributeValue::N(count.to_string())
}

fn key(pk: String, sk: String) -> Record {
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

pub(super) fn connection_key(of: &ConnectionKey) -> Record {
    key(format!("C#{}#{}", of.namespace(), of.id()), "@".to_owned())
}

pub(super) fn member_key(namespace: &Namespace, group: &Group, id: &ConnectionId, spread: u8) -> Record {
    key(group_partition(namespace, group, shard(id.as_str(), spread)), format!("C#{id}"))
}

pub(super) fn presence_key(namespace: &Namespace, group: &Group, principal: &Principal, spread: u8) -> Record {
    key(group_partition(namespace, group, shard(principal.as_str(), spread)), format!("P#{principal}"))
}

pub(super) fn group_partition(namespace: &Namespace, group: &Group, shard: u8) -> String {
    format!("G#{namespace}#{shard}#{group}")
}

pub(super) fn everyone_key(namespace: &Namespace, shard: u8) -> String {
    format!("{namespace}#{shard}")
}

pub(super) fn principal_key(namespace: &Namespace, principal: &Principal) -> String {
    format!("{namespace}#{principal}")
}

/// Which of so many partitions it is in. It must never come out differently, or what was written is not found.
pub(super) fn shard(name: &str, spread: u8) -> u8 {
    let hash = name.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    u8::try_from(hash.checked_rem(u32::from(spread)).unwrap_or_default()).unwrap_or_default()
}

fn shown(connection: &Connection) -> Record {
    let mut record = HashMap::from([
        ("id".to_owned(), text(connection.id().as_str())),
        ("apiId".to_owned(), text(connection.api_id().as_str())),
        ("stage".to_owned(), text(connection.stage().as_str())),
        ("domainName".to_owned(), text(connection.domain_name())),
        ("connectedAt".to_owned(), millis(connection.connected_at())),
        ("expiresAt".to_owned(), number(connection.expires_at())),
    ]);
    if let Some(principal) = connection.principal() {
        record.insert("principal".to_owned(), text(principal.as_str()));
    }
    if let Some(data) = connection.data_json() {
        record.insert("data".to_owned(), text(data));
    }
    record
}

pub(super) fn of_connection(connection: &Connection, spread: u8) -> Record {
    let namespace = connection.key().namespace();
    let mut record = shown(connection);
    record.extend(connection_key(connection.key()));
    record.insert("seenAt".to_owned(), millis(connection.connected_at()));
    let everyone = everyone_key(namespace, shard(connection.id().as_str(), spread));
    record.insert("everyoneKey".to_owned(), text(everyone));
    if let Some(principal) = connection.principal() {
        record.insert("principalKey".to_owned(), text(principal_key(namespace, principal)));
    }
    record
}

/// The copy of a connection in a group.
pub(super) fn of_member(connection: &Connection, group: &Group, spread: u8) -> Record {
    let mut record = shown(connection);
    record.extend(member_key(connection.key().namespace(), group, connection.id(), spread));
    record
}

pub(super) fn of_presence(connection: &Connection, group: &Group, principal: &Principal, spread: u8) -> Record {
    let mut record = presence_key(connection.key().namespace(), group, principal, spread);
    record.insert("principal".to_owned(), text(principal.as_str()));
    record.insert("connections".to_owned(), count(1));
    record.insert("expiresAt".to_owned(), number(connection.expires_at()));
    record
}

pub(super) fn grave(key: &ConnectionKey, until: SystemTime) -> Record {
    let mut record = connection_key(key);
    record.insert("isClosed".to_owned(), AttributeValue::Bool(true));
    record.insert("expiresAt".to_owned(), number(until));
    record
}

pub(super) fn is_grave(record: &Record) -> bool {
    record.contains_key("isClosed")
}

/// What an item says of a connection; `None` for a grave.
pub(super) fn row(namespace: &Namespace, record: &Record) -> Result<Option<Row>, RegistryError> {
    if is_grave(record) {
        return Ok(None);
    }
    let groups = match record.get("groups") {
        None => BTreeSet::new(),
        Some(AttributeValue::Ss(names)) => {
            names.iter().map(|name| parse("groups", name, Group::new)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(unreadable("groups", "a set of texts")),
    };
    Ok(Some(Row { connection: connection(namespace, record)?, groups }))
}

pub(super) fn connection(namespace: &Namespace, record: &Record) -> Result<Connection, RegistryError> {
    let id = parse("id", string(record, "id")?, ConnectionId::new)?;
    let connection = Connection::new(
        ConnectionKey::new(namespace.clone(), id),
        parse("apiId", string(record, "apiId")?, ApiId::new)?,
        parse("stage", string(record, "stage")?, Stage::new)?,
        string(record, "domainName")?,
        time("connectedAt", Duration::from_millis(integer(record, "connectedAt")?))?,
    );
    let data = record.contains_key("data").then(|| string(record, "data")).transpose()?;
    let connection = connection
        .with_expiry(time("expiresAt", Duration::from_secs(integer(record, "expiresAt")?))?)
        .with_json(data.map(str::to_owned));
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
    number.ok_or_else(|| unreadable(attribute, "a number that is no fraction and not negative"))
}

pub(super) fn string<'a>(record: &'a Record, attribute: &'static str) -> Result<&'a str, RegistryError> {
    let text = record.get(attribute).and_then(|value| value.as_s().ok());
    text.map(String::as_str).ok_or_else(|| unreadable(attribute, "a text"))
}

fn time(attribute: &'static str, since_1970: Duration) -> Result<SystemTime, RegistryError> {
    UNIX_EPOCH.checked_add(since_1970).ok_or_else(|| unreadable(attribute, "a time within the range of the clock"))
}

fn parse<'a, T, E: std::fmt::Display>(
    attribute: &'static str,
    text: &'a str,
    parse: impl Fn(&'a str) -> Result<T, E>,
) -> Result<T, RegistryError> {
    parse(text).map_err(|error| RegistryError::Unreadable { problem: format!("`{attribute}`: {error}") })
}

fn unreadable(attribute: &'static str, expected: &'static str) -> RegistryError {
    RegistryError::Unreadable { problem: format!("`{attribute}`: expected {expected}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is all it can do")]
mod tests;
