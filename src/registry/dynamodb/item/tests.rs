use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::presence;
use super::*;

/// Short names of few characters, so that many are nearly ambiguous.
fn text(letters: &'static str) -> impl Strategy<Value = String> {
    proptest::string::string_regex(letters).unwrap()
}

const NAMESPACE: &str = "[a1/.:_-]{1,4}";
const NAME: &str = "[a1#/@CGP ä日\u{1f980}-]{1,6}";
const ID: &str = "[a1#/@CGP=-]{1,6}";

fn connection_of(namespace: &str, id: &str, principal: Option<String>, data: Option<String>) -> Connection {
    let key = ConnectionKey::new(Namespace::new(namespace).unwrap(), ConnectionId::new(id).unwrap());
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
    let opened = UNIX_EPOCH.checked_add(Duration::from_millis(1_700_000_000_123)).unwrap();
    let connection = Connection::new(key, api_id, stage, "ws.example.com", opened);
    let connection = match principal {
        Some(principal) => connection.with_principal(Principal::new(principal).unwrap()),
        None => connection,
    };
    match data {
        Some(data) => connection.with_data(&data).unwrap(),
        None => connection,
    }
}

proptest! {
    #[test]
    fn records_round_trip(
        namespace in text(NAMESPACE),
        id in text(ID),
        principal in proptest::option::of(text(NAME)),
        data in proptest::option::of(".{0,20}"),
        room in text(NAME),
    ) {
        let connection = connection_of(&namespace, &id, principal, data);
        let room = Group::new(room).unwrap();
        let record = of_connection(&connection, [&room]);
        let row = row(connection.key().namespace(), &record).unwrap().unwrap();
        prop_assert_eq!(&row.connection, &connection);
        prop_assert_eq!(row.groups, BTreeSet::from([room.clone()]));
        let member = presence::of_first(&connection, &room, 3, 7);
        let read = presence::connections(connection.key().namespace(), &member, UNIX_EPOCH).unwrap();
        prop_assert_eq!(read, [connection.clone()]);
        // The sort key in the index matches the position and the principal.
        let position = position_of(connection.principal().map_or(connection.id().as_str(), |name| name.as_str()));
        let sort = string(&record, "listSort").unwrap();
        let (first, last) = sort_range(position..position.saturating_add(1));
        prop_assert!(first.as_str() <= sort && sort <= last.as_str());
        prop_assert!(positions_of(shard_of(position)).contains(&position));
        if let Some(principal) = connection.principal() {
            prop_assert!(sort.starts_with(&principal_prefix(principal).1));
        }
    }

    #[test]
    fn item_keys_are_unique(
        places in proptest::collection::btree_set((text(NAMESPACE), text(NAME), text(ID), text(NAME)), 1..30),
        shards in 1_u8..5,
    ) {
        let mut expected = BTreeSet::new();
        let mut found = BTreeSet::new();
        for (namespace, room, id, principal) in &places {
            let connection = connection_of(namespace, id, Some(principal.clone()), None);
            let (room, id, principal) = (Group::new(room).unwrap(), connection.id(), connection.principal());
            let key = connection.key();
            let id = format!("{:?}", id.as_str());
            for (kind, place, record) in [
                ("connection", id.clone(), connection_key(key)),
                ("alone", format!("{:?}{id}", room.as_str()), member_key(key, None, &room, shards)),
                ("member", format!("{:?}{principal:?}", room.as_str()), member_key(key, principal, &room, shards)),
            ] {
                expected.insert(format!("{kind:?}{namespace:?}{place}"));
                found.insert((string(&record, "pk").unwrap().to_owned(), string(&record, "sk").unwrap().to_owned()));
            }
            // The keys in the index are distinct, too.
            let record = of_connection(&connection, []);
            expected.insert(format!("index{namespace:?}{principal:?}{id}"));
            found.insert((
                string(&record, "listKey").unwrap().to_owned(),
                string(&record, "listSort").unwrap().to_owned(),
            ));
        }
        prop_assert_eq!(found.len(), expected.len());
    }

    #[test]
    fn decoding_never_panics(attribute in "pk|apiId|stage|domainName|connectedAt|expiresAt|principal|data|groups", value in ".{0,12}", kind in 0_u8..4) {
        let connection = connection_of("a", "b", Some("c".to_owned()), Some("d".to_owned()));
        let mut record = of_connection(&connection, []);
        record.insert(attribute.clone(), match kind {
            0 => AttributeValue::S(value),
            1 => AttributeValue::N(value),
            2 => AttributeValue::Ss(vec![value]),
            _ => AttributeValue::Null(true),
        });
        // Either the record can be read, or the error names the attribute.
        if let Err(error) = row(connection.key().namespace(), &record) {
            prop_assert!(error.to_string().contains(&format!("`{attribute}`")), "{}", error);
        }
    }
}
