//! The library as programs meet it: loaded, searched by version, preloaded.
#![allow(unsafe_code, reason = "dlopen and dlvsym are what is tested")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Builds the library once for all tests of this file.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let target = exe.ancestors().nth(3).unwrap();
        masq_link::build_and_link(target, false).unwrap()
    })
}

fn distribution() -> PathBuf {
    let dir = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let path = Path::new(&dir).join("libibverbs.so.1");
    assert!(path.exists(), "libibverbs1 is needed for this test");
    path
}

/// `name@node` with (type, is the default version), by readelf.
fn versions(path: &Path) -> BTreeMap<String, (String, bool)> {
    let out = Command::new("readelf")
        .args(["-W", "--dyn-syms"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .filter(|line| !line.contains(" UND "))
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (kind, name) = (words.get(3)?, words.get(7)?);
            let (symbol, node) = name.split_once('@')?;
            let default = node.starts_with('@');
            let key = format!("{symbol}@{}", node.trim_start_matches('@'));
            Some((key, ((*kind).to_owned(), default)))
        })
        .collect()
}

#[test]
fn every_symbol_of_the_distributions_file_has_the_same_version_and_type() {
    let ours = versions(library());
    let theirs = versions(&distribution());
    assert!(theirs.len() > 100, "readelf gave {} symbols", theirs.len());
    for (name, (kind, default)) in theirs {
        let (our_kind, our_default) = ours.get(&name).unwrap_or_else(|| panic!("{name} missing"));
        assert_eq!(our_kind, &kind, "{name}");
        // `ibv_register_driver` is a default here and none there, which nobody can see.
        assert!(*our_default || !default, "{name}");
    }
}

#[test]
fn nothing_but_the_listed_names_is_exported() {
    let nodes = masq_link::nodes().unwrap();
    for name in versions(library()).keys() {
        let (symbol, node) = name.split_once('@').unwrap();
        let listed = nodes
            .iter()
            .any(|n| n.name == node && n.symbols.iter().any(|s| s == symbol));
        assert!(listed, "{name}");
    }
}

#[test]
fn dlvsym_finds_every_listed_symbol_under_its_node() {
    let path = CString::new(library().to_str().unwrap()).unwrap();
    // SAFETY: a path and flags that dlopen accepts.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null());
    for node in masq_link::nodes().unwrap() {
        for symbol in &node.symbols {
            let name = CString::new(symbol.as_str()).unwrap();
            let version = CString::new(node.name.as_str()).unwrap();
            // SAFETY: the handle is live, both strings end in NUL.
            let found = unsafe { libc::dlvsym(handle, name.as_ptr(), version.as_ptr()) };
            assert!(!found.is_null(), "{symbol}@{}", node.name);
        }
    }
}

#[test]
fn the_soname_is_the_one_that_programs_ask_for() {
    let out = Command::new("readelf")
        .arg("-d")
        .arg(library())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("Library soname: [libibverbs.so.1]"), "{text}");
}

/// A stock program with our library and no endpoint.
fn run(program: &[&str], variable: &str, value: &Path) -> Output {
    Command::new(program[0])
        .args(&program[1..])
        .env(variable, value)
        .env("LD_BIND_NOW", "1")
        .env("MASQ_SOCKET", "/nonexistent/masq.sock")
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", program[0]))
}

#[test]
fn ibv_devices_lists_nothing_without_an_endpoint_and_without_a_warning() {
    let dir = library().parent().unwrap();
    for (variable, value) in [("LD_PRELOAD", library()), ("LD_LIBRARY_PATH", dir)] {
        let out = run(&["ibv_devices"], variable, value);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{variable}: {out:?}");
        assert!(text.contains("node GUID"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{variable}");
    }
}

#[test]
fn perftest_loads_though_its_libraries_bind_private_symbols_at_once() {
    for tool in ["ib_send_bw", "ib_write_lat", "ib_atomic_bw"] {
        let out = run(
            &[tool, "--help"],
            "LD_LIBRARY_PATH",
            library().parent().unwrap(),
        );
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains("Usage"), "{tool}: {out:?}");
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{tool}");
    }
}

#[test]
fn many_may_link_at_once() {
    let built = library();
    let profile = built.ancestors().nth(3).unwrap();
    let out = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let links: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| masq_link::link(profile, out.path())))
            .collect();
        for link in links {
            link.join().unwrap().unwrap();
        }
    });
    let left = std::fs::read_dir(out.path()).unwrap().count();
    assert_eq!(left, 1, "only the library is left");
}
