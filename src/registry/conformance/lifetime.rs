//! From `$connect` to `$disconnect`, or to expiry.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{
    Connection, ConnectionData, Consistency, Group, Inserted, Joined, Left, MAX_DATA_BYTES, Principal, ReadOptions,
    RegistryError, Slice,
};
use super::{World, all, group, left, once, set};

const MINUTE: Duration = Duration::from_secs(60);
const NEW: Inserted = Inserted::New { groups: Vec::new() };

async fn find(world: &World<'_>, id: &str) -> Option<Connection> {
    world.registry.find(&world.key(id), Consistency::Strong).await.unwrap()
}

pub(super) async fn inserted_connection_is_found(world: &World<'_>) {
    let full = world.connection("full", "alice").with_data(&json!({"room": "lobby", "seats": [1, 2]})).unwrap();
    let full = full.with_authorization_expiry(Some(world.clock.now() + MINUTE));
    let bare = world.anonymous("bare").with_expiry(world.clock.now() + MINUTE);
    for connection in [&full, &bare] {
        assert_eq!(find(world, connection.id().as_str()).await, None);
        assert_eq!(world.registry.insert(connection).await.unwrap(), NEW);
        assert_eq!(find(world, connection.id().as_str()).await.as_ref(), Some(connection));
    }
    let found = find(world, "full").await.unwrap();
    assert_eq!(found.data::<Value>().unwrap().unwrap()["seats"][1], 2);
    for audience in [world.namespace.everyone(), world.namespace.principal(&Principal::new("alice").unwrap())] {
        let listed = all(world.registry.connections(&audience, ReadOptions::default())).await;
        assert!(listed.contains(&full), "{audience:?}");
    }
    // A list has the whole record of each connection, so no further lookup is needed.
    let lobby = group("lobby");
    assert_eq!(world.registry.join(full.key(), &lobby).await.unwrap(), Joined::First);
    let listed = all(world.registry.connections(&world.group(&lobby), ReadOptions::default().consistent())).await;
    assert_eq!(listed, [full]);
}

pub(super) async fn repeated_insert_changes_nothing(world: &World<'_>) {
    let first = world.connection("one", "alice").with_data("first").unwrap();
    assert_eq!(world.registry.insert(&first).await.unwrap(), NEW);
    assert_eq!(world.registry.join(first.key(), &group("lobby")).await.unwrap(), Joined::First);
    let second = world.connection("one", "bob").with_data("second").unwrap();
    assert_eq!(world.registry.insert(&second).await.unwrap(), Inserted::Already);
    let inserted = world.registry.insert_into(&second, &[group("kitchen")]).await.unwrap();
    assert_eq!(inserted, Inserted::Already);
    assert_eq!(find(world, "one").await.as_ref(), Some(&first));
    assert_eq!(world.registry.groups(first.key()).await.unwrap(), [group("lobby")]);
}

pub(super) async fn unknown_connection_is_no_error(world: &World<'_>) {
    let (key, lobby) = (world.key("unknown"), group("lobby"));
    assert_eq!(find(world, "unknown").await, None);
    assert_eq!(world.registry.join(&key, &lobby).await.unwrap(), Joined::NotConnected);
    assert_eq!(world.registry.leave(&key, &lobby).await.unwrap(), Left::NotMember);
    assert_eq!(world.registry.leave_all(&key).await.unwrap(), None);
    assert_eq!(world.registry.set_data(&key, None).await.unwrap(), None);
    assert_eq!(world.registry.groups(&key).await.unwrap(), Vec::<Group>::new());
    assert_eq!(world.registry.disband(&world.namespace, &lobby).await.unwrap(), 0);
    assert_eq!(world.registry.remove(&key).await.unwrap(), None);
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&[]));
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&[]));
    assert_eq!(world.principals(&lobby).await, set(&[]));
}

pub(super) async fn removed_connection_is_absent(world: &World<'_>) {
    let (lobby, kitchen, alice) = (group("lobby"), group("kitchen"), Principal::new("alice").unwrap());
    let one = world.connect("one", "alice").await;
    let other = world.connect("other", "alice").await;
    for (key, group) in [(&one, &lobby), (&one, &kitchen), (&other, &lobby)] {
        assert!(matches!(world.registry.join(key, group).await.unwrap(), Joined::First | Joined::Another));
    }
    let removed = world.registry.remove(&one).await.unwrap().unwrap();
    assert_eq!(removed.connection, world.connection("one", "alice"));
    assert_eq!(left(&removed.groups), [(kitchen.clone(), Left::Last), (lobby.clone(), Left::Another)]);
    assert_eq!(find(world, "one").await, None);
    assert_eq!(world.registry.groups(&one).await.unwrap(), Vec::<Group>::new());
    for audience in [world.namespace.everyone(), world.namespace.principal(&alice), world.group(&lobby)] {
        assert_eq!(world.ids(&audience).await, set(&["other"]), "{audience:?}");
    }
    assert_eq!(world.ids(&world.group(&kitchen)).await, set(&[]));
    assert_eq!((world.principals(&lobby).await, world.principals(&kitchen).await), (set(&["alice"]), set(&[])));
    assert_eq!(world.registry.join(&one, &lobby).await.unwrap(), Joined::NotConnected);
    assert_eq!(world.registry.remove(&one).await.unwrap(), None, "a connection is removed only once");
    let last = world.registry.remove(&other).await.unwrap().unwrap();
    assert_eq!(left(&last.groups), [(lobby, Left::Last)]);
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&[]));
}

pub(super) async fn tombstone_prevents_reinsertion(world: &World<'_>) {
    let late = world.connection("late", "alice");
    assert_eq!(world.registry.remove(late.key()).await.unwrap(), None, "`$disconnect` overtakes `$connect`");
    assert_eq!(world.registry.insert(&late).await.unwrap(), Inserted::Removed);
    let repeated = world.connection("repeated", "alice");
    assert_eq!(world.registry.insert(&repeated).await.unwrap(), NEW);
    assert!(world.registry.remove(repeated.key()).await.unwrap().is_some());
    assert_eq!(world.registry.insert(&repeated).await.unwrap(), Inserted::Removed, "a `$connect` that is retried");
    let inserted = world.registry.insert_into(&repeated, &[group("lobby")]).await.unwrap();
    assert_eq!(inserted, Inserted::Removed);
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&[]));
    assert_eq!(world.registry.join(late.key(), &group("lobby")).await.unwrap(), Joined::NotConnected);
    assert_eq!(world.registry.join(repeated.key(), &group("lobby")).await.unwrap(), Joined::NotConnected);
    world.clock.advance(16 * MINUTE);
    let inserted = world.registry.insert(&world.connection("late", "alice")).await.unwrap();
    assert_eq!(inserted, NEW, "a tombstone expires");
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&["late"]));
}

pub(super) async fn namespaces_are_isolated(world: &World<'_>) {
    let other = World::new(world.registry, world.clock, world.many);
    let lobby = group("lobby");
    for world in [world, &other] {
        let key = world.connect("same", "alice").await;
        assert_eq!(world.registry.join(&key, &lobby).await.unwrap(), Joined::First);
    }
    assert_eq!(other.registry.disband(&other.namespace, &lobby).await.unwrap(), 1);
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&["same"]));
    assert!(other.registry.remove(&other.key("same")).await.unwrap().is_some());
    assert!(find(world, "same").await.is_some());
    let alice = world.namespace.principal(&Principal::new("alice").unwrap());
    for audience in [world.namespace.everyone(), alice, world.group(&lobby)] {
        assert_eq!(world.ids(&audience).await, set(&["same"]), "{audience:?}");
    }
    assert_eq!((world.principals(&lobby).await, other.principals(&lobby).await), (set(&["alice"]), set(&[])));
    assert_eq!(other.ids(&other.namespace.everyone()).await, set(&[]));
}

pub(super) async fn expired_connection_is_absent(world: &World<'_>) {
    let lobby = group("lobby");
    let short = world.connection("short", "alice").with_expiry(world.clock.now() + 10 * MINUTE);
    assert_eq!(world.registry.insert(&short).await.unwrap(), NEW);
    let long = world.connect("long", "bob").await;
    world.clock.advance(5 * MINUTE);
    for key in [short.key(), &long] {
        assert_eq!(world.registry.join(key, &lobby).await.unwrap(), Joined::First);
    }
    world.clock.advance(5 * MINUTE);
    assert_eq!(find(world, "short").await, None);
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&["long"]));
    assert_eq!(world.ids(&world.namespace.principal(&Principal::new("alice").unwrap())).await, set(&[]));
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&["long"]));
    assert_eq!(world.principals(&lobby).await, set(&["bob"]));
    assert_eq!(world.registry.join(short.key(), &group("kitchen")).await.unwrap(), Joined::NotConnected);
    assert_eq!(world.registry.leave(short.key(), &lobby).await.unwrap(), Left::NotMember);
    assert_eq!(world.registry.groups(short.key()).await.unwrap(), Vec::<Group>::new());
    assert_eq!(world.registry.leave_all(short.key()).await.unwrap(), None);
    let late = world.connection("late", "alice").with_expiry(world.clock.now());
    assert_eq!(world.registry.insert(&late).await.unwrap(), Inserted::Removed, "the connection has expired");
    // A principal that joins again is the first again.
    let again = world.connect("again", "alice").await;
    assert_eq!(world.registry.join(&again, &lobby).await.unwrap(), Joined::First);
    assert_eq!(world.registry.remove(short.key()).await.unwrap(), None);
    assert_eq!(world.principals(&lobby).await, set(&["alice", "bob"]));
}

/// A principal is present as long as one of its connections is, however the others end.
pub(super) async fn presence_heals_when_connections_expire(world: &World<'_>) {
    let lobby = group("lobby");
    let short = world.connection("short", "alice").with_expiry(world.clock.now() + 10 * MINUTE);
    let long = world.connection("long", "alice").with_expiry(world.clock.now() + 30 * MINUTE);
    for (connection, expected) in [(&short, Joined::First), (&long, Joined::Another)] {
        assert_eq!(world.registry.insert(connection).await.unwrap(), NEW);
        assert_eq!(world.registry.join(connection.key(), &lobby).await.unwrap(), expected);
    }
    world.clock.advance(11 * MINUTE);
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&["long"]));
    assert_eq!(world.registry.leave(long.key(), &lobby).await.unwrap(), Left::Last, "the other connection has expired");
    assert_eq!(world.principals(&lobby).await, set(&[]));
    assert_eq!(world.registry.join(long.key(), &lobby).await.unwrap(), Joined::First);
    let removed = world.registry.remove(long.key()).await.unwrap().unwrap();
    assert_eq!(left(&removed.groups), [(lobby.clone(), Left::Last)]);

    // The same when the connection that expires later is removed first, and a third joins beside an
    // expired one.
    let (early, late) = (world.connection("early", "bob"), world.connect("late", "bob").await);
    let early = early.with_expiry(world.clock.now() + 10 * MINUTE);
    assert_eq!(world.registry.insert(&early).await.unwrap(), NEW);
    assert_eq!(world.registry.join(&late, &lobby).await.unwrap(), Joined::First);
    assert_eq!(world.registry.join(early.key(), &lobby).await.unwrap(), Joined::Another);
    assert!(world.registry.remove(&late).await.unwrap().is_some());
    assert_eq!(world.principals(&lobby).await, set(&["bob"]));
    world.clock.advance(11 * MINUTE);
    assert_eq!(world.principals(&lobby).await, set(&[]));
    let third = world.connect("third", "bob").await;
    assert_eq!(world.registry.join(&third, &lobby).await.unwrap(), Joined::First, "the other connection has expired");
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&["third"]));
    let removed = world.registry.remove(&third).await.unwrap().unwrap();
    assert_eq!(left(&removed.groups), [(lobby.clone(), Left::Last)]);
    assert_eq!((world.principals(&lobby).await, world.ids(&world.group(&lobby)).await), (set(&[]), set(&[])));
}

pub(super) async fn groups_are_joined_at_connect(world: &World<'_>) {
    let (lobby, kitchen) = (group("lobby"), group("kitchen"));
    for (id, expected) in [("one", Joined::First), ("other", Joined::Another)] {
        let connection = world.connection(id, "alice");
        let groups = [lobby.clone(), kitchen.clone(), lobby.clone()];
        let Inserted::New { groups } = world.registry.insert_into(&connection, &groups).await.unwrap() else {
            panic!("{id} is newly registered");
        };
        let arrivals: Vec<_> = groups.iter().map(|arrival| (&arrival.group, arrival.joined)).collect();
        assert_eq!(arrivals, [(&lobby, expected), (&kitchen, expected)], "each group is joined once");
        assert_eq!(world.registry.groups(connection.key()).await.unwrap(), [kitchen.clone(), lobby.clone()]);
    }
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&["one", "other"]));
    let many: Vec<Group> = (0..=Group::MAX_AT_ONCE).map(|number| group(&format!("room-{number}"))).collect();
    let refused = world.registry.insert_into(&world.connection("greedy", "bob"), &many).await;
    assert!(matches!(refused, Err(RegistryError::TooManyGroups { count: 100 })), "{refused:?}");
    assert_eq!(find(world, "greedy").await, None);
}

pub(super) async fn data_changes_in_every_list(world: &World<'_>) {
    let (lobby, kitchen) = (group("lobby"), group("kitchen"));
    let connection = world.connection("one", "alice").with_data("old").unwrap();
    let inserted = world.registry.insert_into(&connection, &[lobby.clone(), kitchen.clone()]).await.unwrap();
    assert!(inserted.is_registered());
    for data in [Some("new"), None, Some("newer")] {
        let json = data.map(|data| ConnectionData::new(data).unwrap());
        let changed = world.registry.set_data(connection.key(), json.as_ref()).await.unwrap().unwrap();
        assert_eq!(changed.data::<String>().unwrap().as_deref(), data);
        assert_eq!(find(world, "one").await.as_ref(), Some(&changed));
        for audience in [world.group(&lobby), world.group(&kitchen), world.namespace.everyone()] {
            let listed = all(world.registry.connections(&audience, ReadOptions::default().consistent())).await;
            assert_eq!(listed.as_slice(), std::slice::from_ref(&changed), "{audience:?}");
        }
    }
    assert!(world.registry.leave(connection.key(), &kitchen).await.unwrap() == Left::Last);
    world.registry.remove(connection.key()).await.unwrap();
    assert_eq!(world.registry.set_data(connection.key(), None).await.unwrap(), None);
}

pub(super) async fn slices_cover_everyone(world: &World<'_>) {
    let mut expected = Vec::new();
    for number in 0..60 {
        let id = format!("c{number}");
        expected.push(id.clone());
        match number % 3 {
            0 => assert_eq!(world.registry.insert(&world.anonymous(&id)).await.unwrap(), NEW),
            _ => drop(world.connect(&id, &format!("p{}", number / 4)).await),
        }
    }
    for count in [1, 2, 7, 60, 1000] {
        let mut listed = Vec::new();
        for index in 0..count {
            let slice = Slice::new(index, count);
            let of_slice = all(world.registry.slice(&world.namespace, slice, ReadOptions::default())).await;
            assert!(of_slice.iter().all(|connection| slice.contains(connection)), "{slice:?}");
            listed.extend(of_slice.iter().map(|connection| connection.id().to_string()));
        }
        assert_eq!(once(listed.into_iter()), expected.iter().cloned().collect(), "{count} slices");
    }
    let everyone = world.namespace.everyone();
    assert_eq!(world.registry.count(&everyone, ReadOptions::default().with_page_size(7)).await.unwrap(), 60);
}

pub(super) async fn data_of_any_size_is_returned(world: &World<'_>) {
    for (id, size) in [("empty", 0), ("large", MAX_DATA_BYTES - 2)] {
        let data = "x".repeat(size);
        let connection = world.connection(id, "alice").with_data(&data).unwrap();
        assert_eq!(world.registry.insert(&connection).await.unwrap(), NEW);
        assert_eq!(find(world, id).await.unwrap().data::<String>().unwrap(), Some(data));
    }
}
