//! Lists, read page by page.

use std::ops::Range;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use futures_util::stream::{self, StreamExt as _};

use super::super::{
    Audience, AudienceKind, Connection, Consistency, Group, Namespace, Pages, Principal, ReadOptions, RegistryError,
    Slice,
};
use super::DynamoDb;
use super::item::{self, CONNECTIONS, INDEX_SHARDS, Record, number, text};
use super::presence;

impl DynamoDb {
    pub(super) fn list(&self, audience: &Audience, options: ReadOptions) -> Pages<'_, Connection> {
        let namespace = audience.namespace().clone();
        match audience.who() {
            AudienceKind::Group(group) => {
                let queries = self.group_queries(&namespace, group, None, options);
                let now = self.now();
                self.pages(queries, options, move |record| presence::connections(&namespace, record, now))
            }
            AudienceKind::Principal(principal) => {
                let (shard, prefix) = item::principal_prefix(principal);
                let query = self
                    .index_query(&namespace, shard, options)
                    .key_condition_expression("listKey = :key AND begins_with(listSort, :prefix)")
                    .expression_attribute_values(":prefix", text(prefix));
                self.connection_pages(vec![query], namespace, options)
            }
            AudienceKind::Everyone => self.list_slice(&namespace, Slice::new(0, 1), options),
        }
    }

    pub(super) fn list_slice(
        &self,
        namespace: &Namespace,
        slice: Slice,
        options: ReadOptions,
    ) -> Pages<'_, Connection> {
        let positions = slice.range();
        let queries = (0..INDEX_SHARDS).filter_map(|shard| {
            let of_shard = item::positions_of(shard);
            let wanted = Range { start: positions.start.max(of_shard.start), end: positions.end.min(of_shard.end) };
            if wanted.is_empty() {
                return None;
            }
            let query = self.index_query(namespace, shard, options);
            if wanted == of_shard {
                return Some(query.key_condition_expression("listKey = :key"));
            }
            let (first, last) = item::sort_range(wanted);
            Some(
                query
                    .key_condition_expression("listKey = :key AND listSort BETWEEN :first AND :last")
                    .expression_attribute_values(":first", text(first))
                    .expression_attribute_values(":last", text(last)),
            )
        });
        self.connection_pages(queries.collect(), namespace.clone(), options)
    }

    pub(super) fn list_principals(
        &self,
        namespace: &Namespace,
        group: &Group,
        options: ReadOptions,
    ) -> Pages<'_, Principal> {
        let now = self.now();
        self.pages(self.group_queries(namespace, group, Some("P#"), options), options, move |record| {
            let is_there = presence::Presence::read(record)?.living(now).next().is_some();
            is_there.then(|| item::principal(record)).into_iter().collect()
        })
    }

    /// Lists the items of a group.
    pub(super) fn records(&self, namespace: &Namespace, group: &Group, options: ReadOptions) -> Pages<'_, Record> {
        let queries = self.group_queries(namespace, group, None, options);
        self.pages(queries, options, |record| Ok(vec![record.clone()]))
    }

    fn connection_pages(
        &self,
        queries: Vec<QueryFluentBuilder>,
        namespace: Namespace,
        options: ReadOptions,
    ) -> Pages<'_, Connection> {
        self.pages(queries, options, move |record| Ok(vec![item::connection(&namespace, record)?]))
    }

    fn group_queries(
        &self,
        namespace: &Namespace,
        group: &Group,
        prefix: Option<&str>,
        options: ReadOptions,
    ) -> Vec<QueryFluentBuilder> {
        let query = |shard| {
            let query = self
                .query(options)
                .consistent_read(options.consistency == Consistency::Strong)
                .expression_attribute_values(":key", text(item::group_partition(namespace, group, u16::from(shard))));
            match prefix {
                None => query.key_condition_expression("pk = :key"),
                Some(prefix) => query
                    .key_condition_expression("pk = :key AND begins_with(sk, :prefix)")
                    .expression_attribute_values(":prefix", text(prefix)),
            }
        };
        (0..self.shards_of(group)).map(query).collect()
    }

    fn index_query(&self, namespace: &Namespace, shard: u16, options: ReadOptions) -> QueryFluentBuilder {
        self.query(options)
            .index_name(CONNECTIONS)
            .expression_attribute_values(":key", text(item::list_key(namespace, shard)))
    }

    fn query(&self, options: ReadOptions) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&*self.table)
            .limit(i32::try_from(options.page_size.max(1)).unwrap_or(i32::MAX))
            .filter_expression("expiresAt > :now")
            .expression_attribute_values(":now", number(self.now()))
    }

    /// Returns the pages of concurrent queries as they arrive, at most one of each ahead.
    ///
    /// An item may have several entries.
    fn pages<'a, T: Send + 'a>(
        &'a self,
        queries: Vec<QueryFluentBuilder>,
        options: ReadOptions,
        decode: impl Fn(&Record) -> Result<Vec<T>, RegistryError> + Clone + Send + 'a,
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
        let size = options.page_size.max(1);
        Box::pin(pages.flat_map(move |page| {
            stream::iter(match page {
                Ok(page) if page.len() > size => {
                    let mut entries = page.into_iter();
                    std::iter::from_fn(|| {
                        let page: Vec<T> = entries.by_ref().take(size).collect();
                        (!page.is_empty()).then_some(Ok(page))
                    })
                    .collect::<Vec<_>>()
                }
                page => vec![page],
            })
        }))
    }

    /// Returns the next page that is not empty, and the query that continues after it.
    async fn page<T>(
        &self,
        mut query: QueryFluentBuilder,
        decode: impl Fn(&Record) -> Result<Vec<T>, RegistryError>,
    ) -> Option<(Result<Vec<T>, RegistryError>, Option<QueryFluentBuilder>)> {
        let mut was_late = false;
        loop {
            let answer = match self.call(self.span(), || query.clone().send()).await {
                Ok(answer) => answer,
                // The stream may not have been polled while the time ran out.
                Err(RegistryError::TimedOut { .. }) if !was_late => {
                    was_late = true;
                    continue;
                }
                Err(error) => return Some((Err(error), None)),
            };
            let page: Result<Vec<Vec<T>>, RegistryError> = answer.items().iter().map(&decode).collect();
            let page = page.map(|page| page.into_iter().flatten().collect::<Vec<T>>());
            let next = answer.last_evaluated_key.map(|key| query.clone().set_exclusive_start_key(Some(key)));
            match (page, next) {
                (Ok(page), Some(next)) if page.is_empty() => query = next,
                (Ok(page), None) if page.is_empty() => return None,
                (page, next) => return Some((page, next)),
            }
        }
    }
}
