//! Joining, leaving and removing: transactions over a connection, its places in groups, and its principal's presence there.
//!
//! What is written depends on how many connections the principal has in the group. The first attempt takes for granted that it
//! is the only one; when that is wrong, the transaction does not happen, and the next attempt looks first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, TransactWriteItem, Update};
use futures_util::stream::StreamExt as _;

use super::super::connection::seconds;
use super::super::{
    Connection, ConnectionKey, Consistency, Departure, Group, Joined, Left, Namespace, Principal, ReadOptions,
    Registry as _, RegistryError, Removed,
};
use super::DynamoDb;
use super::call::Transaction;
use super::item::{self, Record, Row, count, number, text};
use crate::retry::Span;

/// How many groups are left in one transaction, which has at most a hundred writes.
const GROUPS_AT_ONCE: usize = 32;
/// How many members of a group leave it in one transaction.
const MEMBERS_AT_ONCE: usize = 25;

/// A connection, and the groups that it is in and leaves.
struct Departing {
    connection: Connection,
    groups: BTreeSet<Group>,
}

/// A principal in a group, as the table has it.
struct Presence {
    connections: u64,
    expires_at: u64,
}

/// Presences by the two keys that the table has them under.
type Presences = BTreeMap<(String, String), Presence>;

impl DynamoDb {
    /// Decides and writes until nobody else was there in the meantime. `attempt` is told whether it is the first.
    async fn until_current<T, F>(&self, span: Span, attempt: impl Fn(bool) -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<Option<T>, RegistryError>>,
    {
        // At once a second time, since it was only not looked; then with delays.
        for is_first in [true, false] {
            if let Some(done) = attempt(is_first).await? {
                return Ok(done);
            }
        }
        let attempt = &attempt;
        let attempt = || async move { attempt(false).await?.ok_or(RegistryError::Contended) };
        self.retry(span, Duration::MAX, attempt).await
    }

    pub(super) async fn join_group(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        let span = self.span();
        self.until_current(span, |is_first| self.try_join(key, group, is_first, span)).await
    }

    async fn try_join(
        &self,
        key: &ConnectionKey,
        group: &Group,
        is_first: bool,
        span: Span,
    ) -> Result<Option<Joined>, RegistryError> {
        let Some(row) = self.row(key, Consistency::Strong).await? else { return Ok(Some(Joined::NotConnected)) };
        if row.groups.contains(group) {
            return Ok(Some(Joined::Already));
        }
        let connection = row.connection;
        let mut writes = vec![
            update(self.change_groups(&connection, "ADD", [group]).condition_expression(
                "attribute_not_exists(isClosed) AND attribute_exists(pk) AND NOT contains(groups, :group0)",
            ))?,
            put(Put::builder().table_name(&*self.table).set_item(Some(item::of_member(
                &connection,
                group,
                self.spread,
            ))))?,
        ];
        let mut joined = Joined::First;
        if let Some(principal) = connection.principal() {
            let namespace = key.namespace();
            let presence_key = item::presence_key(namespace, group, principal, self.spread);
            let presence = match is_first {
                true => None,
                false => self.presences(span, vec![presence_key.clone()]).await?.into_values().next(),
            };
            writes.push(match presence {
                None => put(Put::builder()
                    .table_name(&*self.table)
                    .set_item(Some(item::of_presence(&connection, group, principal, self.spread)))
                    .condition_expression("attribute_not_exists(pk) OR expiresAt <= :now")
                    .expression_attribute_values(":now", number(self.now())))?,
                Some(presence) => {
                    joined = Joined::Another;
                    let expires_at = seconds(connection.expires_at());
                    let change = Update::builder()
                        .table_name(&*self.table)
                        .set_key(Some(presence_key))
                        .expression_attribute_values(":one", count(1))
                        .expression_attribute_values(":known", count(presence.expires_at))
                        .condition_expression("connections >= :one AND expiresAt = :known");
                    // It is there for as long as the last of its connections.
                    update(match expires_at > presence.expires_at {
                        true => change
                            .update_expression("ADD connections :one SET expiresAt = :expires")
                            .expression_attribute_values(":expires", count(expires_at)),
                        false => change.update_expression("ADD connections :one"),
                    })?
                }
            });
        }
        Ok((self.transact(span, writes).await? == Transaction::Done).then_some(joined))
    }

    /// Lets connections leave groups, all at once. With a grave, that takes the place of the one connection that leaves all of
    /// its groups. `None` when it has not happened, since somebody else was there in the meantime.
    async fn depart(
        &self,
        departing: &[Departing],
        grave: Option<Record>,
        is_first: bool,
        span: Span,
    ) -> Result<Option<Vec<Departure>>, RegistryError> {
        let mut writes = Vec::new();
        // Several connections of a principal may leave a group together.
        let mut leaving: BTreeMap<(&Namespace, &Group, &Principal), u64> = BTreeMap::new();
        for Departing { connection, groups } in departing {
            let namespace = connection.key().namespace();
            writes.push(match &grave {
                Some(grave) => put(Put::builder()
                    .table_name(&*self.table)
                    .set_item(Some(grave.clone()))
                    .condition_expression("groups = :groups")
                    .expression_attribute_values(":groups", set(groups)))?,
                None => {
                    let is_in = (0..groups.len()).map(|index| format!("contains(groups, :group{index})"));
                    let is_in = is_in.collect::<Vec<_>>().join(" AND ");
                    update(self.change_groups(connection, "DELETE", groups).condition_expression(is_in))?
                }
            });
            for group in groups {
                let key = item::member_key(namespace, group, connection.id(), self.spread);
                writes.push(delete(Delete::builder().table_name(&*self.table).set_key(Some(key)))?);
                if let Some(principal) = connection.principal() {
                    let count = leaving.entry((namespace, group, principal)).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        let key = |namespace, group, principal| item::presence_key(namespace, group, principal, self.spread);
        let presences = match is_first {
            true => Presences::new(),
            false => {
                let keys = leaving.keys().map(|(namespace, group, principal)| key(namespace, group, principal));
                self.presences(span, keys.collect()).await?
            }
        };
        let mut stay = BTreeSet::new();
        for ((namespace, group, principal), leaving) in leaving {
            let key = key(namespace, group, principal);
            let there = presences.get(&name(&key)?).map_or(leaving, |presence| presence.connections);
            writes.push(match there > leaving {
                true => {
                    stay.insert((group, principal));
                    let change = Update::builder().table_name(&*self.table).set_key(Some(key));
                    update(
                        change
                            .update_expression("SET connections = connections - :leaving")
                            .condition_expression("connections > :leaving")
                            .expression_attribute_values(":leaving", count(leaving)),
                    )?
                }
                false => delete(
                    Delete::builder()
                        .table_name(&*self.table)
                        .set_key(Some(key))
                        .condition_expression("attribute_not_exists(pk) OR connections <= :leaving")
                        .expression_attribute_values(":leaving", count(leaving)),
                )?,
            });
        }
        if self.transact(span, writes).await? == Transaction::Stale {
            return Ok(None);
        }
        let left = |connection: &Connection, group: &Group| {
            let stays = connection.principal().is_some_and(|principal| stay.contains(&(group, principal)));
            Departure::new(group.clone(), if stays { Left::Another } else { Left::Last })
        };
        let departures = departing.iter();
        let departures = departures
            .flat_map(|Departing { connection, groups }| groups.iter().map(move |group| left(connection, group)));
        Ok(Some(departures.collect()))
    }

    pub(super) async fn leave_group(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        let span = self.span();
        let left = self
            .until_current(span, |is_first| async move {
                let Some(row) = self.row(key, Consistency::Strong).await? else { return Ok(Some(Vec::new())) };
                if !row.groups.contains(group) {
                    return Ok(Some(Vec::new()));
                }
                let departing = Departing { connection: row.connection, groups: BTreeSet::from([group.clone()]) };
                self.depart(&[departing], None, is_first, span).await
            })
            .await?;
        Ok(left.first().map_or(Left::NotMember, |departure| departure.left))
    }

    /// Leaves groups until there are none.
    pub(super) async fn leave_groups(&self, key: &ConnectionKey, span: Span) -> Result<Vec<Departure>, RegistryError> {
        let mut departures = Vec::new();
        loop {
            let more = self.until_current(span, |is_first| async move {
                let Some(row) = self.row(key, Consistency::Strong).await? else { return Ok(Some(Vec::new())) };
                if row.groups.is_empty() {
                    return Ok(Some(Vec::new()));
                }
                let groups = row.groups.into_iter().take(GROUPS_AT_ONCE).collect();
                self.depart(&[Departing { connection: row.connection, groups }], None, is_first, span).await
            });
            match more.await? {
                more if more.is_empty() => break,
                more => departures.extend(more),
            }
        }
        departures.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(departures)
    }

    /// Removes a connection that is in groups, of which it may be known how it was just now.
    pub(super) async fn remove_from_groups(
        &self,
        key: &ConnectionKey,
        known: Option<Row>,
        span: Span,
    ) -> Result<Option<Removed>, RegistryError> {
        let known = Mutex::new(known);
        let known = || known.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut before = Vec::new();
        loop {
            let step = self.until_current(span, |is_first| async move {
                let row = match known() {
                    Some(row) => Some(row),
                    None => self.row(key, Consistency::Strong).await?,
                };
                let Some(row) = row else { return Ok(Some(Step::Gone)) };
                let is_last = row.groups.len() <= GROUPS_AT_ONCE;
                let connection = row.connection.clone();
                let groups: BTreeSet<Group> = row.groups.into_iter().take(GROUPS_AT_ONCE).collect();
                if groups.is_empty() {
                    return Ok(Some(Step::NoGroups));
                }
                let departing = [Departing { connection: row.connection, groups }];
                let grave = is_last.then(|| self.grave(key));
                let departures = self.depart(&departing, grave, is_first, span).await?;
                Ok(departures.map(|departures| match is_last {
                    true => Step::Removed(connection, departures),
                    false => Step::Left(departures),
                }))
            });
            match step.await? {
                Step::Gone => return Ok(None),
                Step::Left(departures) => before.extend(departures),
                Step::Removed(connection, departures) => {
                    before.extend(departures);
                    before.sort_by(|one, other| one.group.cmp(&other.group));
                    return Ok(Some(Removed::new(connection, before)));
                }
                Step::NoGroups => {
                    let mut removed = Box::pin(self.remove(key)).await?;
                    if let Some(removed) = &mut removed {
                        removed.groups.extend(before);
                        removed.groups.sort_by(|one, other| one.group.cmp(&other.group));
                    }
                    return Ok(removed);
                }
            }
        }
    }

    pub(super) async fn disband_group(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError> {
        let mut count: usize = 0;
        let options = ReadOptions::default().with_page_size(MEMBERS_AT_ONCE).consistent();
        let audience = namespace.group(group);
        let mut pages = self.connections(&audience, options);
        while let Some(page) = pages.next().await {
            let span = self.span();
            let members = page?.into_iter();
            let groups = BTreeSet::from([group.clone()]);
            let departing: Vec<Departing> =
                members.map(|connection| Departing { connection, groups: groups.clone() }).collect();
            let mut departed = self.depart(&departing, None, true, span).await?;
            if departed.is_none() {
                departed = self.depart(&departing, None, false, span).await?;
            }
            if let Some(departed) = departed {
                count = count.saturating_add(departed.len());
                continue;
            }
            // Some have left by themselves in the meantime, which ones is not known.
            for Departing { connection, .. } in departing {
                if self.leave(connection.key(), group).await? != Left::NotMember {
                    count = count.saturating_add(1);
                }
            }
        }
        Ok(count)
    }

    /// Presences as they are now; what has expired is not there.
    async fn presences(&self, span: Span, keys: Vec<Record>) -> Result<Presences, RegistryError> {
        let now = seconds(self.now());
        let mut presences = Presences::new();
        for record in self.read(span, keys).await? {
            let expires_at = item::integer(&record, "expiresAt")?;
            if expires_at > now {
                let presence = Presence { connections: item::integer(&record, "connections")?, expires_at };
                presences.insert(name(&record)?, presence);
            }
        }
        Ok(presences)
    }

    /// A change of the set of groups in a connection's item; the groups are `:group0`, `:group1`, … in its condition.
    fn change_groups<'g>(
        &self,
        connection: &Connection,
        verb: &str,
        groups: impl IntoIterator<Item = &'g Group>,
    ) -> aws_sdk_dynamodb::types::builders::UpdateBuilder {
        let groups: Vec<&Group> = groups.into_iter().collect();
        let mut change = Update::builder()
            .table_name(&*self.table)
            .set_key(Some(item::connection_key(connection.key())))
            .update_expression(format!("{verb} groups :groups"));
        for (index, group) in groups.iter().enumerate() {
            change = change.expression_attribute_values(format!(":group{index}"), text(group.as_str()));
        }
        change.expression_attribute_values(":groups", set(groups))
    }
}

/// How far removing a connection has come.
enum Step {
    /// There is no such connection.
    Gone,
    /// It has left some groups, and is in more.
    Left(Vec<Departure>),
    /// It has left its groups by itself.
    NoGroups,
    /// It has left its last groups and is removed.
    Removed(Connection, Vec<Departure>),
}

fn set<'g>(groups: impl IntoIterator<Item = &'g Group>) -> AttributeValue {
    AttributeValue::Ss(groups.into_iter().map(ToString::to_string).collect())
}

fn name(record: &Record) -> Result<(String, String), RegistryError> {
    Ok((item::string(record, "pk")?.to_owned(), item::string(record, "sk")?.to_owned()))
}

fn update(update: aws_sdk_dynamodb::types::builders::UpdateBuilder) -> Result<TransactWriteItem, RegistryError> {
    Ok(TransactWriteItem::builder().update(update.build().map_err(refused)?).build())
}

fn put(put: aws_sdk_dynamodb::types::builders::PutBuilder) -> Result<TransactWriteItem, RegistryError> {
    Ok(TransactWriteItem::builder().put(put.build().map_err(refused)?).build())
}

fn delete(delete: aws_sdk_dynamodb::types::builders::DeleteBuilder) -> Result<TransactWriteItem, RegistryError> {
    Ok(TransactWriteItem::builder().delete(delete.build().map_err(refused)?).build())
}

fn refused(error: BuildError) -> RegistryError {
    RegistryError::Refused { source: Box::new(error) }
}
