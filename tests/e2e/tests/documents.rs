//! Documents that list what the sources hold.

use masq_e2e::workspace;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if !path.ends_with("target") {
                sources(&path, out);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Whether the module, or an item in it, opts in by an attribute.
fn allows_unsafe(text: &str) -> bool {
    text.replace("#![", "#[")
        .split("#[allow(")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .any(|list| list.contains("unsafe_code"))
}

#[test]
fn the_architecture_lists_just_the_modules_with_unsafe_code() {
    let root = workspace();
    let mut files = Vec::new();
    for folder in ["backend", "frontend-lib", "policy", "virtio-spec", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    let with_unsafe: BTreeSet<String> = files
        .iter()
        .filter(|path| allows_unsafe(&fs::read_to_string(path).unwrap()))
        .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
        // Tests and benchmarks may do as they need.
        .filter(|path| !path.trim_start_matches("tests/").contains("tests"))
        .filter(|path| !path.contains("/benches/"))
        .collect();
    let text = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let list = text.split("<!-- unsafe-list -->").nth(1).unwrap();
    let list = list.split("<!-- /unsafe-list -->").next().unwrap();
    let listed: BTreeSet<String> = list
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, with_unsafe);
}
