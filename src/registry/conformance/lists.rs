//! Lists in pages.

use futures_util::stream::{self, StreamExt as _};

use super::super::{Joined, Principal, ReadOptions};
use super::{World, group, once};

pub(super) async fn pages_have_any_size(world: &World<'_>) {
    let lobby = group("lobby");
    let keys = world.connect_many(23, &lobby).await;
    for number in 0..5 {
        world.connect(&format!("tab-{number}"), "many tabs").await;
    }
    let many_tabs = world.namespace.principal(&Principal::new("many tabs").unwrap());
    for (audience, expected) in
        [(world.namespace.everyone(), keys.len() + 5), (world.group(&lobby), keys.len()), (many_tabs, 5)]
    {
        for size in [1, 2, 7, 23, 1000, usize::MAX] {
            for options in [ReadOptions::default(), ReadOptions::default().consistent()] {
                let mut pages = world.registry.connections(&audience, options.with_page_size(size));
                let mut ids = Vec::new();
                while let Some(page) = pages.next().await {
                    let page = page.unwrap();
                    assert!(!page.is_empty() && page.len() <= size, "{} in a page of {size}", page.len());
                    ids.extend(page.iter().map(|connection| connection.id().to_string()));
                }
                assert_eq!(once(ids.into_iter()).len(), expected, "{audience:?} in pages of {size}");
            }
        }
    }
    for size in [1, 5, 100] {
        let options = ReadOptions::default().with_page_size(size);
        let pages = world.registry.principals(&world.namespace, &lobby, options);
        let sizes: Vec<usize> = pages.map(|page| page.unwrap().len()).collect().await;
        assert!(sizes.iter().all(|page| (1..=size).contains(page)), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), keys.len());
    }
}

pub(super) async fn unchanged_connections_are_listed_once(world: &World<'_>) {
    let lobby = group("lobby");
    let keys = world.connect_many(60, &lobby).await;
    let (leaving, staying) = keys.split_at(30);
    let audience = world.group(&lobby);
    let mut pages = world.registry.connections(&audience, ReadOptions::default().with_page_size(5).consistent());
    let (mut seen, mut leaving) = (Vec::new(), leaving.iter());
    while let Some(page) = pages.next().await {
        seen.extend(page.unwrap().into_iter().map(|connection| connection.key().clone()));
        // Between two pages, one connection leaves and one joins.
        if let Some(key) = leaving.next() {
            world.registry.remove(key).await.unwrap();
            let new = world.connect(&format!("new-{}", key.id()), "somebody new").await;
            assert!(matches!(world.registry.join(&new, &lobby).await.unwrap(), Joined::First | Joined::Another));
        }
    }
    let seen = once(seen.iter().map(|key| key.id().to_string()));
    for key in staying {
        assert!(seen.contains(key.id().as_str()), "{key:?} is not listed");
    }
}

pub(super) async fn many_connections(world: &World<'_>) {
    let lobby = group("lobby");
    let keys = world.connect_many(world.many, &lobby).await;
    assert_eq!(world.ids(&world.namespace.everyone()).await.len(), world.many);
    assert_eq!(world.ids(&world.group(&lobby)).await.len(), world.many);
    assert_eq!(world.principals(&lobby).await.len(), world.many);
    // Half of them are removed one by one, and the rest of the group at once.
    let (go, stay) = keys.split_at(world.many / 2);
    let removed = stream::iter(go.to_vec()).map(|key| async move { world.registry.remove(&key).await });
    let removed = removed.buffer_unordered(32).all(|removed| async move { removed.unwrap().is_some() });
    assert!(removed.await);
    assert_eq!(world.registry.disband(&world.namespace, &lobby).await.unwrap(), stay.len());
    assert_eq!(world.ids(&world.group(&lobby)).await.len(), 0);
    assert_eq!(world.principals(&lobby).await.len(), 0);
    assert_eq!(world.ids(&world.namespace.everyone()).await.len(), stay.len());
}
