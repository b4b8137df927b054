//! `docs/conformance.md` and the tests agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Returns the rows of the tables: the rule's id, whether it is kept, and the tests that show it.
fn rows() -> BTreeMap<String, (String, Vec<String>)> {
    let text = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, _, _, kept, shown] = cells.as_slice() else { panic!("a row has five cells: {line}") };
        let shown = shown.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let before = rows.insert((*id).to_owned(), ((*kept).to_owned(), shown));
        assert!(before.is_none(), "{id} has two rows");
    }
    rows
}

fn sources() -> String {
    fn walk(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    walk(&root().join("src"), &mut text);
    walk(&root().join("tests/it"), &mut text);
    text
}

const FAMILIES: [&str; 10] = ["EVT", "RTE", "CON", "AUT", "MSG", "MGT", "END", "LIM", "DIS", "CFN"];

/// Returns the rule ids at the start of a test's name: `evt_3_6_and_14_…`, `mgt_3_to_7_…`, `con_6_and_mgt_3_to_5_…`.
fn cited(name: &str) -> Vec<String> {
    let (mut family, mut ids, mut last, mut range) = (None, Vec::new(), 0, false);
    for word in name.split('_') {
        let upper = word.to_uppercase();
        if let Some(known) = FAMILIES.iter().find(|known| **known == upper) {
            family = Some(*known);
        } else if let (Some(family), Ok(number)) = (family, word.parse::<usize>()) {
            let first = if range { last + 1 } else { number };
            ids.extend((first..=number).map(|number| format!("{family}-{number}")));
            (last, range) = (number, false);
        } else if word == "to" && !ids.is_empty() {
            range = true;
        } else if word != "and" {
            break;
        }
    }
    ids
}

#[test]
fn rule_ids_are_parsed_from_test_names() {
    assert_eq!(cited("evt_3_6_and_14_x_7"), ["EVT-3", "EVT-6", "EVT-14"]);
    assert_eq!(cited("con_6_and_mgt_3_to_5_who"), ["CON-6", "MGT-3", "MGT-4", "MGT-5"]);
    assert!(cited("without_end_1").is_empty());
}

#[test]
fn every_row_names_existing_tests() {
    let (rows, sources) = (rows(), sources());
    assert!(rows.len() > 70, "the tables were read: {} rows", rows.len());
    for (id, (kept, shown)) in &rows {
        let is_kept = ["yes", "partly", "by the library"].iter().any(|start| kept.starts_with(start));
        let is_shown = shown.iter().any(|test| !test.contains('/'));
        assert!(!is_kept || is_shown, "{id} is kept, but no test of `cargo test` shows it");
        for test in shown {
            let exists =
                if test.contains('/') { root().join(test).exists() } else { sources.contains(&format!("fn {test}(")) };
            assert!(exists, "{id}: there is no {test}");
        }
    }
}

#[test]
fn every_cited_id_has_a_row() {
    let (rows, sources) = (rows(), sources());
    let mut ids: BTreeSet<String> = sources
        .match_indices("fn ")
        .filter_map(|(at, _)| sources[at + 3..].split('(').next())
        .flat_map(cited)
        .collect();
    for comment in sources.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment)) {
        for word in comment.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            let is_id = word.split_once('-').is_some_and(|(family, number)| {
                FAMILIES.contains(&family) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            });
            if is_id {
                ids.insert(word.to_owned());
            }
        }
    }
    assert!(ids.len() > 50, "{ids:?}");
    for id in ids {
        assert!(rows.contains_key(&id), "{id} is cited, but has no row in docs/conformance.md");
    }
}
