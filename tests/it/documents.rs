//! The Markdown documents: their links lead somewhere, and they use the terms of AWS and Rust.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let folders = [root().to_owned(), root().join("docs"), root().join("docs/guide")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let found: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    assert!(found.len() > 15, "{found:?}");
    found
}

/// The targets of inline links and of the definitions of reference links.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    let prose = text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !is_fence && !in_code
    });
    prose.flat_map(|line| {
        let inline = line.match_indices("](").filter_map(move |(at, _)| line[at + 2..].split([')', ' ']).next());
        let definition = line.starts_with('[').then(|| line.split_once("]: ").map(|(_, target)| target)).flatten();
        inline.chain(definition)
    })
}

#[test]
fn relative_links_of_documents_exist() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in targets(&text).filter(|target| !target.starts_with("http") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap();
            assert!(document.parent().unwrap().join(file).exists(), "{} links to {target}", document.display());
        }
    }
}

#[test]
fn reference_links_of_documents_are_defined() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let defined: Vec<&str> =
            text.lines().filter_map(|line| Some(line.strip_prefix('[')?.split_once("]: ")?.0)).collect();
        for (at, _) in text.match_indices("][") {
            let name = text[at + 2..].split(']').next().unwrap();
            assert!(defined.contains(&name), "{}: [{name}] is not defined", document.display());
        }
    }
}

#[test]
fn documents_and_comments_avoid_coined_words() {
    let coined = [
        "of yours",
        "told otherwise",
        "by meaning",
        "who is gone",
        "made JSON",
        "comes again",
        "as you like",
        "laptop",
        "licence",
        "serialis",
        "behaviour",
        "in vain",
        "two-way",
    ];
    // Names of AWS, and the renames themselves.
    let is_name = |line: &str| line.contains("[two-way") || line.contains("  | `");
    let mut files = documents();
    let mut folders = vec![root().join("src"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !is_name(line)) {
            for word in coined {
                assert!(!line.contains(word), "{}:{}: {word}: {line}", file.display(), number + 1);
            }
        }
    }
}
