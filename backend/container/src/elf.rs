//! The little that has to be known of an ELF file: whether it is of this machine, and
//! which versions of glibc's symbols it defines or needs.

use object::Endianness;
use object::elf::{DT_STRSZ, DT_STRTAB, Dyn64, FileHeader64, PT_DYNAMIC, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use serde::{Deserialize, Serialize, de};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::str::FromStr;

/// Bytes that [`is_native`] looks at.
pub(crate) const HEADER: u64 = 20;

/// Where the program headers must be.
const MAX_START: u64 = 4096;
const MAX_DYNAMIC: u64 = 64 << 10;
/// glibc's are 32 KiB.
const MAX_NAMES: u64 = 4 << 20;

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

/// The newest `GLIBC_x.y` among the names that an ELF file exchanges with others: what a
/// C library offers, or what another library needs. None if there is none. Whatever the
/// file says, no more than [`MAX_NAMES`] is read of it.
pub(crate) fn newest_glibc(file: &File) -> Option<GlibcVersion> {
    let start = read_at(file, 0, MAX_START)?;
    let header = FileHeader64::<Endianness>::parse(start.as_slice()).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, start.as_slice()).ok()?;
    let dynamic = segments.iter().find(|s| s.p_type(endian) == PT_DYNAMIC)?;
    let (offset, size) = dynamic.file_range(endian);
    let mut dynamic = read_at(file, offset, size.min(MAX_DYNAMIC))?;
    dynamic.truncate(dynamic.len() - dynamic.len() % size_of::<Dyn64<Endianness>>());
    let entries = object::slice_from_all_bytes::<Dyn64<Endianness>>(&dynamic).ok()?;
    let value = |tag| {
        let entry = entries.iter().find(|d| d.d_tag.get(endian) == tag)?;
        Some(entry.d_val.get(endian))
    };
    let (address, size) = (value(DT_STRTAB)?, value(DT_STRSZ)?);
    let offset = segments.iter().find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr(endian))?;
        let (offset, size) = segment.file_range(endian);
        (segment.p_type(endian) == PT_LOAD && within < size).then(|| offset.checked_add(within))?
    })?;
    newest(&read_at(file, offset, size.min(MAX_NAMES))?)
}

/// At most `size` bytes from `offset`.
fn read_at(file: &File, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file
            .read_at(rest, offset.checked_add(filled as u64)?)
            .ok()?
        {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Some(bytes)
}

fn newest(names: &[u8]) -> Option<GlibcVersion> {
    names
        .split(|byte| *byte == 0)
        .filter_map(|name| name.strip_prefix(b"GLIBC_"))
        .filter_map(|version| std::str::from_utf8(version).ok()?.parse().ok())
        .max()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write as _;

    /// A library of this machine that has nothing but names.
    pub(crate) fn shared_object(names: &[&str]) -> Vec<u8> {
        const HEADERS: u64 = 64 + 2 * 56;
        const NAMES: u64 = HEADERS + 3 * 16;
        let table: Vec<u8> = names
            .iter()
            .flat_map(|name| [b"\0", name.as_bytes()].concat())
            .chain([0])
            .collect();
        let end = NAMES + table.len() as u64;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for (value, size) in [
            (3, 2), // ET_DYN
            (u64::from(MACHINE), 2),
            (1, 4),
            (0, 8),
            (64, 8), // e_phoff
            (0, 8),
            (0, 4),
            (64, 2),
            (56, 2),
            (2, 2), // e_phnum
            (64, 2),
            (0, 2),
            (0, 2),
            // PT_LOAD, at address 0x1000
            (1, 4),
            (4, 4),
            (0, 8),
            (0x1000, 8),
            (0x1000, 8),
            (end, 8),
            (end, 8),
            (0x1000, 8),
            // PT_DYNAMIC
            (2, 4),
            (4, 4),
            (HEADERS, 8),
            (0x1000 + HEADERS, 8),
            (0x1000 + HEADERS, 8),
            (48, 8),
            (48, 8),
            (8, 8),
            (5, 8), // DT_STRTAB
            (0x1000 + NAMES, 8),
            (10, 8), // DT_STRSZ
            (table.len() as u64, 8),
            (0, 8),
            (0, 8),
        ] {
            file.extend(&value.to_le_bytes()[..size]);
        }
        file.extend(table);
        file
    }

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
        let version = |names: &[&str]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&shared_object(names)).unwrap();
            newest_glibc(&file)
        };
        let names = ["GLIBC_2.2.5", "GLIBC_2.31", "GLIBC_PRIVATE", "GLIBC_2.9"];
        assert_eq!(version(&names), Some(GlibcVersion::new(2, 31)));
        assert_eq!(version(&["memcpy"]), None);
    }

    #[test]
    fn a_file_that_lies_about_itself_is_read_within_bounds() {
        let whole = shared_object(&["GLIBC_2.31"]);
        for at in 0..whole.len() {
            for byte in [0, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&bytes).unwrap();
                file.set_len(1 << 40).unwrap();
                let _ = newest_glibc(&file);
            }
        }
        for len in 0..whole.len() - "\0GLIBC_2.31\0".len() {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&whole[..len]).unwrap();
            assert_eq!(newest_glibc(&file), None);
        }
    }

    #[test]
    fn this_programs_own_needs_are_found() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        if cfg!(target_env = "gnu") {
            assert!(newest_glibc(&own) >= Some(GlibcVersion::new(2, 17)));
        }
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
