//! Concurrent changes.

use futures_util::future::{join, join_all, join4};

use super::super::{Group, Joined, Left};
use super::{World, group, set};

pub(super) async fn concurrent_joins_are_kept(world: &World<'_>) {
    let key = world.connect("one", "alice").await;
    let rooms: Vec<Group> = (0..20).map(|number| group(&format!("room-{number:02}"))).collect();
    for joined in join_all(rooms.iter().map(|room| world.registry.join(&key, room))).await {
        assert_eq!(joined.unwrap(), Joined::First);
    }
    assert_eq!(world.registry.groups(&key).await.unwrap(), rooms);
    let (even, odd): (Vec<_>, Vec<_>) = (0..).zip(&rooms).partition(|(number, _): &(usize, _)| number % 2 == 0);
    for left in join_all(even.iter().map(|(_, room)| world.registry.leave(&key, room))).await {
        assert_eq!(left.unwrap(), Left::Last);
    }
    let odd: Vec<Group> = odd.into_iter().map(|(_, room)| room.clone()).collect();
    assert_eq!(world.registry.groups(&key).await.unwrap(), odd);
    for room in &rooms {
        assert_eq!(world.ids(&world.group(room)).await.len(), usize::from(odd.contains(room)), "{room}");
    }
}

pub(super) async fn one_concurrent_join_is_first(world: &World<'_>) {
    let lobby = group("lobby");
    let mut keys = Vec::new();
    for number in 0..12 {
        keys.push(world.connect(&format!("tab-{number}"), "alice").await);
    }
    let joined = join_all(keys.iter().map(|key| world.registry.join(key, &lobby))).await;
    let firsts = joined.iter().filter(|joined| matches!(joined, Ok(Joined::First))).count();
    let others = joined.iter().filter(|joined| matches!(joined, Ok(Joined::Another))).count();
    assert_eq!((firsts, others), (1, 11));
    // A connection that joins twice concurrently joins once.
    let key = world.connect("twice", "bob").await;
    let (one, other) = join(world.registry.join(&key, &lobby), world.registry.join(&key, &lobby)).await;
    let mut both = [one.unwrap(), other.unwrap()];
    both.sort_by_key(|joined| *joined == Joined::Already);
    assert_eq!(both, [Joined::First, Joined::Already]);
    let left = join_all(keys.iter().map(|key| world.registry.leave(key, &lobby))).await;
    let lasts = left.iter().filter(|left| matches!(left, Ok(Left::Last))).count();
    let others = left.iter().filter(|left| matches!(left, Ok(Left::Another))).count();
    assert_eq!((lasts, others), (1, 11));
    assert_eq!(world.principals(&lobby).await, set(&["bob"]));
}

pub(super) async fn one_concurrent_remove_wins(world: &World<'_>) {
    for (id, rooms) in [("lone", 0), ("social", 3)] {
        let key = world.connect(id, "alice").await;
        for number in 0..rooms {
            let room = group(&format!("room-{number}"));
            assert_eq!(world.registry.join(&key, &room).await.unwrap(), Joined::First);
        }
        let removed = join_all((0..6).map(|_| world.registry.remove(&key))).await;
        let removed: Vec<_> = removed.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(removed.len(), 1, "{id}");
        assert_eq!(removed.iter().map(|removed| removed.groups.len()).sum::<usize>(), rooms);
    }
}

/// Nothing is left after all removals, in any order of changes.
///
/// There are as many `Last` as `First` outcomes.
pub(super) async fn no_entry_is_orphaned(world: &World<'_>) {
    let lobby = group("lobby");
    let lives = (0..24).map(|number| {
        let lobby = &lobby;
        async move {
            let key = world.connect(&format!("c{number}"), &format!("p{}", number % 6)).await;
            let (joined, again, left, removed) = join4(
                world.registry.join(&key, lobby),
                world.registry.join(&key, lobby),
                world.registry.leave(&key, lobby),
                async {
                    // Some are removed while they join, some a little later.
                    if number % 2 == 0 {
                        world.registry.groups(&key).await.unwrap();
                    }
                    world.registry.remove(&key).await
                },
            )
            .await;
            let firsts = [joined.unwrap(), again.unwrap()].iter().filter(|joined| **joined == Joined::First).count();
            let removed = removed.unwrap().expect("the connection was registered");
            let lasts = removed.groups.iter().filter(|departure| departure.left == Left::Last).count();
            (firsts, lasts + usize::from(left.unwrap() == Left::Last))
        }
    });
    let counts = join_all(lives).await;
    let (firsts, lasts) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    assert_eq!(firsts, lasts, "as many first joins as last leaves");
    assert_eq!(world.ids(&world.group(&lobby)).await, set(&[]));
    assert_eq!(world.principals(&lobby).await, set(&[]));
    assert_eq!(world.ids(&world.namespace.everyone()).await, set(&[]));
}

pub(super) async fn removal_wins_over_join(world: &World<'_>) {
    let rooms: Vec<Group> = (0..8).map(|number| group(&format!("room-{number}"))).collect();
    let key = world.connect("one", "alice").await;
    let joins = join_all(rooms.iter().map(|room| world.registry.join(&key, room)));
    let (joined, removed) = join(joins, world.registry.remove(&key)).await;
    let joined = joined.into_iter().filter(|joined| matches!(joined, Ok(Joined::First))).count();
    assert_eq!(removed.unwrap().expect("the connection was registered").groups.len(), joined);
    for room in &rooms {
        assert_eq!(world.ids(&world.group(room)).await, set(&[]), "{room}");
        assert_eq!(world.principals(room).await, set(&[]), "{room}");
    }
}

pub(super) async fn disbanding_and_joining_agree(world: &World<'_>) {
    let lobby = group("lobby");
    let keys = world.connect_many(20, &lobby).await;
    let mut late = Vec::new();
    for number in 0..10 {
        late.push(world.connect(&format!("late-{number}"), &format!("principal-{number}")).await);
    }
    let joins = join_all(late.iter().map(|key| world.registry.join(key, &lobby)));
    let (disbanded, _) = join(world.registry.disband(&world.namespace, &lobby), joins).await;
    assert!((20..=30).contains(&disbanded.unwrap()));
    // The list of the group agrees with the groups of each connection.
    let listed = world.ids(&world.group(&lobby)).await;
    let mut principals = std::collections::BTreeSet::new();
    for key in keys.iter().chain(&late) {
        let groups = world.registry.groups(key).await.unwrap();
        assert_eq!(groups.contains(&lobby), listed.contains(key.id().as_str()), "{key:?}");
        if groups.contains(&lobby) {
            principals.insert(key.id().as_str().replace("late", "principal"));
        }
    }
    assert_eq!(world.principals(&lobby).await, principals);
}
