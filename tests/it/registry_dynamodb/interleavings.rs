//! Two writers whose requests run in every order: the table is consistent afterwards, and a principal's joining and leaving
//! are each reported exactly once.

use std::future::Future;
use std::pin::Pin;

use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _};
use lambda_websocket::event::ConnectionId;
use lambda_websocket::registry::{
    Connection, ConnectionData, ConnectionKey, Consistency, Departures, DynamoDb, Inserted, Joined, Left, Namespace,
    Principal, ReadOptions, Registry,
};
use tokio::sync::watch;

use super::{connection, group};
use crate::dynamo::Dynamo;

/// The number of `First` minus the number of `Last` results of a call.
type Told = i32;
type Change = for<'a> fn(&'a DynamoDb, &'a Scene) -> Pin<Box<dyn Future<Output = Told> + Send + 'a>>;

/// Alice has two tabs, some of which are in the room.
struct Scene {
    namespace: Namespace,
    knows_principal: bool,
}

impl Scene {
    fn connection(&self, id: &str) -> Connection {
        let any = connection("any", "any");
        let key = ConnectionKey::new(self.namespace.clone(), ConnectionId::new(id).unwrap());
        Connection::new(key, any.api_id().clone(), any.stage().clone(), "ws.example.com", any.connected_at())
            .with_principal(Principal::new("alice").unwrap())
    }

    fn key(&self, id: &str) -> ConnectionKey {
        let connection = self.connection(id);
        match self.knows_principal {
            true => connection.key().clone(),
            false => ConnectionKey::new(self.namespace.clone(), connection.id().clone()),
        }
    }
}

fn told(joined: Joined) -> Told {
    i32::from(joined == Joined::First)
}

fn departed(departures: Option<Departures>) -> Told {
    let groups = departures.map(|departures| departures.groups).unwrap_or_default();
    -i32::try_from(groups.iter().filter(|departure| departure.left == Left::Last).count()).unwrap()
}

const JOIN: Change = |table, scene| Box::pin(async { told(table.join(&scene.key("one"), &group(0)).await.unwrap()) });
const JOIN_OTHER: Change =
    |table, scene| Box::pin(async { told(table.join(&scene.key("two"), &group(0)).await.unwrap()) });
const LEAVE: Change =
    |table, scene| Box::pin(async { departed(table.leave_groups(&scene.key("one"), &[group(0)]).await.unwrap()) });
const LEAVE_OTHER: Change =
    |table, scene| Box::pin(async { departed(table.leave_groups(&scene.key("two"), &[group(0)]).await.unwrap()) });
const REMOVE: Change = |table, scene| Box::pin(async { departed(table.remove(&scene.key("one")).await.unwrap()) });
const REMOVE_OTHER: Change =
    |table, scene| Box::pin(async { departed(table.remove(&scene.key("two")).await.unwrap()) });
const SET_DATA: Change = |table, scene| {
    Box::pin(async {
        table.set_data(&scene.key("one"), Some(&ConnectionData::new("away").unwrap())).await.unwrap();
        0
    })
};
const INSERT: Change = |table, scene| {
    Box::pin(async {
        let inserted = table.insert_into(&scene.connection("new"), &[group(0)]).await.unwrap();
        match inserted {
            Inserted::New { groups } => groups.iter().map(|arrival| told(arrival.joined)).sum(),
            _ => 0,
        }
    })
};
const REMOVE_NEW: Change = |table, scene| Box::pin(async { departed(table.remove(&scene.key("new")).await.unwrap()) });

/// Two changes, and the members of the room before them.
const PAIRS: [(&str, Change, Change, &[&str]); 14] = [
    ("join, the same join", JOIN, JOIN, &[]),
    ("join, join of another tab", JOIN, JOIN_OTHER, &[]),
    ("join, leave", JOIN, LEAVE, &[]),
    ("leave, join again", LEAVE, JOIN, &["one"]),
    ("leave, the same leave", LEAVE, LEAVE, &["one"]),
    ("leave, leave of another tab", LEAVE, LEAVE_OTHER, &["one", "two"]),
    ("join, leave of another tab", JOIN, LEAVE_OTHER, &["two"]),
    ("join, remove", JOIN, REMOVE, &[]),
    ("join again, remove", JOIN, REMOVE, &["one"]),
    ("join, remove of another tab", JOIN, REMOVE_OTHER, &["two"]),
    ("leave, remove", LEAVE, REMOVE, &["one", "two"]),
    ("remove, remove of another tab", REMOVE, REMOVE_OTHER, &["one", "two"]),
    ("join, set data", JOIN, SET_DATA, &[]),
    ("insert, remove", INSERT, REMOVE_NEW, &["one"]),
];

/// The first n requests run in every order.
const ORDERS: u32 = 5;

#[tokio::test]
async fn concurrent_writers_are_consistent_in_every_order() {
    let dynamo = Dynamo::start().await;
    let (gate, other_gate) = (dynamo.gated().await, dynamo.gated().await);
    let direct = DynamoDb::with_endpoint_url("orders", &dynamo.url).await;
    direct.create_table().await.unwrap();
    let one = DynamoDb::with_endpoint_url("orders", &gate.url).await;
    let other = DynamoDb::with_endpoint_url("orders", &other_gate.url).await;
    let mut scenes = 0;
    for (name, change, other_change, present) in PAIRS {
        for knows_principal in [true, false] {
            for order in 0..1_u32 << ORDERS {
                scenes += 1;
                let namespace = Namespace::new(format!("scene.{scenes}")).unwrap();
                let scene = Scene { namespace, knows_principal };
                for id in ["one", "two"] {
                    let groups = if present.contains(&id) { vec![group(0)] } else { Vec::new() };
                    assert!(direct.insert_into(&scene.connection(id), &groups).await.unwrap().is_registered());
                }
                let done = watch::Sender::new((false, false));
                let first = async {
                    let told = change(&one, &scene).await;
                    done.send_modify(|done| done.0 = true);
                    told
                };
                let second = async {
                    let told = other_change(&other, &scene).await;
                    done.send_modify(|done| done.1 = true);
                    told
                };
                let schedule = async {
                    let mut done = done.subscribe();
                    for step in 0.. {
                        let (is_first_done, is_second_done) = *done.borrow_and_update();
                        if is_first_done && is_second_done {
                            return;
                        }
                        // After the enumerated orders, the writers alternate.
                        let is_first = if step < ORDERS { order >> step & 1 == 0 } else { step % 2 == 0 };
                        let gate = if is_second_done || is_first && !is_first_done { &gate } else { &other_gate };
                        tokio::select! {
                            () = gate.pass() => {}
                            _ = done.changed() => {}
                        }
                    }
                };
                let ((told, other_told), ()) = join(join(first, second), schedule).await;
                let when = format!("{name}, order {order:05b}, keys that know the principal: {knows_principal}");
                let began = i32::from(!present.is_empty());
                assert_eq!(
                    began + told + other_told,
                    fits(&direct, &scene, &when).await,
                    "{when}: {told}, {other_told}"
                );
            }
        }
    }
    println!("{scenes} scenes");
}

/// Checks that connections and groups are consistent. Returns 1 if the principal is present.
async fn fits(table: &DynamoDb, scene: &Scene, when: &str) -> Told {
    let options = ReadOptions::default().consistent();
    let members = table.connections(&scene.namespace.group(&group(0)), options);
    let members: Vec<Connection> = members.flat_map(|page| stream::iter(page.unwrap())).collect().await;
    for id in ["one", "two", "new"] {
        let key = scene.key(id);
        let found = table.find(&key, Consistency::Strong).await.unwrap();
        let member = members.iter().find(|member| member.id() == key.id());
        let says = table.groups(&key).await.unwrap().contains(&group(0));
        assert_eq!(member.is_some(), says, "{when}: {id} in the group, and as it says");
        if let Some(member) = member {
            assert_eq!(Some(member), found.as_ref(), "{when}: {id} in the group, and by itself");
        }
    }
    let principals: Vec<_> = table
        .principals(&scene.namespace, &group(0), options)
        .flat_map(|page| stream::iter(page.unwrap()))
        .collect()
        .await;
    assert_eq!(principals.is_empty(), members.is_empty(), "{when}");
    i32::from(!members.is_empty())
}
