//! The dependency rules between modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 20, "the sources were found");
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// Returns the crate's top-level modules that the code names.
fn crate_modules(source: &str) -> Vec<&str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.match_indices("crate::").map(|(at, _)| &line[at + "crate::".len()..]))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        .collect()
}

#[test]
fn modules_depend_only_on_lower_layers() {
    let may_know: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("clock", &[] as &[&str]),
        ("event", &[]),
        ("metrics", &[]),
        ("keys", &[]),
        ("rate_limit", &["clock", "dynamodb", "event", "route"]),
        ("authorizer", &["clock", "dynamodb", "event", "keys", "metrics", "quotas", "runtime"]),
        ("route", &["clock", "event", "hub", "metrics", "push", "quotas", "registry", "runtime"]),
        ("push", &["clock", "event", "metrics", "quotas", "retry"]),
        ("registry", &["clock", "dynamodb", "event", "retry"]),
        ("hub", &["Pusher", "clock", "event", "metrics", "push", "registry", "route", "runtime"]),
        ("reply", &["clock", "dynamodb", "event", "keys", "metrics", "push", "quotas", "route", "runtime"]),
        ("retry", &["clock", "event"]),
        ("dynamodb", &[]),
        ("runtime", &["clock", "event", "quotas"]),
        ("quotas", &[]),
        ("guide", &["guide"]),
        ("local", &["Pusher", "authorizer", "clock", "event", "push", "quotas", "route"]),
    ]);
    for (file, source) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        let Some(allowed) = may_know.get(module) else {
            assert_eq!(file, "lib.rs", "a new module says here whom it may know");
            continue;
        };
        for known in crate_modules(&source) {
            // A path in a doc link of the crate's root names a type, not a module.
            assert!(
                known == module || allowed.contains(&known),
                "{file} knows {known}, but {module} may know only {allowed:?}"
            );
        }
    }
}

#[test]
fn sdk_imports_and_sockets_stay_in_their_files() {
    for (file, source) in sources() {
        // An example in a comment may use any crate.
        let code = || source.lines().filter(|line| !line.trim_start().starts_with("//"));
        let sdk = code().any(|line| line.contains("use aws_sdk_") || line.contains("use aws_config"));
        let may_import = [
            "push/sdk.rs",
            "dynamodb.rs",
            "reply/worker/dynamodb.rs",
            "registry/dynamodb.rs",
            "authorizer/ticket/dynamodb.rs",
            "rate_limit/dynamodb.rs",
        ];
        let may_import = may_import.contains(&file.as_str()) || file.starts_with("registry/dynamodb/");
        assert!(!sdk || may_import, "{file} imports an SDK");
        let sockets = source.contains("TcpStream") || source.contains("TcpListener");
        let may_open = [
            "local/builder.rs",
            "local/listen.rs",
            "local/server.rs",
            "local/server/head.rs",
            "local/server/http.rs",
            "local/server/socket.rs",
            "local/client.rs",
            "local/function/process/instance.rs",
            "local/function/process/runtime_api.rs",
        ];
        assert!(!sockets || may_open.contains(&file.as_str()), "{file} opens sockets");
        assert!(
            !source.contains("SystemTime::now()") || !file.starts_with("local/rules"),
            "{file}: the rules get the time from outside"
        );
    }
}

#[test]
fn rules_perform_no_io() {
    let rules = sources().into_iter().filter(|(file, _)| file.starts_with("local/rules") && !file.contains("tests"));
    let mut seen = 0;
    for (file, source) in rules {
        seen += 1;
        for forbidden in ["async ", "tokio", "now()", "rand::random", "spawn", "Mutex"] {
            assert!(!source.contains(forbidden), "{file} contains {forbidden:?}");
        }
    }
    assert!(seen >= 6, "the rules were found");
}
