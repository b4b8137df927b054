//! Joining and leaving groups.

use std::collections::BTreeSet;

use super::super::{Group, Joined, Left, Principal};
use super::{World, group, left, set};

pub(super) async fn first_join_and_last_leave_are_reported(world: &World<'_>) {
    let lobby = group("lobby");
    let (one, other, bob) =
        (world.connect("one", "alice").await, world.connect("other", "alice").await, world.connect("bob", "bob").await);
    for (key, expected) in [
        (&one, Joined::First),
        (&one, Joined::Already),
        (&bob, Joined::First),
        (&other, Joined::Another),
        (&other, Joined::Already),
    ] {
        assert_eq!(world.registry.join(key, &lobby).await.unwrap(), expected, "{key:?}");
    }
    for (key, expected) in [
        (&one, Left::Another),
        (&one, Left::NotMember),
        (&other, Left::Last),
        (&other, Left::NotMember),
        (&bob, Left::Last),
    ] {
        assert_eq!(world.registry.leave(key, &lobby).await.unwrap(), expected, "{key:?}");
    }
    assert_eq!(
        world.registry.join(&other, &lobby).await.unwrap(),
        Joined::First,
        "joining after the last connection has left"
    );
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&["other"]));
}

pub(super) async fn anonymous_connections_are_each_first(world: &World<'_>) {
    let lobby = group("lobby");
    for id in ["one", "other"] {
        assert!(world.registry.insert(&world.anonymous(id)).await.unwrap().is_registered());
        assert_eq!(world.registry.join(&world.key(id), &lobby).await.unwrap(), Joined::First);
    }
    assert_eq!(world.principals(&lobby).await, set(&[]));
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&["one", "other"]));
    assert_eq!(world.registry.leave(&world.key("one"), &lobby).await.unwrap(), Left::Last);
    let removed = world.registry.remove(&world.key("other")).await.unwrap().unwrap();
    assert_eq!(left(&removed.groups), [(lobby, Left::Last)]);
}

pub(super) async fn principals_are_counted_once(world: &World<'_>) {
    let lobby = group("lobby");
    for number in 0..6 {
        let key = world.connect(&format!("c{number}"), &format!("p{}", number % 2)).await;
        let expected = if number < 2 { Joined::First } else { Joined::Another };
        assert_eq!(world.registry.join(&key, &lobby).await.unwrap(), expected);
    }
    assert_eq!(world.principals(&lobby).await, set(&["p0", "p1"]));
    for (number, expected) in [(0, Left::Another), (2, Left::Another), (4, Left::Last)] {
        assert_eq!(world.registry.leave(&world.key(&format!("c{number}")), &lobby).await.unwrap(), expected);
    }
    assert_eq!(world.principals(&lobby).await, set(&["p1"]));
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&["c1", "c3", "c5"]));
}

pub(super) async fn similar_names_do_not_collide(world: &World<'_>) {
    let names = ["a", "a#b", "1#a", "A", " a", "a ", "#", "ä", "日本", "\"'", "a/b", "C#a", "P#a", "%23", "🦀", "."];
    let longest = "x".repeat(256);
    let names: Vec<&str> = names.into_iter().chain([longest.as_str()]).collect();
    for (number, name) in names.iter().enumerate() {
        let key = world.connect(&format!("c{number}"), name).await;
        assert_eq!(world.registry.join(&key, &group(name)).await.unwrap(), Joined::First, "{name:?}");
    }
    for (number, name) in names.iter().enumerate() {
        let only = set(&[&format!("c{number}")]);
        assert_eq!(world.ids(&world.group(&group(name))).await, only, "the group {name:?}");
        let principal = Principal::new(name).unwrap();
        assert_eq!(world.ids(&world.namespace.principal(&principal)).await, only, "the principal {name:?}");
        assert_eq!(world.principals(&group(name)).await, set(&[name]), "in {name:?}");
    }
}

pub(super) async fn leave_all_leaves_many_groups(world: &World<'_>) {
    let rooms: Vec<Group> = (0..70).map(|number| group(&format!("room-{number:02}"))).collect();
    let (one, other) = (world.connect("one", "alice").await, world.connect("other", "alice").await);
    for room in &rooms {
        assert_eq!(world.registry.join(&one, room).await.unwrap(), Joined::First);
    }
    // In some of the rooms, the principal has another connection.
    for room in rooms.iter().step_by(7) {
        assert_eq!(world.registry.join(&other, room).await.unwrap(), Joined::Another);
    }
    let expected: Vec<(Group, Left)> = (0..)
        .zip(&rooms)
        .map(|(number, room): (usize, _)| {
            (room.clone(), if number.is_multiple_of(7) { Left::Another } else { Left::Last })
        })
        .collect();
    assert_eq!(world.registry.groups(&one).await.unwrap(), rooms);
    assert_eq!(left(&world.registry.leave_all(&one).await.unwrap().unwrap().groups), expected);
    assert_eq!(world.registry.groups(&one).await.unwrap(), Vec::<Group>::new());
    for rooms in rooms.chunks(50) {
        let arrivals = world.registry.join_all(&one, rooms).await.unwrap().unwrap();
        assert!(arrivals.groups.iter().all(|arrival| arrival.joined != Joined::Already), "{arrivals:?}");
    }
    assert_eq!(left(&world.registry.remove(&one).await.unwrap().unwrap().groups), expected);
    for (number, room) in rooms.iter().enumerate() {
        let stay = if number % 7 == 0 { set(&["other"]) } else { BTreeSet::new() };
        assert_eq!(world.ids(&world.group(room)).await, stay, "{room}");
    }
}

pub(super) async fn a_group_is_disbanded(world: &World<'_>) {
    let (lobby, kitchen) = (group("lobby"), group("kitchen"));
    let keys = world.connect_many(60, &lobby).await;
    // Some principals have several connections there.
    for number in 0..10 {
        let key = world.connect(&format!("second-{number}"), &format!("principal-{number}")).await;
        assert_eq!(world.registry.join(&key, &lobby).await.unwrap(), Joined::Another);
        assert_eq!(world.registry.join(&key, &kitchen).await.unwrap(), Joined::First);
    }
    assert_eq!(world.registry.disband(&world.namespace, &lobby).await.unwrap(), 70);
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&[]));
    assert_eq!(world.principals(&lobby).await, set(&[]));
    assert_eq!(world.ids(&world.group(&kitchen)).await.len(), 10);
    assert_eq!(
        world.ids(&world.namespace.everyone()).await.len(),
        70,
        "connections of a disbanded group stay registered"
    );
    for key in &keys {
        assert_eq!(world.registry.groups(key).await.unwrap(), Vec::<Group>::new());
    }
    assert_eq!(world.registry.join(&world.key("many-0"), &lobby).await.unwrap(), Joined::First);
}

pub(super) async fn several_groups_are_joined_and_left_together(world: &World<'_>) {
    let (lobby, kitchen, attic) = (group("lobby"), group("kitchen"), group("attic"));
    let (one, other) = (world.connect("one", "alice").await, world.connect("other", "alice").await);
    assert_eq!(world.registry.join(&one, &lobby).await.unwrap(), Joined::First);
    let groups = [lobby.clone(), kitchen.clone(), lobby.clone()];
    for (key, expected) in [
        (&other, [(&lobby, Joined::Another), (&kitchen, Joined::First)]),
        (&one, [(&lobby, Joined::Already), (&kitchen, Joined::Another)]),
    ] {
        let arrivals = world.registry.join_all(key, &groups).await.unwrap().unwrap();
        assert_eq!(arrivals.connection.key(), key);
        let arrivals: Vec<_> = arrivals.groups.iter().map(|arrival| (&arrival.group, arrival.joined)).collect();
        assert_eq!(arrivals, expected);
    }
    let groups = [attic.clone(), kitchen.clone(), lobby.clone()];
    for (key, expected) in [(&one, Left::Another), (&other, Left::Last)] {
        let departures = world.registry.leave_groups(key, &groups).await.unwrap().unwrap();
        assert_eq!(departures.connection.key(), key);
        let expected = [(attic.clone(), Left::NotMember), (kitchen.clone(), expected), (lobby.clone(), expected)];
        assert_eq!(left(&departures.groups), expected);
    }
    assert_eq!(world.registry.join_all(&world.key("unknown"), &groups).await.unwrap(), None);
    assert_eq!(world.registry.leave_groups(&world.key("unknown"), &groups).await.unwrap(), None);
    let none = world.registry.join_all(&one, &[]).await.unwrap().unwrap();
    assert_eq!(none.groups, []);
}

/// Versions order joins and leaves, even for a client that receives them out of order.
pub(super) async fn versions_order_the_presence_of_a_principal(world: &World<'_>) {
    let lobby = group("lobby");
    let (one, other) = (world.connect("one", "alice").await, world.connect("other", "alice").await);
    let mut last = 0;
    let mut follows = |version: u64, what: &str| {
        assert!(version > last, "{what}: the version {version} is not greater than {last}");
        last = version;
    };
    for _ in 0..3 {
        for (key, what) in [(&one, "one joins"), (&other, "other joins")] {
            let arrivals = world.registry.join_all(key, std::slice::from_ref(&lobby)).await.unwrap().unwrap();
            follows(arrivals.groups[0].version, what);
        }
        for (key, what) in [(&other, "other leaves"), (&one, "one leaves")] {
            let departures = world.registry.leave_groups(key, std::slice::from_ref(&lobby)).await.unwrap().unwrap();
            follows(departures.groups[0].version, what);
        }
        // Some time passes before a principal that has left joins again.
        world.clock.advance(std::time::Duration::from_secs(1));
    }
    let arrivals = world.registry.join_all(&one, std::slice::from_ref(&lobby)).await.unwrap().unwrap();
    follows(arrivals.groups[0].version, "one joins");
    let removed = world.registry.remove(&one).await.unwrap().unwrap();
    follows(removed.groups[0].version, "one is removed");
}
