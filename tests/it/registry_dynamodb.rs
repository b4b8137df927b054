//! The registry in a DynamoDB table: on `tests/support/dynamo`, and on two third-party servers that `tests/interop/emulators`
//! installs before it runs those tests.

mod cost;
mod faults;
mod interleavings;
mod life;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use lambda_websocket::event::{ApiId, ConnectionId, Stage};
use lambda_websocket::registry::conformance::{self, Clock};
use lambda_websocket::registry::{
    Connection, ConnectionKey, Consistency, DynamoDb, Group, Namespace, Principal, Registry, RegistryError,
};

use crate::dynamo::Dynamo;
use crate::emulators::{dynamodb_local, ministack};
use crate::proxy::Proxy;

#[tokio::test]
async fn in_process_table_conforms() {
    conforms(&Dynamo::start().await.url, 300).await;
}

async fn conforms(url: &str, many: usize) {
    let clock = Clock::new();
    let registry = DynamoDb::with_endpoint_url("connections", url).await.with_clock({
        let clock = clock.clone();
        move || clock.now()
    });
    registry.create_table().await.unwrap();
    registry.create_table().await.expect("it is there already");
    conformance::run(&registry, &clock, many).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/interop/emulators"]
async fn dynamodb_local_conforms() {
    conforms(&dynamodb_local().await.url, 2_000).await;
}

#[tokio::test]
#[ignore = "needs ministack: run tests/interop/emulators"]
async fn dynamodb_conforms_on_ministack() {
    conforms(&ministack().await.url, 1_000).await;
}

fn namespace() -> Namespace {
    Namespace::new("chat").unwrap()
}

fn key(id: &str) -> ConnectionKey {
    ConnectionKey::new(namespace(), ConnectionId::new(id).unwrap())
}

fn connection(id: &str, principal: &str) -> Connection {
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
    let connection =
        Connection::new(key(id), api_id, stage, "ws.example.com", SystemTime::now() - Duration::from_secs(600));
    connection.with_principal(Principal::new(principal).unwrap())
}

fn group(number: usize) -> Group {
    Group::new(format!("room-{number:02}")).unwrap()
}

/// A separate table, through a proxy and directly.
struct Table {
    proxy: Proxy,
    through: DynamoDb,
    direct: DynamoDb,
    client: Client,
    name: String,
}

fn client(url: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("any", "any", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(url);
    Client::from_conf(config.build())
}

impl Table {
    async fn new(proxy: &Proxy, url: &str, name: &str) -> Self {
        let table = Self {
            proxy: proxy.clone(),
            through: DynamoDb::with_endpoint_url(name, proxy.url()).await,
            direct: DynamoDb::with_endpoint_url(name, url).await,
            client: client(url),
            name: name.to_owned(),
        };
        table.direct.create_table().await.unwrap();
        table
    }

    /// Inserts one principal with three connections (in no group, in three, and in twenty, partly shared), and ten others.
    async fn populate(&self) {
        for (id, groups) in [("lone", 0), ("social", 3), ("busy", 20)] {
            let groups: Vec<Group> = (0..groups).map(group).collect();
            let inserted = self.direct.insert_into(&connection(id, "alice"), &groups).await.unwrap();
            assert!(inserted.is_registered());
        }
        for number in 0..10 {
            let connection = connection(&format!("other-{number}"), &format!("p{number}"));
            assert!(self.direct.insert_into(&connection, &[group(1)]).await.unwrap().is_registered());
        }
    }

    /// Checks the consistency of the table: the groups of connections and the members of groups match.
    ///
    /// A closed connection may still be in groups that its tombstone lists, if the removal was interrupted. Returns the number
    /// of registered connections.
    async fn check(&self, when: &str, is_interrupted: bool) -> usize {
        let (mut said, mut closed) = (BTreeSet::new(), BTreeSet::new());
        let mut members = BTreeSet::new();
        let (mut connections, mut start) = (0, None);
        loop {
            let scan = self.client.scan().table_name(&self.name).consistent_read(true).set_exclusive_start_key(start);
            let page = scan.send().await.unwrap();
            for item in page.items() {
                let text = |name: &str| item.get(name).map(|value| value.as_s().unwrap().clone());
                let (pk, sk) = (text("pk").unwrap(), text("sk").unwrap());
                match sk.chars().next().unwrap() {
                    '@' => {
                        let id = pk.splitn(3, '#').nth(2).unwrap().to_owned();
                        let groups = item.get("groups").map(|groups| groups.as_ss().unwrap().clone());
                        let places = groups.into_iter().flatten().map(|room| (id.clone(), room));
                        match item.contains_key("isClosed") {
                            true => {
                                assert!(!item.contains_key("listKey"), "{when}: {pk} is listed");
                                closed.extend(places);
                            }
                            false => {
                                connections += 1;
                                said.extend(places);
                            }
                        }
                    }
                    'C' | 'P' => {
                        let room = pk.splitn(4, '#').nth(3).unwrap();
                        let ids = item["members"].as_m().unwrap();
                        assert!(is_interrupted || !ids.is_empty(), "{when}: {pk} {sk} is empty");
                        members.extend(ids.keys().map(|id| (id.clone(), room.to_owned())));
                    }
                    other => panic!("{when}: an item of an unknown kind: {other}"),
                }
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        let left_behind: BTreeSet<_> = members.difference(&said).cloned().collect();
        assert!(said.is_subset(&members), "{when}: a connection says that it is in a group, which does not have it");
        assert!(left_behind.is_subset(&closed), "{when}: a group has a connection that does not say so");
        assert!(is_interrupted || left_behind.is_empty(), "{when}: {left_behind:?} are left behind");
        connections
    }
}

#[tokio::test]
async fn errors_are_distinguished() {
    errors(&Dynamo::start().await.url).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/interop/emulators"]
async fn errors_are_distinguished_on_dynamodb_local() {
    errors(&dynamodb_local().await.url).await;
}

async fn errors(url: &str) {
    let registry = DynamoDb::with_endpoint_url("nowhere", url).await;
    let error = registry.insert(&connection("one", "alice")).await.unwrap_err();
    let text = r#"there is no table "nowhere" in this account and region, or it lacks the index `connections`"#;
    assert_eq!(error.to_string(), text);
    let unreachable =
        DynamoDb::with_endpoint_url("nowhere", "http://127.0.0.1:9").await.with_timeout(Duration::from_secs(1));
    let error = unreachable.find(&key("one"), Consistency::Strong).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable { .. }), "{error:?}");
    let proxy = Proxy::start(url.trim_start_matches("http://").parse().unwrap()).await;
    let table = Table::new(&proxy, url, "spoilt").await;
    assert!(table.direct.insert(&connection("one", "alice")).await.unwrap().is_registered());
    // Another writer corrupts the table.
    let update = table.client.update_item().table_name("spoilt");
    let update = update
        .key("pk", aws_sdk_dynamodb::types::AttributeValue::S("C#chat#one".into()))
        .key("sk", aws_sdk_dynamodb::types::AttributeValue::S("@".into()))
        .update_expression("SET stage = :spoilt")
        .expression_attribute_values(":spoilt", aws_sdk_dynamodb::types::AttributeValue::S("not a stage".into()));
    update.send().await.unwrap();
    let error = table.direct.find(&key("one"), Consistency::Strong).await.unwrap_err();
    let text = "a record of the registry is not readable: `stage`: stage \"not a stage\" is not valid: expected 1 to 128 \
                letters, digits, `_` or `-`";
    assert_eq!(error.to_string(), text);
    let shared: Arc<dyn Registry> = Arc::new(table.direct.clone());
    assert!(format!("{shared:?}").starts_with(r#"DynamoDb { table: "spoilt""#));
}

#[tokio::test]
#[ignore = "needs ministack: run tests/interop/emulators"]
async fn time_to_live_removes_expired_items() {
    // MiniStack deletes expired items once a minute; DynamoDB Local less often.
    let ministack = ministack().await;
    let table = DynamoDb::with_endpoint_url("expiring", &ministack.url).await;
    table.create_table().await.unwrap();
    let short = connection("short", "alice").with_expiry(SystemTime::now() + Duration::from_secs(2));
    for connection in [&short, &connection("long", "bob")] {
        assert!(table.insert_into(connection, &[group(1)]).await.unwrap().is_registered());
    }
    let client = client(&ministack.url);
    let items = async || client.scan().table_name("expiring").send().await.unwrap().count();
    assert_eq!(items().await, 4, "two connections, and their principals in a group");
    for _ in 0..150 {
        if items().await == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("what has expired is still there: {} items", items().await);
}

#[tokio::test]
async fn set_data_succeeds_without_the_group_entry() {
    let url = Dynamo::start().await.url;
    let before = DynamoDb::with_endpoint_url("connections", &url).await;
    before.create_table().await.unwrap();
    // The principal's other connections are in the item of the group's current shard.
    let after = DynamoDb::with_endpoint_url("connections", &url).await.with_group_shards(|_| 64);
    let lobby = group(0);
    for (registry, id) in [(&before, "early"), (&after, "late")] {
        let inserted = registry.insert_into(&connection(id, "alice"), std::slice::from_ref(&lobby)).await.unwrap();
        assert!(inserted.is_registered());
    }
    let data = lambda_websocket::registry::ConnectionData::new("away").unwrap();
    let changed = after.set_data(connection("early", "alice").key(), Some(&data)).await.unwrap();
    assert_eq!(changed.unwrap().data_json(), Some("\"away\""));
    let found = after.find(&key("early"), Consistency::Strong).await.unwrap().unwrap();
    assert_eq!(found.data_json(), Some("\"away\""));
}
