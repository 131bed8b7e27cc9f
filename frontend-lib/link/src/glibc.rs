//! The glibc that the library is linked for, which is older than the build machine's.

use crate::LinkError;
use std::fmt;

const LIST: &str = include_str!("../glibc/baseline.txt");

/// The glibc that is enough: that of CentOS 7 and of every distribution since 2013.
pub const BASELINE: Version = Version(2, 17);

/// A version of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16);

impl Version {
    /// That which brought a version node: 2.34 for `GLIBC_2.34`, 2.2 for `GLIBC_2.2.5`.
    /// Nothing for nodes that are not glibc's public ones.
    pub fn of_node(node: &str) -> Option<Self> {
        match node.strip_prefix("GLIBC_")? {
            // What relocations are packed for: the loader must know the form.
            "ABI_DT_RELR" => Some(Self(2, 36)),
            number => Self::parse(number),
        }
    }

    /// `2.36`, whatever follows a further point.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A library of glibc with the names that may be taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// `libpthread.so.0`.
    pub soname: String,
    /// (version, name), in the order of the list.
    pub symbols: Vec<(String, String)>,
}

/// What glibc 2.17 has, as far as the library may use it; nothing for machines that have
/// no glibc so old, or none that anybody asked for.
///
/// # Errors
/// A damaged list.
pub fn baseline(arch: &str) -> Result<Option<Vec<Library>>, LinkError> {
    let loader = match arch {
        "x86_64" => "ld-linux-x86-64.so.2",
        "aarch64" => "ld-linux-aarch64.so.1",
        _ => return Ok(None),
    };
    let mut libraries = parse(LIST)?;
    for library in &mut libraries {
        if library.soname == "loader" {
            loader.clone_into(&mut library.soname);
        }
        // aarch64 came with 2.17, where all began anew.
        if arch == "aarch64" {
            for (version, _) in &mut library.symbols {
                *version = format!("GLIBC_{BASELINE}");
            }
        }
    }
    Ok(Some(libraries))
}

fn parse(text: &str) -> Result<Vec<Library>, LinkError> {
    let mut libraries: Vec<Library> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bad = || LinkError::Baseline {
            line: number + 1,
            text: line.to_owned(),
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(rest) = line.strip_prefix("  ") else {
            libraries.push(Library {
                soname: line.to_owned(),
                symbols: Vec::new(),
            });
            continue;
        };
        let library = libraries.last_mut().ok_or_else(bad)?;
        let (version, names) = rest.split_once(' ').ok_or_else(bad)?;
        if Version::of_node(version).is_none_or(|version| version > BASELINE) {
            return Err(bad());
        }
        let entries = names.split(' ').map(|n| (version.to_owned(), n.to_owned()));
        library.symbols.extend(entries);
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let of = |node| Version::of_node(node).unwrap();
        assert!(of("GLIBC_2.2.5") < of("GLIBC_2.17"));
        assert!(of("GLIBC_ABI_DT_RELR") > BASELINE);
        assert_eq!(Version::of_node("GLIBC_PRIVATE"), None);
        assert_eq!(Version::of_node("IBVERBS_1.1"), None);
    }

    #[test]
    fn a_name_newer_than_the_baseline_cannot_be_listed() {
        assert!(parse("libc.so.6\n  GLIBC_2.17 clock_gettime\n").is_ok());
        let error = parse("libc.so.6\n  GLIBC_2.18 new_one\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(parse("  GLIBC_2.17 orphan\n").is_err());
        assert!(parse("libc.so.6\n  GLIBC_2.17\n").is_err());
    }

    #[test]
    fn aarch64_has_one_version_and_other_machines_no_list() {
        let libraries = baseline("aarch64").unwrap().unwrap();
        let mut symbols = libraries.iter().flat_map(|l| &l.symbols);
        assert!(symbols.all(|(version, _)| version == "GLIBC_2.17"));
        assert_eq!(libraries.last().unwrap().soname, "ld-linux-aarch64.so.1");
        assert!(baseline("riscv64").unwrap().is_none());
    }
}
