//! The registry of many functions: a table of DynamoDB.

mod call;
mod change;
mod item;
mod list;
mod table;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnValue;

use self::call::{Put, Updated};
use self::item::{Record, Row, millis, number};
use super::memory::GRAVE;
use super::{
    Audience, Connection, ConnectionKey, Consistency, Departure, Group, Joined, Left, Namespace, Pages, Principal,
    ReadOptions, Registry, RegistryError, Removed,
};
use crate::clock::Clock;
use crate::dynamodb::{self, Retries};

/// Over how many partitions groups are spread.
const SPREAD: u8 = 4;

/// Keeps connections in one table of DynamoDB.
///
/// A connection is one item, found by its id, and through two indexes by its principal and among everyone. Each group that it
/// joins has a copy of it, and each principal of a group an item with the number of its connections there. Joining, leaving
/// and removing are transactions over these: whoever is killed between two requests leaves nothing half done. `expiresAt` is
/// the table's time-to-live attribute; what has expired is left out of every answer, also before DynamoDB removes it.
///
/// | call | requests | write units | read units |
/// |---|---|---|---|
/// | [`insert`](Registry::insert) | 1 | 3 | |
/// | [`find`](Registry::find) | 1 | | 0.5, consistent 1 |
/// | [`join`](Registry::join), [`leave`](Registry::leave) | 2 | 6 | 1 |
/// | [`remove`](Registry::remove) | 1, with groups 2 | 3; with groups 5, and 4 for each of them | |
/// | [`touch`](Registry::touch) | 1 | 2 | |
/// | a list of 1000 | 1 for each page of each partition | | 28, consistent 56 |
///
/// The units are those of items below one kilobyte, of principals with one connection in a group. A connection without
/// principal takes less.
///
/// Consistent reads see what was written before, with one exception: the lists of a principal and of everyone come from
/// indexes, which DynamoDB updates a little later.
///
/// The role needs `dynamodb:GetItem`, `BatchGetItem`, `PutItem`, `UpdateItem`, `DeleteItem` on the table, and `Query` on the
/// table and its indexes. A call has ten seconds, or what the invocation's deadline leaves; throttling, conflicts and failures
/// are retried until then.
///
/// An item of DynamoDB has at most 400 KB, so a connection can be in some ten thousand groups. A principal whose connections
/// expire without being removed is listed in a group until the last of them expires: see
/// [`Hub::sweep`](crate::hub::Hub::sweep).
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::registry::DynamoDb;
///
/// # async fn start() {
/// let registry = DynamoDb::new("connections").await;
/// # }
/// ```
#[derive(Clone)]
pub struct DynamoDb {
    client: Client,
    table: Arc<str>,
    spread: u8,
    timeout: Option<Duration>,
    clock: Clock,
}

impl DynamoDb {
    /// A registry in this table, with what the environment says of credentials, region and endpoint.
    pub async fn new(table: impl Into<String>) -> Self {
        Self::over(table, dynamodb::client(Retries::Caller).await)
    }

    /// A registry in a table of an emulator at this URL, which takes any credentials.
    pub async fn emulated(table: impl Into<String>, url: impl Into<String>) -> Self {
        Self::over(table, dynamodb::emulated(url, Retries::Caller).await)
    }

    fn over(table: impl Into<String>, client: Client) -> Self {
        let table: String = table.into();
        Self { client, table: table.into(), spread: SPREAD, timeout: None, clock: Clock::default() }
    }

    /// Spreads each group, and the index of everyone, over this many partitions: 4 unless set, and at least 1.
    ///
    /// A partition of DynamoDB takes 1000 writes and gives 3000 reads a second. More partitions let a larger group be joined and
    /// read faster; fewer let a small group be read in fewer requests. All functions that use the table must agree. It can be
    /// raised at any time, function by function, the readers first; after it was lowered, members are overlooked for as long as
    /// connections live.
    #[must_use]
    pub fn with_spread(mut self, partitions: u8) -> Self {
        self.spread = partitions.max(1);
        self
    }

    /// Bounds each call, and each page of a list, retries included, by this time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Takes the time from this clock, which decides what has expired, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(clock);
        self
    }

    /// Creates the table, for tests and emulators, and waits until it can be used. One that is there already is left alone.
    ///
    /// For production take the `ConnectionsTable` of `examples/deploy/chat.yaml`.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses.
    pub async fn create_table(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        table::create(&self.client, &self.table).await
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// What takes the place of a connection that was removed, so that it does not come back.
    fn grave(&self, key: &ConnectionKey) -> Record {
        let now = self.now();
        item::grave(key, now.checked_add(GRAVE).unwrap_or(now))
    }

    /// The connection's item or its grave.
    async fn item(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Record>, RegistryError> {
        let request = self.client.get_item().table_name(&*self.table).set_key(Some(item::connection_key(key)));
        let request = request.consistent_read(consistency == Consistency::Strong);
        Ok(self.call(self.span(), || request.clone().send()).await?.item)
    }

    /// The connection's item with its groups, if it is registered.
    async fn row(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Row>, RegistryError> {
        self.item(key, consistency).await?.map_or(Ok(None), |item| self.open(key, &item))
    }

    /// The item as a connection, unless it is a grave or has expired.
    fn open(&self, key: &ConnectionKey, item: &Record) -> Result<Option<Row>, RegistryError> {
        let row = item::row(key.namespace(), item)?;
        Ok(row.filter(|row| row.connection.expires_at() > self.now()))
    }
}

#[async_trait]
impl Registry for DynamoDb {
    async fn insert(&self, connection: &Connection) -> Result<bool, RegistryError> {
        let request = self
            .client
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(item::of_connection(connection, self.spread)))
            // DynamoDB removes what has expired when it comes to it, so the time is looked at here too.
            .condition_expression("attribute_not_exists(pk) OR expiresAt <= :now")
            .expression_attribute_values(":now", number(self.now()));
        match self.put(self.span(), request).await? {
            Put::Done(_) => Ok(true),
            Put::Refused(item) => {
                let item = match item {
                    Some(item) => Some(item),
                    None => self.item(connection.key(), Consistency::Strong).await?,
                };
                Ok(!item.is_some_and(|item| item::is_grave(&item)))
            }
        }
    }

    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Removed>, RegistryError> {
        let request = self
            .client
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(self.grave(key)))
            .condition_expression("attribute_not_exists(groups)")
            .return_values(ReturnValue::AllOld);
        let span = self.span();
        let old = match self.put(span, request).await? {
            Put::Done(old) => old,
            // It is in groups, which it leaves in the same transaction.
            Put::Refused(item) => {
                let known = item.map_or(Ok(None), |item| self.open(key, &item))?;
                return self.remove_from_groups(key, known, span).await;
            }
        };
        let row = old.map_or(Ok(None), |item| self.open(key, &item))?;
        Ok(row.map(|row| Removed::new(row.connection, Vec::new())))
    }

    async fn find(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Connection>, RegistryError> {
        Ok(self.row(key, consistency).await?.map(|row| row.connection))
    }

    async fn touch(&self, key: &ConnectionKey, seen_at: SystemTime) -> Result<bool, RegistryError> {
        let request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .set_key(Some(item::connection_key(key)))
            .update_expression("SET seenAt = :at")
            .condition_expression("seenAt < :at AND expiresAt > :now")
            .expression_attribute_values(":at", millis(seen_at))
            .expression_attribute_values(":now", number(self.now()));
        match self.update(self.span(), request).await? {
            Updated::Done => Ok(true),
            // It is not there, or was seen later already.
            Updated::Refused => Ok(self.row(key, Consistency::Strong).await?.is_some()),
        }
    }

    async fn join(&self, key: &ConnectionKey, group: &Group) -> Result<Joined, RegistryError> {
        self.join_group(key, group).await
    }

    async fn leave(&self, key: &ConnectionKey, group: &Group) -> Result<Left, RegistryError> {
        self.leave_group(key, group).await
    }

    async fn leave_all(&self, key: &ConnectionKey) -> Result<Vec<Departure>, RegistryError> {
        self.leave_groups(key, self.span()).await
    }

    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
        let row = self.row(key, Consistency::Strong).await?;
        Ok(row.map(|row| row.groups.into_iter().collect()).unwrap_or_default())
    }

    async fn disband(&self, namespace: &Namespace, group: &Group) -> Result<usize, RegistryError> {
        self.disband_group(namespace, group).await
    }

    fn connections(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection> {
        self.list(audience, options)
    }

    fn principals(&self, namespace: &Namespace, group: &Group, options: ReadOptions) -> Pages<'_, Principal> {
        self.list_principals(namespace, group, options)
    }

    fn unseen_since(&self, namespace: &Namespace, time: SystemTime, options: ReadOptions) -> Pages<'_, Connection> {
        self.list_unseen(namespace, time, options)
    }
}

/// Leaves out the client, which holds credentials.
impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("table", &self.table).field("spread", &self.spread).finish_non_exhaustive()
    }
}
