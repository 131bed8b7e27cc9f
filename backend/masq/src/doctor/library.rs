//! The library that programs are given.

use super::Check;
use crate::run;
use std::path::Path;
use std::process::Command;

pub(super) fn checks(named: Option<&Path>) -> Vec<Check> {
    const NAME: &str = "library";
    match run::library(named) {
        Ok(path) => vec![Check::ok(NAME, path.display().to_string()), loads(&path)],
        Err(error) => vec![Check::fail(
            NAME,
            error.to_string().replace('\n', " "),
            "`cargo xtask build` makes it; packages put it into /usr/lib/masq",
        )],
    }
}

/// Has a program load it: the dynamic linker complains on standard error, and
/// goes on without it.
fn loads(path: &Path) -> Check {
    const NAME: &str = "library loads";
    let out = Command::new("/bin/true").env("LD_PRELOAD", path).output();
    match out {
        Ok(out) if out.status.success() && out.stderr.is_empty() => {
            Check::ok(NAME, "by LD_PRELOAD")
        }
        Ok(out) => Check::fail(
            NAME,
            String::from_utf8_lossy(&out.stderr).trim().to_owned(),
            "is it built for this architecture and C library? `ldd` says what it misses",
        ),
        Err(error) => Check::warn(NAME, format!("/bin/true: {error}"), "cannot be tried here"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_file_that_is_no_library_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libibverbs.so.1");
        std::fs::write(&file, "no ELF").unwrap();
        let checks = checks(Some(&file));
        assert_eq!(checks[0].level, Level::Ok);
        assert_eq!(checks[1].level, Level::Fail, "{:?}", checks[1]);
    }
}
