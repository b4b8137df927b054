//! Removing a connection, and disbanding a group.
//!
//! A removal takes two round trips without a transaction. First it closes the connection: the item
//! becomes a tombstone that lists the connection's groups. Closing decides which caller removes the
//! connection; afterwards it cannot join groups. Then it removes the connection from all of its
//! groups concurrently. The old value of each presence tells whether the connection was the last.
//! If the writer is killed in between, the tombstone still lists the groups, and the next removal
//! continues.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, Delete, Update};
use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;

use super::super::connection::LIFETIME;
use super::super::in_memory::TOMBSTONE;
use super::super::{
    Connection, ConnectionKey, Departure, Departures, Group, Left, Namespace, ReadOptions, Registry as _, RegistryError,
};
use super::DynamoDb;
use super::call::{Transaction, Written};
use super::change::{delete, update};
use super::current::name;
use super::item::{self, CONNECTIONS, Record, Row, count, millis, number, set, text};
use super::presence::{Presence, next_version};
use crate::event::ConnectionId;
use crate::retry::Span;

/// The maximum number of groups left, or presences of a group removed, concurrently.
const AT_ONCE: usize = 16;
/// The timeout of looking for the principal's other connections, which is only a hint.
const HINT: Duration = Duration::from_millis(250);
/// The time after which another caller may take over a removal. A call is shorter than that.
const ABANDONED: Duration = Duration::from_secs(15);

impl DynamoDb {
    pub(super) async fn remove_connection(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        let span = self.span();
        let me = format!("{:016x}", fastrand::u64(..));
        let (closed, siblings) = join(self.close(key, &me, span), timeout(HINT, self.has_siblings(key, span))).await;
        let is_alone = !siblings.is_ok_and(|siblings| siblings.unwrap_or(false));
        match closed? {
            Written::Done(None) => Ok(None),
            Written::Done(Some(before)) => {
                let Some(row) = item::row(key.namespace(), &before)? else { return Ok(None) };
                if item::is_tombstone(&before) || self.has_expired(&before)? {
                    // An old removal may have been interrupted.
                    let open = self.open_groups(&row, span).await?;
                    return self.leave_open(row, open, is_alone, span).await;
                }
                self.leave_behind(row, is_alone, span).await.map(Some)
            }
            Written::Refused(tombstone) => self.resume(key, tombstone, &me, is_alone, span).await,
        }
    }

    /// Turns the connection's item into its tombstone. Refused if it already is one.
    async fn close(&self, key: &ConnectionKey, me: &str, span: Span) -> Result<Written, RegistryError> {
        let now = self.now();
        let request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(item::connection_key(key)))
            .update_expression(
                "SET isClosed = :true, closedBy = :me, closedAt = :at, returnsAt = :returns, expiresAt = :until \
                 REMOVE listKey, listSort",
            )
            // An expired item counts as absent.
            .condition_expression("attribute_not_exists(isClosed) OR returnsAt <= :now OR expiresAt <= :now")
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .expression_attribute_values(":me", text(me))
            .expression_attribute_values(":at", millis(now))
            .expression_attribute_values(":now", number(now))
            .expression_attribute_values(":returns", number(now.checked_add(TOMBSTONE).unwrap_or(now)))
            // The tombstone lasts as long as a group may have an entry of the connection.
            .expression_attribute_values(":until", number(now.checked_add(LIFETIME).unwrap_or(now)));
        self.update(span, request).await
    }

    /// Continues an interrupted removal: another writer's, or this one's after a lost response.
    async fn resume(
        &self,
        key: &ConnectionKey,
        tombstone: Option<Record>,
        me: &str,
        is_alone: bool,
        span: Span,
    ) -> Result<Option<Departures>, RegistryError> {
        let Some(tombstone) = tombstone else { return Ok(None) };
        let Some(row) = item::row(key.namespace(), &tombstone)? else { return Ok(None) };
        if item::string(&tombstone, "closedBy")? == me {
            // The lost response would have told whether there was an older tombstone, whose groups
            // were left long ago.
            if row.groups.is_empty() {
                return Ok(Some(Departures::new(row.connection, Vec::new())));
            }
            let open = self.open_groups(&row, span).await?;
            return self.leave_open(row, open, is_alone, span).await;
        }
        let closed_at = item::integer(&tombstone, "closedAt")?;
        let begun = item::time("closedAt", Duration::from_millis(closed_at))?;
        if row.groups.is_empty() || self.now().duration_since(begun).unwrap_or_default() < ABANDONED {
            return Ok(None);
        }
        let open = self.open_groups(&row, span).await?;
        // Only one of several writers continues.
        if open.is_empty() || !self.take_over(key, &tombstone, me, span).await? {
            return Ok(None);
        }
        self.leave_open(row, open, is_alone, span).await
    }

    /// Takes over a removal that another writer began. Returns `false` if a third was faster.
    async fn take_over(
        &self,
        key: &ConnectionKey,
        tombstone: &Record,
        me: &str,
        span: Span,
    ) -> Result<bool, RegistryError> {
        let request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(item::connection_key(key)))
            .update_expression("SET closedBy = :me, closedAt = :at")
            .condition_expression("closedBy = :before OR closedBy = :me")
            .expression_attribute_values(":me", text(me))
            .expression_attribute_values(":at", millis(self.now()))
            .expression_attribute_values(":before", text(item::string(tombstone, "closedBy")?));
        Ok(matches!(self.update(span, request).await?, Written::Done(_)))
    }

    /// Returns the groups that still have a closed connection.
    async fn open_groups(&self, row: &Row, span: Span) -> Result<BTreeSet<Group>, RegistryError> {
        let groups: Vec<Group> = row.groups.iter().cloned().collect();
        let mut open = BTreeSet::new();
        for groups in groups.chunks(Group::MAX_AT_ONCE) {
            let presences = self.presences(&row.connection, groups, span).await?;
            let has = presences.into_iter().filter(|(_, presence)| presence.has(row.connection.id(), self.now()));
            open.extend(has.map(|(group, _)| group));
        }
        Ok(open)
    }

    async fn leave_open(
        &self,
        row: Row,
        open: BTreeSet<Group>,
        is_alone: bool,
        span: Span,
    ) -> Result<Option<Departures>, RegistryError> {
        match open.is_empty() {
            true => Ok(None),
            false => self.leave_behind(Row { groups: open, ..row }, is_alone, span).await.map(Some),
        }
    }

    /// Returns whether the principal seems to have other connections, which decides what is tried
    /// first.
    async fn has_siblings(&self, key: &ConnectionKey, span: Span) -> Result<bool, RegistryError> {
        let Some(principal) = key.principal() else { return Ok(false) };
        let (shard, prefix) = item::principal_prefix(principal);
        let request = self
            .client
            .query()
            .table_name(&*self.table)
            .index_name(CONNECTIONS)
            .key_condition_expression("listKey = :key AND begins_with(listSort, :prefix)")
            .expression_attribute_values(":key", text(item::list_key(key.namespace(), shard)))
            .expression_attribute_values(":prefix", text(prefix))
            .projection_expression("pk")
            .limit(2);
        // The index may still list the connection itself.
        let own = item::connection_key(key);
        let found = self.call(span, || request.clone().send()).await?;
        Ok(found.items().iter().any(|other| other.get("pk") != own.get("pk")))
    }

    /// Removes a closed connection from its groups. Only this writer does so.
    async fn leave_behind(&self, row: Row, is_alone: bool, span: Span) -> Result<Departures, RegistryError> {
        let Row { connection, groups } = row;
        let leave = |group: Group| self.leave_closed(&connection, group, is_alone, span);
        let departures = stream::iter(groups).map(leave).buffered(AT_ONCE).try_collect().await?;
        Ok(Departures::new(connection, departures))
    }

    async fn leave_closed(
        &self,
        connection: &Connection,
        group: Group,
        is_alone: bool,
        span: Span,
    ) -> Result<Departure, RegistryError> {
        let key = self.member_key(connection.key(), connection.principal(), &group);
        let id = connection.id();
        let last = |before: Option<u64>| next_version(before, self.now());
        if is_alone {
            let request = self
                .client
                .delete_item()
                .table_name(&*self.table)
                .set_key(Some(key.clone()))
                .condition_expression(
                    "attribute_not_exists(pk) OR (attribute_exists(members.#id) AND size(members) = :one)",
                )
                .expression_attribute_names("#id", id.as_str())
                .expression_attribute_values(":one", count(1));
            if let Written::Done(before) = self.delete(span, request).await? {
                // If there is no item, an earlier attempt of this writer has removed it.
                let before = before.map(|before| Presence::read(&before)).transpose()?;
                let version = last(before.map(|presence| presence.version));
                return Ok(Departure::new(group, Left::Last, version));
            }
        }
        let request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(key.clone()))
            .update_expression("SET version = version + :one REMOVE members.#id")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_names("#id", id.as_str())
            .expression_attribute_values(":one", count(1));
        let Written::Done(Some(before)) = self.update(span, request).await? else {
            // The response of an earlier attempt was lost, and another connection has since left as
            // the last; or the group was disbanded.
            return Ok(Departure::new(group, Left::Another, last(None)));
        };
        let before = Presence::read(&before)?;
        let version = last(Some(before.version));
        if before.has_others(id, self.now()) {
            return Ok(Departure::new(group, Left::Another, version));
        }
        // Reads of the group would include an empty item until it expires.
        let request = self
            .client
            .delete_item()
            .table_name(&*self.table)
            .set_key(Some(key))
            .condition_expression("version = :left")
            .expression_attribute_values(":left", count(before.version.saturating_add(1)));
        if let Err(error) = self.delete(span, request).await {
            tracing::debug!(%error, "an empty presence stays until it expires");
        }
        Ok(Departure::new(group, Left::Last, version))
    }

    fn has_expired(&self, record: &Record) -> Result<bool, RegistryError> {
        Ok(item::integer(record, "expiresAt")? <= super::super::connection::seconds(self.now()))
    }

    pub(super) async fn disband_group(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError> {
        let records = self.records(namespace, group, ReadOptions::default().consistent());
        let counts = records
            .flat_map(|page| match page {
                Ok(page) => stream::iter(page.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .map(|record| async { self.remove_presence(namespace, group, &record?).await })
            .buffer_unordered(AT_ONCE);
        counts.try_fold(0_usize, |sum, count| std::future::ready(Ok(sum.saturating_add(count)))).await
    }

    /// Removes a principal from a group, with all of its connections there.
    async fn remove_presence(
        &self,
        namespace: &Namespace,
        group: &Group,
        record: &Record,
    ) -> Result<usize, RegistryError> {
        let span = self.span();
        let place = name(record)?;
        let surplus = AtomicUsize::new(0);
        let removed = self.until_current(span, || async {
            let key = Record::from([("pk".to_owned(), text(&place.0)), ("sk".to_owned(), text(&place.1))]);
            let Some(record) = self.read(span, vec![key.clone()]).await?.pop() else { return Ok(Some(0)) };
            let presence = Presence::read(&record)?;
            let members: Vec<&str> = presence.living(self.now()).collect();
            let mut writes = vec![delete(
                Delete::builder()
                    .table_name(&*self.table)
                    .set_key(Some(key))
                    .condition_expression("version = :known")
                    .expression_attribute_values(":known", count(presence.version)),
            )?];
            let keys = members
                .iter()
                .map(|id| Ok(ConnectionKey::new(namespace.clone(), item::parse("members", id, ConnectionId::new)?)));
            let keys: Vec<ConnectionKey> = keys.collect::<Result<_, RegistryError>>()?;
            if let Some((_, more)) = keys.split_at_checked(Group::MAX_AT_ONCE) {
                // These connections exceed one transaction.
                for key in more {
                    if self.leave(key, group).await? != Left::NotMember {
                        surplus.fetch_add(1, Ordering::Relaxed);
                    }
                }
                if !more.is_empty() {
                    return Ok(None);
                }
            }
            let keys = keys.iter().take(Group::MAX_AT_ONCE).map(item::connection_key).collect();
            // Closed connections, and those that DynamoDB has deleted, are skipped.
            for connection in self.read(span, keys).await? {
                let key = connection.into_iter().filter(|(name, _)| name == "pk" || name == "sk").collect();
                writes.push(update(
                    Update::builder()
                        .table_name(&*self.table)
                        .set_key(Some(key))
                        .update_expression("DELETE groups :group")
                        .condition_expression("attribute_exists(pk)")
                        .expression_attribute_values(":group", set([group])),
                )?);
            }
            Ok((self.transact(span, writes).await? == Transaction::Done).then_some(members.len()))
        });
        Ok(removed.await?.saturating_add(surplus.load(Ordering::Relaxed)))
    }
}
