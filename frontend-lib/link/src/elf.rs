//! What a program or shared object says that it needs of others.

use crate::LinkError;
use crate::glibc::Version;
use object::elf::{self, Dyn64, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, Sym as _, VersionTable};
use object::{Endianness, StringTable};
use std::path::Path;

type Header = FileHeader64<Endianness>;

/// A name that a file takes from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// `pthread_create`.
    pub name: String,
    /// Which library must have it and under which version; nothing of the kind for names
    /// that are taken from anywhere.
    pub from: Option<(String, String)>,
    /// Null if nobody has it.
    pub weak: bool,
}

/// The dynamic part of an ELF file of 64 bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// DT_SONAME.
    pub soname: Option<String>,
    /// DT_NEEDED, in the file's order.
    pub needed: Vec<String>,
    /// The program that loads it, if it is one that can be started.
    pub interpreter: Option<String>,
    /// Every undefined name.
    pub imports: Vec<Import>,
    /// Every (library, version) that must exist when the file is loaded, weak or not.
    pub versions: Vec<(String, String)>,
    /// The versions that it has for others.
    pub defines: Vec<String>,
}

impl Dynamic {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no ELF file of 64 bits.
    pub fn read(path: &Path) -> Result<Self, LinkError> {
        let data = std::fs::read(path).map_err(|source| crate::io(path, source))?;
        Self::parse(&data).map_err(|error| LinkError::Elf {
            path: path.to_owned(),
            detail: error.to_string(),
        })
    }

    fn parse(data: &[u8]) -> object::Result<Self> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut out = Self::default();
        for segment in header.program_headers(endian, data)? {
            use object::read::elf::ProgramHeader as _;
            if let Some(path) = segment.interpreter(endian, data)? {
                out.interpreter = Some(text(path));
            }
        }
        if let Some((entries, link)) = sections.dynamic(endian, data)? {
            let strings = sections.strings(endian, data, link)?;
            out.dynamic(endian, entries, &strings);
        }
        if let Some((mut libraries, link)) = sections.gnu_verneed(endian, data)? {
            let strings = sections.strings(endian, data, link)?;
            while let Some((library, mut versions)) = libraries.next()? {
                let file = text(library.file(endian, strings)?);
                while let Some(version) = versions.next()? {
                    let name = text(version.name(endian, strings)?);
                    out.versions.push((file.clone(), name));
                }
            }
        }
        if let Some((mut nodes, link)) = sections.gnu_verdef(endian, data)? {
            let strings = sections.strings(endian, data, link)?;
            while let Some((_, mut names)) = nodes.next()? {
                if let Some(name) = names.next()? {
                    out.defines.push(text(name.name(endian, strings)?));
                }
            }
        }
        let versions = sections.versions(endian, data)?;
        let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
        for (index, symbol) in symbols.enumerate() {
            if index.0 == 0 || !symbol.is_undefined(endian) {
                continue;
            }
            out.imports.push(Import {
                name: text(symbol.name(endian, symbols.strings())?),
                from: from(versions.as_ref(), endian, index)?,
                weak: symbol.st_bind() == elf::STB_WEAK,
            });
        }
        Ok(out)
    }

    fn dynamic(&mut self, endian: Endianness, entries: &[Dyn64<Endianness>], names: &StringTable) {
        for entry in entries {
            let name = || entry.string(endian, *names).map(text).ok();
            match entry.tag(endian) {
                elf::DT_NULL => break,
                elf::DT_NEEDED => self.needed.extend(name()),
                elf::DT_SONAME => self.soname = name(),
                _ => {}
            }
        }
    }

    /// The oldest glibc that it loads with; nothing if it asks for no version of glibc.
    pub fn glibc_needed(&self) -> Option<Version> {
        let versions = self.versions.iter().map(|(_, version)| version.as_str());
        versions.filter_map(Version::of_node).max()
    }
}

fn from(
    versions: Option<&VersionTable<'_, Header>>,
    endian: Endianness,
    index: object::SymbolIndex,
) -> object::Result<Option<(String, String)>> {
    let Some(versions) = versions else {
        return Ok(None);
    };
    let version = versions.version(versions.version_index(endian, index).index())?;
    Ok(version.and_then(|v| Some((text(v.file()?), text(v.name())))))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
