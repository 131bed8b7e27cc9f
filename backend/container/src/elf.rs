//! The little that has to be known of an ELF file: whether it is of this machine, and
//! which versions of glibc's symbols it defines or needs.

use memchr::memmem;
use serde::{Deserialize, Serialize, de};
use std::fmt;
use std::str::FromStr;

/// Bytes that [`is_native`] looks at.
pub(crate) const HEADER: u64 = 20;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// A version of glibc, such as 2.36.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlibcVersion {
    major: u32,
    minor: u32,
}

impl GlibcVersion {
    /// The version `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for GlibcVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no version of glibc, such as 2.36");
        let (major, rest) = text.split_once('.').ok_or_else(wrong)?;
        // 2.2.5 counts as 2.2: nothing that matters came with a third number.
        let minor = rest.split('.').next().unwrap_or_default();
        Ok(Self {
            major: major.parse().map_err(|_| wrong())?,
            minor: minor.parse().map_err(|_| wrong())?,
        })
    }
}

impl<'de> Deserialize<'de> for GlibcVersion {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for GlibcVersion {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Whether a file begins as an ELF file of this machine's architecture does.
pub(crate) fn is_native(header: &[u8]) -> bool {
    // EI_CLASS 2: 64 bits; EI_DATA 1: little endian.
    header.starts_with(b"\x7fELF\x02\x01")
        && header.get(18..20) == Some(MACHINE.to_le_bytes().as_slice())
}

/// The newest `GLIBC_x.y` among the strings of an ELF file: what a C library offers, or
/// what another library needs. None if there is none.
pub(crate) fn newest_glibc(file: &[u8]) -> Option<GlibcVersion> {
    const PREFIX: &[u8] = b"GLIBC_";
    memmem::find_iter(file, PREFIX)
        .filter_map(|at| {
            let rest = file.get(at + PREFIX.len()..)?;
            let text = rest.get(..rest.len().min(16))?;
            let end = text.iter().position(|b| *b == 0)?;
            std::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let version = |text: &str| text.parse::<GlibcVersion>().unwrap();
        assert!(version("2.9") < version("2.28"));
        assert!(version("2.2.5") < version("2.3"));
        assert_eq!(version("2.36").to_string(), "2.36");
        for bad in ["", "2", "2.x", "PRIVATE", "ABI_DT_RELR"] {
            assert!(bad.parse::<GlibcVersion>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_newest_symbol_version_counts() {
        let file = b"xx\0GLIBC_2.2.5\0GLIBC_2.31\0GLIBC_PRIVATE\0GLIBC_2.9\0GLIBC_9.9";
        assert_eq!(newest_glibc(file), Some(GlibcVersion::new(2, 31)));
        assert_eq!(newest_glibc(b"GLIBC_"), None);
        assert_eq!(newest_glibc(b""), None);
    }

    #[test]
    fn this_program_is_native_and_other_files_are_not() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_native(&own));
        let mut other = own[..20].to_vec();
        other[18] = 8;
        assert!(!is_native(&other));
        assert!(!is_native(b"\x7fELF"));
        assert!(!is_native(b"#!/bin/sh\n"));
    }
}
