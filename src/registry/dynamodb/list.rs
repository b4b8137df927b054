//! Lists, page by page.

use std::time::SystemTime;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use futures_util::stream::{self, StreamExt as _};

use super::super::{
    Audience, Connection, Consistency, Group, Namespace, Pages, Principal, ReadOptions, RegistryError, Who,
};
use super::DynamoDb;
use super::item::{self, EVERYONE, PRINCIPALS, Record, millis, number, text};

impl DynamoDb {
    pub(super) fn list(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection> {
        let namespace = audience.namespace();
        let queries = match audience.who() {
            Who::Group(group) => self.group_queries(namespace, group, "C#", options),
            Who::Principal(principal) => {
                let query = self.query(options).index_name(PRINCIPALS).key_condition_expression("principalKey = :key");
                vec![query.expression_attribute_values(":key", text(item::principal_key(namespace, principal)))]
            }
            Who::Everyone => self.everyone_queries(namespace, options),
        };
        let namespace = namespace.clone();
        self.pages(queries, move |record| item::connection(&namespace, record))
    }

    pub(super) fn list_principals(
        &self,
        namespace: &Namespace,
        group: &Group,
        options: ReadOptions,
    ) -> Pages<'_, Principal> {
        self.pages(self.group_queries(namespace, group, "P#", options), item::principal)
    }

    pub(super) fn list_unseen(
        &self,
        namespace: &Namespace,
        time: SystemTime,
        options: ReadOptions,
    ) -> Pages<'_, Connection> {
        let queries = self.everyone_queries(namespace, options).into_iter().map(|query| {
            query
                .filter_expression("expiresAt > :now AND seenAt < :time")
                .expression_attribute_values(":time", millis(time))
        });
        let namespace = namespace.clone();
        self.pages(queries.collect(), move |record| item::connection(&namespace, record))
    }

    fn group_queries(
        &self,
        namespace: &Namespace,
        group: &Group,
        prefix: &str,
        options: ReadOptions,
    ) -> Vec<QueryFluentBuilder> {
        let query = |shard| {
            self.query(options)
                .consistent_read(options.consistency == Consistency::Strong)
                .key_condition_expression("pk = :key AND begins_with(sk, :prefix)")
                .expression_attribute_values(":key", text(item::group_partition(namespace, group, shard)))
                .expression_attribute_values(":prefix", text(prefix))
        };
        (0..self.spread).map(query).collect()
    }

    fn everyone_queries(&self, namespace: &Namespace, options: ReadOptions) -> Vec<QueryFluentBuilder> {
        let query = |shard| {
            self.query(options)
                .index_name(EVERYONE)
                .key_condition_expression("everyoneKey = :key")
                .expression_attribute_values(":key", text(item::everyone_key(namespace, shard)))
        };
        (0..self.spread).map(query).collect()
    }

    fn query(&self, options: ReadOptions) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&*self.table)
            .limit(i32::try_from(options.page_size.max(1)).unwrap_or(i32::MAX))
            .filter_expression("expiresAt > :now")
            .expression_attribute_values(":now", number(self.now()))
    }

    /// The pages of several queries at once, as they come, one of each ahead.
    fn pages<'a, T: Send + 'a>(
        &'a self,
        queries: Vec<QueryFluentBuilder>,
        decode: impl Fn(&Record) -> Result<T, RegistryError> + Clone + Send + 'a,
    ) -> Pages<'a, T> {
        let partitions = queries.into_iter().map(|query| {
            let decode = decode.clone();
            stream::unfold(Some(query), move |query| {
                let decode = decode.clone();
                async move { self.page(query?, decode).await }
            })
            .boxed()
        });
        let mut has_failed = false;
        let pages = stream::select_all(partitions).take_while(move |page| {
            let goes_on = !has_failed;
            has_failed = page.is_err();
            std::future::ready(goes_on)
        });
        Box::pin(pages)
    }

    /// The next page that is not empty, and the query for what comes after it.
    async fn page<T>(
        &self,
        mut query: QueryFluentBuilder,
        decode: impl Fn(&Record) -> Result<T, RegistryError>,
    ) -> Option<(Result<Vec<T>, RegistryError>, Option<QueryFluentBuilder>)> {
        loop {
            let answer = match self.call(self.span(), || query.clone().send()).await {
                Ok(answer) => answer,
                Err(error) => return Some((Err(error), None)),
            };
            let page: Result<Vec<T>, RegistryError> = answer.items().iter().map(&decode).collect();
            let next = answer.last_evaluated_key.map(|key| query.clone().set_exclusive_start_key(Some(key)));
            match (page, next) {
                (Ok(page), Some(next)) if page.is_empty() => query = next,
                (Ok(page), None) if page.is_empty() => return None,
                (page, next) => return Some((page, next)),
            }
        }
    }
}
