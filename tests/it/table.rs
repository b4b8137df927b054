//! The registry in a table, on two servers of DynamoDB that are not ours. `tests/peers/emulators` installs those and runs this.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use futures_util::stream::{self, StreamExt as _};
use lambda_websocket::event::{ApiId, ConnectionId, Stage};
use lambda_websocket::registry::conformance::{self, Clock};
use lambda_websocket::registry::{
    Connection, ConnectionKey, Consistency, DynamoDb, Group, Memory, Namespace, Principal, ReadOptions, Registry,
    RegistryError,
};

use crate::emulators::{dynamodb_local, ministack};
use crate::proxy::Proxy;

async fn conforms(url: &str, many: usize) {
    let clock = Clock::new();
    let registry = DynamoDb::emulated("connections", url).await.with_clock({
        let clock = clock.clone();
        move || clock.now()
    });
    registry.create_table().await.unwrap();
    registry.create_table().await.expect("it is there already");
    conformance::run(&registry, &clock, many).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/peers/emulators"]
async fn a_table_does_what_a_registry_must() {
    conforms(&dynamodb_local().await.url, 10_000).await;
}

#[tokio::test]
#[ignore = "needs ministack: run tests/peers/emulators"]
async fn so_it_does_on_ministack() {
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

/// A table of its own, through a proxy and directly.
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
            through: DynamoDb::emulated(name, proxy.url()).await,
            direct: DynamoDb::emulated(name, url).await,
            client: client(url),
            name: name.to_owned(),
        };
        table.direct.create_table().await.unwrap();
        table
    }

    /// One principal with three connections: in no group, in three and in forty, of which it shares some; and others.
    async fn populate(&self) {
        for (id, groups) in [("lone", 0), ("social", 3), ("busy", 40)] {
            self.direct.insert(&connection(id, "alice")).await.unwrap();
            for number in 0..groups {
                self.direct.join(&key(id), &group(number)).await.unwrap();
            }
        }
        for number in 0..30 {
            let id = format!("other-{number}");
            self.direct.insert(&connection(&id, &format!("p{number}"))).await.unwrap();
            self.direct.join(&key(&id), &group(1)).await.unwrap();
        }
    }

    /// Everything in the table fits together: connections, their places in groups, and how many of a principal are there.
    /// How many connections there are.
    async fn check(&self, when: &str) -> usize {
        let (mut said, mut members) = (BTreeSet::new(), BTreeSet::new());
        let (mut present, mut counted) = (BTreeMap::<(String, String), usize>::new(), BTreeMap::new());
        let (mut connections, mut start) = (0, None);
        loop {
            let scan = self.client.scan().table_name(&self.name).consistent_read(true).set_exclusive_start_key(start);
            let page = scan.send().await.unwrap();
            for item in page.items() {
                let text = |name: &str| item.get(name).map(|value| value.as_s().unwrap().clone());
                let (pk, sk) = (text("pk").unwrap(), text("sk").unwrap());
                let room = || pk.splitn(4, '#').nth(3).unwrap().to_owned();
                match sk.chars().next().unwrap() {
                    '@' if item.contains_key("isClosed") => assert_eq!(item.len(), 4, "{when}: {pk}"),
                    '@' => {
                        connections += 1;
                        let groups = item.get("groups").map(|groups| groups.as_ss().unwrap().clone());
                        said.extend(groups.into_iter().flatten().map(|room| (text("id").unwrap(), room)));
                    }
                    'C' => {
                        members.insert((text("id").unwrap(), room()));
                        *present.entry((text("principal").unwrap(), room())).or_default() += 1;
                    }
                    'P' => {
                        let count: usize = item["connections"].as_n().unwrap().parse().unwrap();
                        counted.insert((text("principal").unwrap(), room()), count);
                    }
                    other => panic!("{when}: an item of an unknown kind: {other}"),
                }
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        assert_eq!(said, members, "{when}: what connections say and what groups say");
        assert_eq!(present, counted, "{when}: how many connections principals have");
        connections
    }
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/peers/emulators"]
async fn what_cannot_be_is_said_at_once() {
    let local = dynamodb_local().await;
    let registry = DynamoDb::emulated("nowhere", &local.url).await;
    let error = registry.insert(&connection("one", "alice")).await.unwrap_err();
    assert_eq!(error.to_string(), r#"there is no table "nowhere" in this account and region"#);
    let unreachable = DynamoDb::emulated("nowhere", "http://127.0.0.1:9").await.with_timeout(Duration::from_secs(1));
    let error = unreachable.find(&key("one"), Consistency::Strong).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable { .. }), "{error:?}");
    let proxy = Proxy::start(local.url.trim_start_matches("http://").parse().unwrap()).await;
    let table = Table::new(&proxy, &local.url, "spoilt").await;
    table.direct.insert(&connection("one", "alice")).await.unwrap();
    // Somebody else writes into the table.
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

/// What a sequence of calls answers, and what is left then.
async fn lived(registry: &dyn Registry, seed: u64) -> Vec<String> {
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    let mut random = SmallRng::seed_from_u64(seed);
    let chat = Namespace::new(format!("chat.{seed}")).unwrap();
    let key = |number: usize| ConnectionKey::new(chat.clone(), ConnectionId::new(format!("c{number}")).unwrap());
    let mut answers = Vec::new();
    for step in 1..=80 {
        let (number, room) = (random.random_range(0..6), group(random.random_range(0..3)));
        let answer = match random.random_range(0..12) {
            0..4 => {
                let connection = connection("any", &format!("p{}", number % 3));
                let (api_id, stage) = (connection.api_id().clone(), connection.stage().clone());
                let new =
                    Connection::new(key(number), api_id, stage, "ws.example.com", SystemTime::UNIX_EPOCH + 2 * YEARS);
                let new = new.with_expiry(SystemTime::now() + Duration::from_secs(3600));
                let new = if number == 5 { new } else { new.with_principal(connection.principal().unwrap().clone()) };
                format!("insert {:?}", registry.insert(&new).await.unwrap())
            }
            4..8 => format!("join {:?}", registry.join(&key(number), &room).await.unwrap()),
            8 => format!("leave {:?}", registry.leave(&key(number), &room).await.unwrap()),
            9 => format!("leave all {:?}", registry.leave_all(&key(number)).await.unwrap()),
            10 => format!("remove {:?}", registry.remove(&key(number)).await.unwrap().map(|removed| removed.groups)),
            _ if random.random_bool(0.2) => format!("disband {}", registry.disband(&chat, &room).await.unwrap()),
            _ => format!("groups {:?}", registry.groups(&key(number)).await.unwrap()),
        };
        answers.push(format!("c{number} {room}: {answer}"));
        if step % 8 != 0 {
            continue;
        }
        let mut there: Vec<String> = Vec::new();
        for room in [group(0), group(1), group(2)] {
            let options = ReadOptions::default().consistent();
            let members = registry.connections(&chat.group(&room), options);
            let members: Vec<_> = members.flat_map(|page| stream::iter(page.unwrap())).collect().await;
            there.extend(members.iter().map(|member| format!("{room} {}", member.id())));
            let principals = registry.principals(&chat, &room, options);
            let principals: Vec<_> = principals.flat_map(|page| stream::iter(page.unwrap())).collect().await;
            there.extend(principals.iter().map(|principal| format!("{room} {principal}")));
        }
        there.sort();
        answers.push(there.join(", "));
    }
    answers
}

const YEARS: Duration = Duration::from_secs(25 * 365 * 24 * 3600);

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/peers/emulators"]
async fn table_and_memory_answer_the_same() {
    let local = dynamodb_local().await;
    let table = DynamoDb::emulated("same", &local.url).await;
    table.create_table().await.unwrap();
    for seed in 0..40 {
        let (expected, found) = (lived(&Memory::new(), seed).await, lived(&table, seed).await);
        for (number, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert_eq!(found, expected, "seed {seed}, answer {number}");
        }
    }
}

#[tokio::test]
#[ignore = "needs ministack: run tests/peers/emulators"]
async fn the_table_itself_removes_what_has_expired() {
    // It looks once in a minute; DynamoDB Local more seldom.
    let ministack = ministack().await;
    let table = DynamoDb::emulated("expiring", &ministack.url).await;
    table.create_table().await.unwrap();
    let short = connection("short", "alice").with_expiry(SystemTime::now() + Duration::from_secs(2));
    for connection in [&short, &connection("long", "bob")] {
        assert!(table.insert(connection).await.unwrap());
        table.join(connection.key(), &group(1)).await.unwrap();
    }
    let client = client(&ministack.url);
    let items = async || client.scan().table_name("expiring").send().await.unwrap().count();
    assert_eq!(items().await, 6, "two connections, each in a group with its principal");
    for _ in 0..150 {
        if items().await == 3 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("what has expired is still there: {} items", items().await);
}
