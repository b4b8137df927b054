//! From `$connect` to `$disconnect`, or to expiry.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{
    Connection, Consistency, Departure, Group, Joined, LARGEST_DATA, Left, Principal, ReadOptions, Removed,
};
use super::{World, all, group, set};

const MINUTE: Duration = Duration::from_secs(60);

async fn find(world: &World<'_>, id: &str) -> Option<Connection> {
    world.registry.find(&world.key(id), Consistency::Strong).await.unwrap()
}

pub(super) async fn what_is_inserted_is_found(world: &World<'_>) {
    let full = world.connection("full", "alice").with_data(&json!({"room": "lobby", "seats": [1, 2]})).unwrap();
    let bare = world.anonymous("bare").with_expiry(world.clock.now() + MINUTE);
    for connection in [&full, &bare] {
        assert_eq!(find(world, connection.id().as_str()).await, None);
        assert!(world.registry.insert(connection).await.unwrap());
        assert_eq!(find(world, connection.id().as_str()).await.as_ref(), Some(connection));
    }
    let found = find(world, "full").await.unwrap();
    assert_eq!(found.data::<Value>().unwrap().unwrap()["seats"][1], 2);
    for audience in [world.namespace.everyone(), world.namespace.principal(&Principal::new("alice").unwrap())] {
        let listed = all(world.registry.connections(&audience, ReadOptions::default())).await;
        assert!(listed.contains(&full), "{audience:?}");
    }
    // A list has the whole record, so that nobody needs to look each up.
    let lobby = group("lobby");
    world.registry.join(full.key(), &lobby).await.unwrap();
    let listed = all(world.registry.connections(&world.group(&lobby), ReadOptions::default().consistent())).await;
    assert_eq!(listed, [full]);
}

pub(super) async fn inserting_twice_changes_nothing(world: &World<'_>) {
    let first = world.connection("one", "alice").with_data("first").unwrap();
    assert!(world.registry.insert(&first).await.unwrap());
    world.registry.join(first.key(), &group("lobby")).await.unwrap();
    let second = world.connection("one", "bob").with_data("second").unwrap();
    assert!(world.registry.insert(&second).await.unwrap());
    assert_eq!(find(world, "one").await.as_ref(), Some(&first));
    assert_eq!(world.registry.groups(first.key()).await.unwrap(), [group("lobby")]);
}

pub(super) async fn what_is_unknown_is_no_error(world: &World<'_>) {
    let (key, lobby) = (world.key("unknown"), group("lobby"));
    assert_eq!(find(world, "unknown").await, None);
    assert!(!world.registry.touch(&key, world.clock.now()).await.unwrap());
    assert_eq!(world.registry.join(&key, &lobby).await.unwrap(), Joined::NotConnected);
    assert_eq!(world.registry.leave(&key, &lobby).await.unwrap(), Left::NotMember);
    assert_eq!(world.registry.leave_all(&key).await.unwrap(), []);
    assert_eq!(world.registry.groups(&key).await.unwrap(), Vec::<Group>::new());
    assert_eq!(world.registry.disband(&world.namespace, &lobby).await.unwrap(), 0);
    assert_eq!(world.registry.remove(&key).await.unwrap(), None);
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&[]));
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&[]));
    assert_eq!(world.principals(&lobby).await, set(&[]));
}

pub(super) async fn what_is_removed_is_gone(world: &World<'_>) {
    let (lobby, kitchen, alice) = (group("lobby"), group("kitchen"), Principal::new("alice").unwrap());
    let one = world.connect("one", "alice").await;
    let other = world.connect("other", "alice").await;
    for (key, group) in [(&one, &lobby), (&one, &kitchen), (&other, &lobby)] {
        world.registry.join(key, group).await.unwrap();
    }
    let departures = vec![Departure::new(kitchen.clone(), Left::Last), Departure::new(lobby.clone(), Left::Another)];
    let removed = world.registry.remove(&one).await.unwrap();
    assert_eq!(removed, Some(Removed::new(world.connection("one", "alice"), departures)));
    assert_eq!(find(world, "one").await, None);
    assert_eq!(world.registry.groups(&one).await.unwrap(), Vec::<Group>::new());
    for audience in [world.namespace.everyone(), world.namespace.principal(&alice), world.group(&lobby)] {
        assert_eq!(world.ids(&audience).await, set(&["other"]), "{audience:?}");
    }
    assert_eq!(world.ids(&world.group(&kitchen)).await, set(&[]));
    assert_eq!((world.principals(&lobby).await, world.principals(&kitchen).await), (set(&["alice"]), set(&[])));
    assert_eq!(world.registry.join(&one, &lobby).await.unwrap(), Joined::NotConnected);
    assert_eq!(world.registry.remove(&one).await.unwrap(), None, "the second time there is nothing");
    let last = world.registry.remove(&other).await.unwrap().unwrap();
    assert_eq!(last.groups, [Departure::new(lobby, Left::Last)]);
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&[]));
}

pub(super) async fn what_was_removed_does_not_come_back(world: &World<'_>) {
    let late = world.connection("late", "alice");
    assert_eq!(world.registry.remove(late.key()).await.unwrap(), None, "`$disconnect` overtakes `$connect`");
    assert!(!world.registry.insert(&late).await.unwrap());
    let repeated = world.connection("repeated", "alice");
    assert!(world.registry.insert(&repeated).await.unwrap());
    assert!(world.registry.remove(repeated.key()).await.unwrap().is_some());
    assert!(!world.registry.insert(&repeated).await.unwrap(), "a `$connect` that comes twice");
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&[]));
    assert_eq!(world.registry.join(late.key(), &group("lobby")).await.unwrap(), Joined::NotConnected);
    assert_eq!(world.registry.join(repeated.key(), &group("lobby")).await.unwrap(), Joined::NotConnected);
    world.clock.advance(16 * MINUTE);
    assert!(world.registry.insert(&world.connection("late", "alice")).await.unwrap(), "nothing is kept for ever");
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&["late"]));
}

pub(super) async fn namespaces_are_apart(world: &World<'_>) {
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

pub(super) async fn what_has_expired_is_gone(world: &World<'_>) {
    let lobby = group("lobby");
    let short = world.connection("short", "alice").with_expiry(world.clock.now() + 10 * MINUTE);
    assert!(world.registry.insert(&short).await.unwrap());
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
    assert!(!world.registry.touch(short.key(), world.clock.now()).await.unwrap());
    assert_eq!(world.registry.join(short.key(), &group("kitchen")).await.unwrap(), Joined::NotConnected);
    assert_eq!(world.registry.leave(short.key(), &lobby).await.unwrap(), Left::NotMember);
    assert_eq!(world.registry.groups(short.key()).await.unwrap(), Vec::<Group>::new());
    assert_eq!(world.registry.leave_all(short.key()).await.unwrap(), []);
    let unseen = world.registry.unseen_since(&world.namespace, world.clock.now(), ReadOptions::default());
    assert_eq!(all(unseen).await.len(), 1);
    // Who comes again is the first again.
    let again = world.connect("again", "alice").await;
    assert_eq!(world.registry.join(&again, &lobby).await.unwrap(), Joined::First);
    assert_eq!(world.registry.remove(short.key()).await.unwrap(), None);
    assert_eq!(world.principals(&lobby).await, set(&["alice", "bob"]));
}

pub(super) async fn touching_keeps_from_being_suspected(world: &World<'_>) {
    let opened = world.clock.now();
    for id in ["quiet", "lively", "new"] {
        world.connect(id, "alice").await;
    }
    let unseen = async |since| {
        let unseen = world.registry.unseen_since(&world.namespace, since, ReadOptions::default().with_page_size(1));
        let unseen = all(unseen).await;
        super::once(unseen.iter().map(|connection| connection.id().to_string()))
    };
    assert_eq!(unseen(opened).await, set(&[]));
    assert_eq!(unseen(opened + MINUTE).await, set(&["quiet", "lively", "new"]));
    assert!(world.registry.touch(&world.key("lively"), opened + 2 * MINUTE).await.unwrap());
    assert!(world.registry.touch(&world.key("lively"), opened + MINUTE).await.unwrap(), "what is older counts no more");
    assert!(world.registry.touch(&world.key("new"), opened + MINUTE).await.unwrap());
    assert_eq!(unseen(opened + MINUTE).await, set(&["quiet"]));
    assert_eq!(unseen(opened + 2 * MINUTE).await, set(&["quiet", "new"]));
    world.registry.remove(&world.key("quiet")).await.unwrap();
    assert_eq!(unseen(opened + 3 * MINUTE).await, set(&["lively", "new"]));
}

pub(super) async fn data_of_any_size_come_back(world: &World<'_>) {
    for (id, size) in [("empty", 0), ("large", LARGEST_DATA - 2)] {
        let data = "x".repeat(size);
        let connection = world.connection(id, "alice").with_data(&data).unwrap();
        assert!(world.registry.insert(&connection).await.unwrap());
        assert_eq!(find(world, id).await.unwrap().data::<String>().unwrap(), Some(data));
    }
}
