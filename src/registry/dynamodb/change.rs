//! Joining, leaving, and changing data: transactions over a connection and its principal in each
//! group.
//!
//! A change reads in one round trip and writes in a second. The writes have the versions that were
//! read as their conditions. So of two concurrent changes of one presence, one fails and reads
//! again.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::builders::{DeleteBuilder, PutBuilder, UpdateBuilder};
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem, Update};
use futures_util::future::try_join;

use super::super::{
    Arrival, Arrivals, Connection, ConnectionData, ConnectionKey, Departure, Departures, Group, Inserted, Joined, Left,
    RegistryError,
};
use super::DynamoDb;
use super::call::{Transaction, Written};
use super::current::{Current, Known};
use super::item::{self, count, number, set, text};
use super::presence::{self, Presence, next_version};
use crate::retry::Span;

impl DynamoDb {
    /// Retries an attempt until it does not conflict with another writer.
    pub(super) async fn until_current<T, F>(&self, span: Span, attempt: impl Fn() -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<Option<T>, RegistryError>>,
    {
        // The second attempt is immediate; the others are delayed.
        if let Some(done) = attempt().await? {
            return Ok(done);
        }
        let attempt = &attempt;
        let attempt = || async move { attempt().await?.ok_or(RegistryError::Contended) };
        self.retry(span, Duration::MAX, attempt).await
    }

    pub(super) async fn try_insert(
        &self,
        connection: &Connection,
        groups: &[Group],
        span: Span,
    ) -> Result<Option<Inserted>, RegistryError> {
        if connection.expires_at() <= self.now() {
            return Ok(Some(Inserted::Removed));
        }
        let item = item::of_connection(connection, groups);
        // DynamoDB deletes expired items days later, so the condition compares the time, too.
        const ABSENT: &str = "attribute_not_exists(pk) OR expiresAt <= :now OR returnsAt <= :now";
        if groups.is_empty() {
            let request = self.client.put_item().table_name(&*self.table).set_item(Some(item));
            let request = request.condition_expression(ABSENT).expression_attribute_values(":now", number(self.now()));
            return Ok(match self.put(span, request).await? {
                Written::Done(_) => Some(Inserted::New { groups: Vec::new() }),
                Written::Refused(Some(item)) if item::is_tombstone(&item) => Some(Inserted::Removed),
                Written::Refused(Some(_)) => Some(Inserted::Already),
                // Some emulators do not return the item: read it.
                Written::Refused(None) => match self.current(connection.key(), &[], span).await? {
                    Known::Nothing => None,
                    Known::Tombstone => Some(Inserted::Removed),
                    Known::Registered(_) => Some(Inserted::Already),
                },
            });
        }
        let known = self.current(connection.key(), &[], span);
        let (known, presences) = try_join(known, self.presences(connection, groups, span)).await?;
        match known {
            Known::Nothing => {}
            Known::Tombstone => return Ok(Some(Inserted::Removed)),
            Known::Registered(_) => return Ok(Some(Inserted::Already)),
        }
        let mut writes = vec![put(Put::builder()
            .table_name(&*self.table)
            .set_item(Some(item))
            .condition_expression(ABSENT)
            .expression_attribute_values(":now", number(self.now())))?];
        let mut arrivals = Vec::new();
        for group in groups {
            let (write, arrival) = self.arrive(connection, group, presences.get(group))?;
            writes.push(write);
            arrivals.push(arrival);
        }
        let done = self.transact(span, writes).await? == Transaction::Done;
        Ok(done.then_some(Inserted::New { groups: arrivals }))
    }

    pub(super) async fn try_join(
        &self,
        key: &ConnectionKey,
        groups: &[Group],
        span: Span,
    ) -> Result<Option<Option<Arrivals>>, RegistryError> {
        let Known::Registered(current) = self.current(key, groups, span).await? else { return Ok(Some(None)) };
        let Current { row, presences } = *current;
        let (mut arrivals, mut writes, mut joining) = (Vec::new(), Vec::new(), Vec::new());
        // Reads of several items are not a snapshot: another writer's change may be visible in only
        // one of them.
        let mut torn = Vec::new();
        for group in groups {
            let presence = presences.get(group);
            let is_there = presence.filter(|presence| presence.has(key.id(), self.now()));
            match (is_there, row.groups.contains(group)) {
                (Some(presence), true) => {
                    arrivals.push(Arrival::new(group.clone(), Joined::Already, presence.version));
                    continue;
                }
                (Some(_), false) => torn.push(group),
                (None, _) => {}
            }
            let (write, arrival) = self.arrive(&row.connection, group, presence)?;
            writes.push(write);
            arrivals.push(arrival);
            joining.push(group);
        }
        let arrivals = Some(Arrivals::new(row.connection, arrivals));
        if joining.is_empty() {
            return Ok(Some(arrivals));
        }
        let data = arrivals.as_ref().and_then(|arrivals| arrivals.connection.data_json()).map(text);
        writes.push(self.change_connection(key, "ADD groups :groups", |mut update| {
            let mut condition = update.get_condition_expression().clone().unwrap_or_default();
            for (index, group) in torn.iter().enumerate() {
                condition.push_str(&format!(" AND NOT contains(groups, :torn{index})"));
                update = update.expression_attribute_values(format!(":torn{index}"), text(group.as_str()));
            }
            // The groups get a copy of the data, so the transaction checks that the data is still
            // the same.
            condition.push_str(if data.is_some() { " AND #data = :data" } else { " AND attribute_not_exists(#data)" });
            update = update.condition_expression(condition).expression_attribute_names("#data", "data");
            if let Some(data) = data {
                update = update.expression_attribute_values(":data", data);
            }
            update.expression_attribute_values(":groups", set(joining))
        })?);
        Ok((self.transact(span, writes).await? == Transaction::Done).then_some(arrivals))
    }

    pub(super) async fn try_leave(
        &self,
        key: &ConnectionKey,
        groups: &[Group],
        span: Span,
    ) -> Result<Option<Option<Departures>>, RegistryError> {
        let Known::Registered(current) = self.current(key, groups, span).await? else { return Ok(Some(None)) };
        let Current { row, presences } = *current;
        let (mut departures, mut writes, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
        for group in groups {
            let presence = presences.get(group);
            let is_there = presence.filter(|presence| presence.has(key.id(), self.now()));
            match (is_there, row.groups.contains(group)) {
                (Some(presence), _) => {
                    let (write, departure) = self.depart(&row.connection, group, presence)?;
                    writes.push(write);
                    departures.push(departure);
                    leaving.push(group);
                }
                // The reads disagree: the transaction checks that the presence is still as read.
                (None, true) => {
                    writes.push(self.unchanged(&row.connection, group, presence)?);
                    departures.push(Departure::new(group.clone(), Left::NotMember, 0));
                    leaving.push(group);
                }
                (None, false) => departures.push(Departure::new(group.clone(), Left::NotMember, 0)),
            }
        }
        let departures = Some(Departures::new(row.connection, departures));
        if leaving.is_empty() {
            return Ok(Some(departures));
        }
        writes.push(self.change_connection(key, "DELETE groups :groups", |update| {
            update.expression_attribute_values(":groups", set(leaving))
        })?);
        Ok((self.transact(span, writes).await? == Transaction::Done).then_some(departures))
    }

    pub(super) async fn try_set_data(
        &self,
        key: &ConnectionKey,
        data: Option<&ConnectionData>,
        span: Span,
    ) -> Result<Option<Option<Connection>>, RegistryError> {
        let Known::Registered(current) = self.current(key, &[], span).await? else { return Ok(Some(None)) };
        let Current { row, .. } = *current;
        if row.groups.len() > Group::MAX_AT_ONCE {
            return Err(RegistryError::TooManyGroups { count: row.groups.len() });
        }
        let connection = row.connection.replacing_data(data.cloned());
        let groups: Vec<Group> = row.groups.iter().cloned().collect();
        let writes = self.data_writes(&connection, &row.groups, &groups, data)?;
        if self.transact(span, writes).await? == Transaction::Done {
            return Ok(Some(Some(connection)));
        }
        // A group may lack the connection's entry, for example after its shard count has changed.
        let mut there = Vec::new();
        if !groups.is_empty() {
            let presences = self.presences(&connection, &groups, span).await?;
            there
                .extend(presences.into_iter().filter(|(_, one)| one.has(key.id(), self.now())).map(|(group, _)| group));
        }
        let writes = self.data_writes(&connection, &row.groups, &there, data)?;
        Ok((self.transact(span, writes).await? == Transaction::Done).then_some(Some(connection)))
    }

    /// Returns the writes that replace a connection's data, also in the groups `there`.
    ///
    /// The connection must still be in exactly the groups `all`.
    fn data_writes(
        &self,
        connection: &Connection,
        all: &BTreeSet<Group>,
        there: &[Group],
        data: Option<&ConnectionData>,
    ) -> Result<Vec<TransactWriteItem>, RegistryError> {
        let key = connection.key();
        let mut writes = Vec::new();
        for group in there {
            let change = Update::builder()
                .table_name(&*self.table)
                .set_key(Some(self.member_key(key, connection.principal(), group)))
                .condition_expression("attribute_exists(members.#id)")
                .expression_attribute_names("#id", key.id().as_str())
                .expression_attribute_names("#data", "data");
            writes.push(update(match data {
                Some(data) => change
                    .update_expression("SET members.#id.#data = :data")
                    .expression_attribute_values(":data", text(data.as_json())),
                None => change.update_expression("REMOVE members.#id.#data"),
            })?);
        }
        // The connection must still be in the same groups.
        let condition = if all.is_empty() { "attribute_not_exists(groups)" } else { "groups = :groups" };
        let expression = if data.is_some() { "SET #data = :data" } else { "REMOVE #data" };
        writes.push(self.change_connection(key, expression, |mut update| {
            let registered = update.get_condition_expression().clone().unwrap_or_default();
            update = update.condition_expression(format!("{registered} AND {condition}"));
            update = update.expression_attribute_names("#data", "data");
            if !all.is_empty() {
                update = update.expression_attribute_values(":groups", set(all));
            }
            match data {
                Some(data) => update.expression_attribute_values(":data", text(data.as_json())),
                None => update,
            }
        })?);
        Ok(writes)
    }

    /// Returns an update of a connection, on the condition that it is registered.
    fn change_connection(
        &self,
        key: &ConnectionKey,
        expression: &str,
        values: impl FnOnce(UpdateBuilder) -> UpdateBuilder,
    ) -> Result<TransactWriteItem, RegistryError> {
        update(values(
            Update::builder()
                .table_name(&*self.table)
                .set_key(Some(item::connection_key(key)))
                .update_expression(expression)
                .condition_expression("attribute_exists(pk) AND attribute_not_exists(isClosed) AND expiresAt > :now")
                .expression_attribute_values(":now", number(self.now())),
        ))
    }

    /// Returns the write that adds a connection to a group.
    ///
    /// It fails unless the presence is still as read.
    fn arrive(
        &self,
        connection: &Connection,
        group: &Group,
        presence: Option<&Presence>,
    ) -> Result<(TransactWriteItem, Arrival), RegistryError> {
        let now = self.now();
        let version = next_version(presence.map(|presence| presence.version), now);
        let Some(presence) = presence.filter(|presence| presence.has_others(connection.id(), now)) else {
            let item = presence::of_first(connection, group, self.shards_of(group), version);
            let write = Put::builder().table_name(&*self.table).set_item(Some(item));
            let write = match presence {
                None => write.condition_expression("attribute_not_exists(pk)"),
                // The presence has expired, or has only this connection.
                Some(presence) => write
                    .condition_expression("version = :known")
                    .expression_attribute_values(":known", count(presence.version)),
            };
            return Ok((put(write)?, Arrival::new(group.clone(), Joined::First, version)));
        };
        let mut change = Update::builder()
            .table_name(&*self.table)
            .set_key(Some(self.member_key(connection.key(), connection.principal(), group)))
            .condition_expression("version = :known")
            .expression_attribute_names("#id", connection.id().as_str())
            .expression_attribute_values(":known", count(presence.version))
            .expression_attribute_values(":version", count(version))
            .expression_attribute_values(":expires", count(presence.expiry_with(connection)))
            .expression_attribute_values(":entry", AttributeValue::M(presence::entry(connection)));
        let mut expression = "SET version = :version, expiresAt = :expires, members.#id = :entry".to_owned();
        let expired = presence.expired(now).filter(|id| *id != connection.id().as_str());
        for (index, id) in expired.take(EXPIRED_AT_ONCE).enumerate() {
            expression.push_str(if index == 0 { " REMOVE " } else { ", " });
            expression.push_str(&format!("members.#old{index}"));
            change = change.expression_attribute_names(format!("#old{index}"), id);
        }
        Ok((update(change.update_expression(expression))?, Arrival::new(group.clone(), Joined::Another, version)))
    }

    /// Returns the write that removes a connection from a group.
    ///
    /// It fails unless the presence is still as read.
    fn depart(
        &self,
        connection: &Connection,
        group: &Group,
        presence: &Presence,
    ) -> Result<(TransactWriteItem, Departure), RegistryError> {
        let version = next_version(Some(presence.version), self.now());
        let key = self.member_key(connection.key(), connection.principal(), group);
        if presence.has_others(connection.id(), self.now()) {
            let change = Update::builder()
                .table_name(&*self.table)
                .set_key(Some(key))
                .update_expression("SET version = :version REMOVE members.#id")
                .condition_expression("version = :known")
                .expression_attribute_names("#id", connection.id().as_str())
                .expression_attribute_values(":known", count(presence.version))
                .expression_attribute_values(":version", count(version));
            return Ok((update(change)?, Departure::new(group.clone(), Left::Another, version)));
        }
        let removal = Delete::builder()
            .table_name(&*self.table)
            .set_key(Some(key))
            .condition_expression("version = :known")
            .expression_attribute_values(":known", count(presence.version));
        Ok((delete(removal)?, Departure::new(group.clone(), Left::Last, version)))
    }
}

impl DynamoDb {
    /// Returns a write that changes nothing, and fails unless a presence is still as read.
    fn unchanged(
        &self,
        connection: &Connection,
        group: &Group,
        presence: Option<&Presence>,
    ) -> Result<TransactWriteItem, RegistryError> {
        let key = self.member_key(connection.key(), connection.principal(), group);
        match presence {
            None => delete(
                Delete::builder()
                    .table_name(&*self.table)
                    .set_key(Some(key))
                    .condition_expression("attribute_not_exists(pk)"),
            ),
            Some(presence) => update(
                Update::builder()
                    .table_name(&*self.table)
                    .set_key(Some(key))
                    .update_expression("SET version = :known")
                    .condition_expression("version = :known")
                    .expression_attribute_values(":known", count(presence.version)),
            ),
        }
    }
}

/// The maximum number of expired entries that one change removes, which keeps its expression short.
const EXPIRED_AT_ONCE: usize = 20;

pub(super) fn update(update: UpdateBuilder) -> Result<TransactWriteItem, RegistryError> {
    Ok(TransactWriteItem::builder().update(update.build().map_err(refused)?).build())
}

fn put(put: PutBuilder) -> Result<TransactWriteItem, RegistryError> {
    Ok(TransactWriteItem::builder().put(put.build().map_err(refused)?).build())
}

pub(super) fn delete(delete: DeleteBuilder) -> Result<TransactWriteItem, RegistryError> {
    Ok(TransactWriteItem::builder().delete(delete.build().map_err(refused)?).build())
}

fn refused(error: BuildError) -> RegistryError {
    RegistryError::Refused { source: Box::new(error) }
}
