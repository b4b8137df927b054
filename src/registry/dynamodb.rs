//! A registry shared by many functions, in a DynamoDB table.

mod call;
mod change;
mod current;
mod item;
mod list;
mod presence;
mod remove;
mod table;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;

use self::item::Record;
use super::name::unique;
use super::{
    Arrivals, Audience, Connection, ConnectionData, ConnectionKey, Consistency, Departures, Group, Inserted, Namespace,
    Pages, Principal, ReadOptions, Registry, RegistryError, Slice,
};
use crate::clock::Clock;
use crate::dynamodb::{self, Retries};

/// A registry in one DynamoDB table.
///
/// A connection is one item, with its id in the key; one index lists all connections, a slice, or
/// the connections of a principal. Each group has an item for each of its principals, with the
/// principal's connections there. `expiresAt` is the table's time-to-live attribute; results
/// exclude expired items even before DynamoDB deletes them. So the presence of a principal needs no
/// counter, and a connection whose `$disconnect` was lost eventually stops counting.
///
/// Joining and leaving are transactions, so a function that is killed leaves nothing half done.
/// Removing first closes the connection and then removes it from its groups: see
/// [`Registry::remove`] for the state that a killed function leaves.
///
/// # Cost
///
/// | call | round trips | write units | read units |
/// |---|---|---|---|
/// | [`insert`](Registry::insert) | 1 | 2 | |
/// | [`insert_into`](Registry::insert_into) `n` groups | 2 | 3 + 2 `n` | 1 + `n` |
/// | [`find`](Registry::find) | 1 | | 0.5, consistent 1 |
/// | [`join_all`](Registry::join_all), [`leave_groups`](Registry::leave_groups), `n` groups | 2 | 2 + 2 `n` | 1 + `n` |
/// | [`remove`](Registry::remove) from `n` groups | 2, without groups 1 | 2 + `n` | 0.5 |
/// | [`set_data`](Registry::set_data), in `n` groups | 2 | 3 + 2 `n` | 1 |
/// | a list of 1000 | 1 for each page of each shard | | 32, consistent 64 |
///
/// The same holds if the principal has other connections. Concurrent requests count as one round
/// trip. The units are for items below one kilobyte, by the rules of
/// [on-demand capacity](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html).
/// With a key that does not [have the principal](ConnectionKey::with_principal), joining and
/// leaving take one more round trip and `n` more read units, and removing one of several
/// connections of a principal takes one more round trip and `n` more write units. At $0.625 for a
/// million write units and $0.125 for a million read units, a million sessions that connect, join
/// one group, and disconnect cost $5.94.
///
/// # Consistency
///
/// Consistent reads see every write that succeeded before, with one exception: the lists of a
/// principal, of a slice, and of everyone come from the index, which DynamoDB updates a little
/// later.
///
/// # Permissions
///
/// The role needs `dynamodb:GetItem`, `BatchGetItem`, `PutItem`, `UpdateItem`, and `DeleteItem` on
/// the table, and `Query` on the table and its index.
///
/// # Limits
///
/// A call takes at most ten seconds, or less if the invocation's deadline is sooner; until then it
/// retries after throttling, conflicts, and failures. A DynamoDB item has at most 400 KB, so a
/// connection can be in some ten thousand groups, and a principal can have some two thousand
/// connections without data in one group.
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::registry::DynamoDb;
///
/// # async fn start() {
/// let registry = DynamoDb::new("connections")
///     .await
///     .with_group_shards(|group| if group == "lobby" { 8 } else { 1 });
/// # }
/// ```
#[derive(Clone)]
pub struct DynamoDb {
    client: Client,
    table: Arc<str>,
    shards: Arc<dyn Fn(&Group) -> u8 + Send + Sync>,
    timeout: Option<Duration>,
    clock: Clock,
}

impl DynamoDb {
    /// Creates a registry for this table.
    ///
    /// Credentials, region, and endpoint come from the environment.
    pub async fn new(table: impl Into<String>) -> Self {
        Self::over(table, dynamodb::client(Retries::Caller).await)
    }

    /// Creates a registry for this table, with the settings of this configuration.
    ///
    /// The settings are credentials, region, endpoint, HTTP client, and timeouts.
    ///
    /// Use it for an assumed role, a proxy, or a custom endpoint, or to share one HTTP client among
    /// tables. Defaults for missing settings are those of [`new`](Self::new): an HTTP client with
    /// rustls and ring, and timeouts of 3 seconds to connect and 5 for an attempt. The SDK's
    /// retries are disabled, because this crate retries.
    ///
    /// # Examples
    ///
    /// A table in another account, with the default features of `aws-config`, which bring the HTTP
    /// client for the role:
    ///
    /// ```no_run
    /// use aws_config::BehaviorVersion;
    /// use aws_config::sts::AssumeRoleProvider;
    /// use aws_credential_types::provider::SharedCredentialsProvider;
    /// use lambda_websocket::registry::DynamoDb;
    ///
    /// # async fn start() {
    /// let base = aws_config::load_defaults(BehaviorVersion::latest()).await;
    /// let role =
    ///     AssumeRoleProvider::builder("arn:aws:iam::123456789012:role/connections")
    ///         .configure(&base)
    ///         .build()
    ///         .await;
    /// let config = base
    ///     .to_builder()
    ///     .credentials_provider(SharedCredentialsProvider::new(role))
    ///     .build();
    /// let registry = DynamoDb::from_config("connections", &config);
    /// # }
    /// ```
    pub fn from_config(table: impl Into<String>, config: &SdkConfig) -> Self {
        Self::over(table, dynamodb::from_config(config, Retries::Caller))
    }

    /// Creates a registry for a table of an emulator at this URL.
    ///
    /// The emulator must accept any credentials.
    pub async fn with_endpoint_url(table: impl Into<String>, url: impl Into<String>) -> Self {
        Self::over(table, dynamodb::with_endpoint_url(url, Retries::Caller).await)
    }

    fn over(table: impl Into<String>, client: Client) -> Self {
        let table: String = table.into();
        Self { client, table: table.into(), shards: Arc::new(|_| 1), timeout: None, clock: Clock::default() }
    }

    /// Shards the items of a group over this many partitions. Default: 1.
    ///
    /// A DynamoDB partition supports 1000 write units and 3000 read units a second; a join takes
    /// two write units of it. With more shards, a large group can be joined and read faster, but
    /// every read of the group takes that many requests. All functions that use the table must
    /// agree: after the shards of a group change, reads of the group are incomplete until its
    /// members have joined again.
    #[must_use]
    pub fn with_group_shards(mut self, shards: impl Fn(&Group) -> u8 + Send + Sync + 'static) -> Self {
        self.shards = Arc::new(shards);
        self
    }

    /// Sets the timeout of each call, and of each page of a list, including retries. Default: 10
    /// seconds.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Uses this clock, which decides which connections have expired, for tests.
    ///
    /// Default: the system clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(clock);
        self
    }

    /// Creates the table and waits until it is active, for tests and emulators.
    ///
    /// An existing table is not changed.
    ///
    /// For production, use the `ConnectionsTable` of `examples/deploy/chat.yaml`.
    ///
    /// # Errors
    ///
    /// The SDK's error if DynamoDB rejects a request, or an error if the table is not active after
    /// 60 seconds.
    pub async fn create_table(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        table::create(&self.client, &self.table).await
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn shards_of(&self, group: &Group) -> u8 {
        (self.shards)(group).max(1)
    }

    fn member_key(&self, key: &ConnectionKey, principal: Option<&Principal>, group: &Group) -> Record {
        item::member_key(key, principal, group, self.shards_of(group))
    }

    /// Returns the connection's item, if it is registered.
    async fn row(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<item::Row>, RegistryError> {
        let request = self.client.get_item().table_name(&*self.table).set_key(Some(item::connection_key(key)));
        let request = request.consistent_read(consistency == Consistency::Strong);
        let Some(item) = self.call(self.span(), || request.clone().send()).await?.item else { return Ok(None) };
        if item::is_tombstone(&item) {
            return Ok(None);
        }
        Ok(item::row(key.namespace(), &item)?.filter(|row| row.connection.expires_at() > self.now()))
    }
}

#[async_trait]
impl Registry for DynamoDb {
    async fn insert_into(&self, connection: &Connection, groups: &[Group]) -> Result<Inserted, RegistryError> {
        let (span, groups) = (self.span(), unique(groups)?);
        self.until_current(span, || self.try_insert(connection, &groups, span)).await
    }

    async fn remove(&self, key: &ConnectionKey) -> Result<Option<Departures>, RegistryError> {
        self.remove_connection(key).await
    }

    async fn find(&self, key: &ConnectionKey, consistency: Consistency) -> Result<Option<Connection>, RegistryError> {
        Ok(self.row(key, consistency).await?.map(|row| row.connection))
    }

    async fn join_all(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Arrivals>, RegistryError> {
        let (span, groups) = (self.span(), unique(groups)?);
        self.until_current(span, || self.try_join(key, &groups, span)).await
    }

    async fn leave_groups(&self, key: &ConnectionKey, groups: &[Group]) -> Result<Option<Departures>, RegistryError> {
        let (span, groups) = (self.span(), unique(groups)?);
        self.until_current(span, || self.try_leave(key, &groups, span)).await
    }

    async fn groups(&self, key: &ConnectionKey) -> Result<Vec<Group>, RegistryError> {
        let row = self.row(key, Consistency::Strong).await?;
        Ok(row.map(|row| row.groups.into_iter().collect()).unwrap_or_default())
    }

    async fn set_data(
        &self,
        key: &ConnectionKey,
        data: Option<&ConnectionData>,
    ) -> Result<Option<Connection>, RegistryError> {
        let span = self.span();
        self.until_current(span, || self.try_set_data(key, data, span)).await
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

    fn slice(&self, namespace: &Namespace, slice: Slice, options: ReadOptions) -> Pages<'_, Connection> {
        self.list_slice(namespace, slice, options)
    }

    /// Reads an item that does not exist.
    async fn warm_up(&self) -> Result<(), RegistryError> {
        let key = Record::from([("pk".to_owned(), item::text("warm-up")), ("sk".to_owned(), item::text("warm-up"))]);
        let request = self.client.get_item().table_name(&*self.table).set_key(Some(key));
        self.call(self.span(), || request.clone().send()).await.map(drop)
    }
}

/// Omits the client, which holds credentials.
impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("table", &self.table).finish_non_exhaustive()
    }
}
