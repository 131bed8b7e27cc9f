//! Code and SPEC.md name the same clauses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Numbers of the headings: `5` and `5.3`.
fn headings() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("virtio-spec/SPEC.md")).unwrap();
    text.lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
        .filter_map(|title| title.split(' ').next())
        .filter(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                sources(&path, out);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Numbers that follow the word for a clause, also `X and Y` and `X, Y`.
fn cited(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Comments may break the line between the word and the number.
    let flat: Vec<&str> = text
        .split_whitespace()
        .filter(|word| !matches!(*word, "//" | "///" | "//!"))
        .collect();
    for (at, word) in flat.iter().enumerate() {
        let word = word.trim_start_matches('(');
        if word != "clause" && word != "clauses" {
            continue;
        }
        for next in flat.iter().skip(at + 1) {
            let number: String = next
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect();
            if number.is_empty() {
                if *next == "and" {
                    continue;
                }
                break;
            }
            found.push(number.trim_end_matches('.').to_owned());
            if !next.ends_with(',') && word == "clause" {
                break;
            }
        }
    }
    found
}

#[test]
fn every_clause_that_code_cites_exists() {
    let headings = headings();
    let mut files = Vec::new();
    for folder in ["virtio-spec/src", "backend", "frontend-lib", "policy/src"] {
        sources(&root().join(folder), &mut files);
    }
    let mut count = 0;
    let mut wrong = Vec::new();
    for file in files {
        for number in cited(&fs::read_to_string(&file).unwrap()) {
            count += 1;
            if !headings.contains(&number) {
                wrong.push(format!("{}: clause {number}", file.display()));
            }
        }
    }
    assert!(count > 30, "only {count} citations were found");
    assert!(wrong.is_empty(), "not in SPEC.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_clause_that_the_text_refers_to_exists() {
    let headings = headings();
    let text = fs::read_to_string(root().join("virtio-spec/SPEC.md")).unwrap();
    for reference in text.split('(').skip(1).filter_map(|s| s.split(')').next()) {
        let is_number = !reference.is_empty()
            && reference.contains('.')
            && reference.chars().all(|c| c.is_ascii_digit() || c == '.');
        assert!(
            !is_number || headings.contains(reference),
            "({reference}) is no clause"
        );
    }
}

#[test]
fn every_opcode_and_status_is_in_the_text_with_its_number() {
    use masq_spec::command::{Opcode, Status};
    let text = fs::read_to_string(root().join("virtio-spec/SPEC.md")).unwrap();
    for opcode in Opcode::ALL {
        let name = serde_json::to_value(opcode).unwrap();
        let name = name.as_str().unwrap().to_uppercase();
        let row = format!("| {:04x} | {name} |", opcode.raw());
        assert!(text.contains(&row), "no row {row}");
    }
    for status in Status::ALL {
        let name = serde_json::to_value(status).unwrap();
        let name = name.as_str().unwrap().to_uppercase();
        let row = format!("| {} | {name} |", status.raw());
        assert!(text.contains(&row), "no row {row}");
    }
}

#[test]
fn structure_sizes_in_the_text_are_those_of_the_code() {
    use masq_spec::verbs::*;
    let text = fs::read_to_string(root().join("virtio-spec/SPEC.md")).unwrap();
    let sizes = [
        ("Hello", size_of::<Hello>()),
        ("HelloReply", size_of::<HelloReply>()),
        ("Join", size_of::<Join>()),
        ("DeviceAttr", size_of::<DeviceAttr>()),
        ("QueryPort", size_of::<QueryPort>()),
        ("PortAttr", size_of::<PortAttr>()),
        ("GidTable", size_of::<GidTable>()),
        ("GidEntry", size_of::<GidEntry>()),
        ("RegMr", size_of::<RegMr>()),
        ("Segment", size_of::<Segment>()),
        ("MrCreated", size_of::<MrCreated>()),
        ("ReregMr", size_of::<ReregMr>()),
        ("AllocMw", size_of::<AllocMw>()),
        ("CreateCq", size_of::<CreateCq>()),
        ("ResizeCq", size_of::<ResizeCq>()),
        ("CqResized", size_of::<CqResized>()),
        ("CreateSrq", size_of::<CreateSrq>()),
        ("ModifySrq", size_of::<ModifySrq>()),
        ("SrqAttr", size_of::<SrqAttr>()),
        ("CreateQp", size_of::<CreateQp>()),
        ("QpCaps", size_of::<QpCaps>()),
        ("QpCreated", size_of::<QpCreated>()),
        ("ModifyQp", size_of::<ModifyQp>()),
        ("QpState", size_of::<QpState>()),
        ("QpAttr", size_of::<QpAttr>()),
        ("AhAttr", size_of::<AhAttr>()),
        ("CreateAh", size_of::<CreateAh>()),
        ("Multicast", size_of::<Multicast>()),
    ];
    for (name, size) in sizes {
        let short = format!("`{name}` ({size})");
        let long = format!("`{name}` ({size} bytes)");
        assert!(
            text.contains(&short) || text.contains(&long),
            "`{name}` has {size} bytes"
        );
    }
}
