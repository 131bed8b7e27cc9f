//! The library loads with a glibc as old as 2.17, wherever it was built.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#![allow(unsafe_code, reason = "dlvsym is what is asked")]

use masq_link::elf::Dynamic;
use masq_link::glibc::{self, Library};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The library in debug mode, which leaves more calls to glibc in place.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let target = exe.ancestors().nth(3).unwrap();
        masq_link::build_and_link(target, false).unwrap()
    })
}

fn baseline() -> Vec<Library> {
    glibc::baseline(std::env::consts::ARCH).unwrap().unwrap()
}

#[test]
fn whatever_is_needed_of_glibc_is_in_the_library_that_had_it_in_2_17() {
    let baseline = baseline();
    let library = Dynamic::read(library()).unwrap();
    let there = |file: &str| baseline.iter().find(|l| l.soname == file);
    for needed in &library.needed {
        assert!(there(needed).is_some(), "{needed} is no part of glibc 2.17");
    }
    for (file, version) in &library.versions {
        let known = there(file).unwrap_or_else(|| panic!("{file}"));
        let known = known.symbols.iter().any(|(v, _)| v == version);
        assert!(known, "{file} {version}");
        // The loader asserts that a library of which it must check versions is loaded.
        assert!(library.needed.contains(file), "{file} is not DT_NEEDED");
    }
    let versioned = library.imports.iter().filter(|i| i.from.is_some());
    let mut count = 0;
    for import in versioned {
        let (file, version) = import.from.clone().unwrap();
        // readelf names the library by the version's entry, which is what counts.
        let wanted = (version, import.name.clone());
        let found = there(&file).unwrap().symbols.contains(&wanted);
        assert!(found, "{file} has no {}@{}", wanted.1, wanted.0);
        count += 1;
    }
    assert!(count > 50, "only {count} names");
}

#[test]
fn names_that_may_be_absent_are_weak_and_taken_from_anywhere() {
    let imports = Dynamic::read(library()).unwrap().imports;
    let find = |name: &str| imports.iter().find(|i| i.name == name);
    for import in &imports {
        assert!(import.from.is_some() || import.weak, "{import:?}");
    }
    for name in ["gettid", "statx", "__cxa_thread_atexit_impl"] {
        let import = find(name).unwrap_or_else(|| panic!("{name} is not asked for"));
        assert!(import.weak && import.from.is_none(), "{import:?}");
    }
    for name in ["stat64", "fstat64", "preadv2", "_dl_find_object"] {
        assert_eq!(find(name), None, "brought along");
    }
}

#[test]
fn weak_names_are_bound_where_glibc_has_them() {
    let out = Command::new("/bin/true")
        .env("LD_PRELOAD", library())
        .env("LD_BIND_NOW", "1")
        .env("LD_DEBUG", "bindings")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&out.stderr).into_owned();
    for name in ["gettid", "statx", "__cxa_thread_atexit_impl"] {
        let bound = log.lines().any(|line| {
            line.contains("binding file") && line.contains("libibverbs.so.1 [0] to ") && {
                line.contains("/libc.so.6 ") && line.contains(&format!("`{name}'"))
            }
        });
        assert!(bound, "{name} in {} lines", log.lines().count());
    }
}

/// The list is what the others rely on: today's glibc keeps every old name, so a slip of
/// the pen shows.
#[test]
fn every_listed_name_has_its_version_in_todays_glibc_too() {
    let mut absent = Vec::new();
    for (version, name) in baseline().iter().flat_map(|l| &l.symbols) {
        let name_c = CString::new(name.as_str()).unwrap();
        let version_c = CString::new(version.as_str()).unwrap();
        // SAFETY: both strings end in NUL; the default scope holds glibc.
        let found =
            unsafe { libc::dlvsym(libc::RTLD_DEFAULT, name_c.as_ptr(), version_c.as_ptr()) };
        if found.is_null() {
            absent.push(format!("{name}@{version}"));
        }
    }
    assert_eq!(absent, Vec::<String>::new());
}

#[test]
fn stand_ins_do_what_glibcs_functions_do() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let (object, program) = (dir.path().join("shims.o"), dir.path().join("shims"));
    let cc = |args: &[&str], files: &[&Path]| {
        let out = Command::new("cc").args(args).args(files).output().unwrap();
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{words}");
    };
    // SAFETY: two strings that end in NUL.
    let known = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
    cc(
        &["-O2", "-fPIC", "-c", "-o"],
        &[&object, &here.join("glibc/shims.c")],
    );
    let names = ["stat64", "lstat", "fstat", "preadv2", "pthread_atfork"];
    let mut rename = Command::new("objcopy");
    for name in names {
        rename.arg(format!("--redefine-sym={name}=shim_{name}"));
    }
    rename.arg("--redefine-sym=_dl_find_object=shim_dl_find_object");
    assert!(rename.arg(&object).status().unwrap().success());
    let define = if known.is_null() {
        "-DNOTHING"
    } else {
        "-DHAVE_FIND_OBJECT"
    };
    cc(
        &[
            "-O1",
            "-pthread",
            define,
            "-Wall",
            "-Werror",
            "-static-libgcc",
            "-o",
        ],
        &[&program, &here.join("tests/shims/main.c"), &object],
    );
    let out = Command::new(&program).output().unwrap();
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{words}");
}
