use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Short names of few letters, so that many nearly run into each other.
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
    fn what_is_written_is_read(
        namespace in text(NAMESPACE),
        id in text(ID),
        principal in proptest::option::of(text(NAME)),
        data in proptest::option::of(".{0,20}"),
        room in text(NAME),
        spread in 1_u8..,
    ) {
        let connection = connection_of(&namespace, &id, principal, data);
        let record = of_connection(&connection, spread);
        let row = row(connection.key().namespace(), &record).unwrap().unwrap();
        prop_assert_eq!(&row.connection, &connection);
        prop_assert!(row.groups.is_empty());
        let room = Group::new(room).unwrap();
        let member = of_member(&connection, &room, spread);
        prop_assert_eq!(super::connection(connection.key().namespace(), &member).unwrap(), connection);
        prop_assert!(shard(&id, spread) < spread);
    }

    #[test]
    fn no_two_keys_are_the_same(
        places in proptest::collection::btree_set((text(NAMESPACE), text(NAME), text(ID), text(NAME)), 1..30),
        spread in 1_u8..5,
    ) {
        let mut expected = BTreeSet::new();
        let mut found = BTreeSet::new();
        for (namespace, room, id, principal) in &places {
            let connection = connection_of(namespace, id, Some(principal.clone()), None);
            let (space, room, id) = (connection.key().namespace(), Group::new(room).unwrap(), connection.id());
            let principal = connection.principal().unwrap();
            for (kind, name, key) in [
                ("connection", String::new(), connection_key(connection.key())),
                ("member", room.to_string(), member_key(space, &room, id, spread)),
            ] {
                expected.insert(format!("{kind:?}{namespace:?}{name:?}{:?}", id.as_str()));
                found.insert((string(&key, "pk").unwrap().to_owned(), string(&key, "sk").unwrap().to_owned()));
            }
            expected.insert(format!("presence{namespace:?}{:?}{:?}", room.as_str(), principal.as_str()));
            let key = presence_key(space, &room, principal, spread);
            found.insert((string(&key, "pk").unwrap().to_owned(), string(&key, "sk").unwrap().to_owned()));
        }
        prop_assert_eq!(found.len(), expected.len());
    }

    #[test]
    fn no_record_panics(attribute in "id|apiId|stage|domainName|connectedAt|expiresAt|principal|data|groups", value in ".{0,12}", kind in 0_u8..4) {
        let connection = connection_of("a", "b", Some("c".to_owned()), Some("d".to_owned()));
        let mut record = of_connection(&connection, 1);
        record.insert(attribute.clone(), match kind {
            0 => AttributeValue::S(value),
            1 => AttributeValue::N(value),
            2 => AttributeValue::Ss(vec![value]),
            _ => AttributeValue::Null(true),
        });
        // Either it is read, or the error names the attribute.
        if let Err(error) = row(connection.key().namespace(), &record) {
            prop_assert!(error.to_string().contains(&format!("`{attribute}`")), "{}", error);
        }
    }
}

#[test]
fn the_shard_of_a_name_never_changes() {
    // What is in a table was put where these say.
    for (name, expected) in [("L0SM9cOFvHcCIhw=", 2), ("alice", 0), ("日本", 2), ("", 0)] {
        assert_eq!(shard(name, 4), expected, "{name:?}");
    }
}
