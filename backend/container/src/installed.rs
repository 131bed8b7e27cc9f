//! Where masq's own library lies on this host.

use std::path::{Path, PathBuf};

/// File name of the library.
pub const LIBRARY: &str = "libibverbs.so.1";

/// Where the library of the program `exe` is looked for, in order: beside the program in a
/// build directory, beside it in a package, and where packages put it.
pub fn libraries(exe: Option<&Path>) -> Vec<PathBuf> {
    let beside = exe
        .into_iter()
        .flat_map(|exe| exe.ancestors().skip(1).take(2));
    let dirs = beside.map(|dir| dir.join("lib/masq"));
    dirs.chain([PathBuf::from("/usr/lib/masq")])
        .map(|dir| dir.join(LIBRARY))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_directory_and_an_installed_package_are_both_searched() {
        let list = libraries(Some(Path::new("/usr/bin/masq")));
        assert!(list.contains(&PathBuf::from("/usr/bin/lib/masq/libibverbs.so.1")));
        assert!(list.contains(&PathBuf::from("/usr/lib/masq/libibverbs.so.1")));
    }
}
