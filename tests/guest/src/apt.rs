//! Packages that are unpacked, not installed.

use crate::watch::output_of;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package as apt would fetch it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Of the file.
    pub(crate) bytes: u64,
}

impl Package {
    /// Looks it up; apt's lists are fetched if they do not know it.
    pub(crate) fn find(name: &str) -> anyhow::Result<Self> {
        let show = || {
            let mut show = Command::new("apt-cache");
            show.args(["show", "--no-all-versions", name]);
            Self::parse(&output_of(show)?)
        };
        show().or_else(|_| {
            update()?;
            show().with_context(|| format!("apt knows no package {name}"))
        })
    }

    /// One whose name and version are known.
    pub(crate) fn of_version(name: &str, version: String) -> Self {
        Self {
            name: name.to_owned(),
            version,
            bytes: 0,
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let field = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name));
            found
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("no {name} in what apt-cache says:\n{text}"))
        };
        Ok(Self {
            name: field("Package:")?,
            version: field("Version:")?,
            bytes: field("Size:")?.parse()?,
        })
    }

    pub(crate) fn mib(&self) -> u64 {
        self.bytes >> 20
    }

    /// Fetches its file into `dir`.
    pub(crate) fn download(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        let fetch = || {
            let mut fetch = Command::new("apt-get");
            fetch.args(["download", "-q"]).current_dir(dir);
            fetch.arg(format!("{}={}", self.name, self.version));
            output_of(fetch)
        };
        // Old lists name files that the mirror has no more.
        fetch().or_else(|_| update().and_then(|()| fetch()))?;
        let files = std::fs::read_dir(dir)?.filter_map(Result::ok);
        let prefix = format!("{}_", self.name);
        files
            .map(|entry| entry.path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&prefix) && name.ends_with(".deb")
            })
            .with_context(|| format!("apt-get left no file of {} in {dir:?}", self.name))
    }
}

/// The package that a metapackage stands for: its first dependency whose name begins so.
pub(crate) fn dependency(of: &str, prefix: &str) -> anyhow::Result<String> {
    let mut ask = Command::new("apt-cache");
    ask.args(["depends", "--important", of]);
    let text = output_of(ask)?;
    first_dependency(&text, prefix)
        .with_context(|| format!("{of} depends on no {prefix}…:\n{text}"))
}

fn first_dependency(text: &str, prefix: &str) -> Option<String> {
    let names = text.lines().filter_map(|line| {
        let (_, name) = line.split_once("Depends: ")?;
        Some(name.trim())
    });
    let mut fitting = names.filter(|name| name.starts_with(prefix));
    fitting.next().map(str::to_owned)
}

fn update() -> anyhow::Result<()> {
    let mut update = Command::new("apt-get");
    update.args(["update", "-q"]);
    output_of(update).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_from_what_apt_says() {
        let text = "Package: linux-source-6.12\nSource: linux-6.12\n\
                    Version: 6.12.117-1~deb12u1\nInstalled-Size: 150000\nSize: 153476148\n";
        let package = Package::parse(text).unwrap();
        assert_eq!(package.version, "6.12.117-1~deb12u1");
        assert_eq!(package.mib(), 146);
        assert!(Package::parse("").is_err());
    }

    #[test]
    fn a_metapackage_names_its_kernel() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        let found = first_dependency(text, "linux-image-");
        assert_eq!(found.unwrap(), "linux-image-6.1.0-56-amd64");
        assert_eq!(first_dependency(text, "linux-headers-"), None);
    }
}
