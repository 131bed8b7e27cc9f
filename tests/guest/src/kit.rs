//! What guests are booted from.

use crate::cache::Cache;
use crate::guest::{Driver, GuestConfig};
use crate::{qemu, root, uml};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// User-Mode Linux, built from Debian's source of Linux 6.12: quick.
    Uml,
    /// QEMU's software emulation with Debian's stock kernel: slow, unmodified.
    Qemu,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uml => "User-Mode Linux",
            Self::Qemu => "QEMU",
        })
    }
}

impl Kind {
    /// How many times as long as User-Mode Linux it may take for anything: limits are
    /// given for that.
    pub fn slowness(self) -> u32 {
        match self {
            Self::Uml => 1,
            Self::Qemu => 3,
        }
    }

    /// The Debian packages that making and running such guests takes, each with the
    /// reason.
    pub fn packages(self) -> Vec<(&'static str, &'static str)> {
        let mut packages = vec![
            ("debootstrap", "makes the Debian inside the guests"),
            ("iproute2", "namespaces, bridges and taps"),
            ("util-linux", "unshare"),
            ("xz-utils", "unpacks kernels and modules"),
        ];
        packages.extend(match self {
            Self::Uml => vec![
                ("gcc", "builds the kernel"),
                ("libc6-dev", "headers for the kernel's build"),
                ("make", "builds the kernel"),
                ("bc", "builds the kernel"),
                ("bison", "builds the kernel"),
                ("flex", "builds the kernel"),
                ("libelf-dev", "builds the kernel"),
            ],
            Self::Qemu => vec![
                ("qemu-system-x86", "emulates a machine"),
                ("busybox-static", "is in the initramfs"),
                ("kmod", "knows what modules need"),
                ("cpio", "packs the initramfs"),
                ("e2fsprogs", "makes the guests' disk image"),
                ("gcc", "builds siw"),
                ("make", "builds siw"),
            ],
        });
        packages
    }
}

/// A kernel and a root filesystem, kept in [`crate::CACHE_DIR`].
#[derive(Clone, Debug)]
pub struct Kit(Parts);

#[derive(Clone, Debug)]
enum Parts {
    Uml {
        kernel: PathBuf,
        root: PathBuf,
        agent: String,
    },
    Qemu {
        kernel: PathBuf,
        image: PathBuf,
    },
}

impl Kit {
    /// Fetches and builds what is not kept yet, for guests with these drivers; `say` is
    /// told what and how far it is. The Debian packages must be installed
    /// ([`Kind::packages`]).
    ///
    /// # Errors
    /// No network, no room, or a tool failed; the error holds the end of what it said.
    pub fn prepare(
        kind: Kind,
        drivers: &[Driver],
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let cache = Cache::find()?;
        Ok(Self(match kind {
            Kind::Uml => {
                let (root, agent) = root::directory(&cache, say)?;
                let kernel = uml::kernel(&cache, say)?;
                Parts::Uml {
                    kernel,
                    root,
                    agent,
                }
            }
            Kind::Qemu => Parts::Qemu {
                kernel: qemu::kernel(&cache, drivers.contains(&Driver::Siw), say)?,
                image: root::image(&cache, say)?,
            },
        }))
    }

    /// What it boots.
    pub fn kind(&self) -> Kind {
        match self.0 {
            Parts::Uml { .. } => Kind::Uml,
            Parts::Qemu { .. } => Kind::Qemu,
        }
    }

    pub(crate) fn command(
        &self,
        config: &GuestConfig<'_>,
        channel: &str,
        scratch: &Path,
    ) -> anyhow::Result<Command> {
        Ok(match &self.0 {
            Parts::Uml {
                kernel,
                root,
                agent,
            } => uml::command((kernel, root, agent), config, channel, scratch),
            Parts::Qemu { kernel, image } => {
                let shared = match &config.share {
                    Some(dir) => Some(root::image_of(dir, scratch)?),
                    None => None,
                };
                qemu::command((kernel, image), shared.as_deref(), config, channel)
            }
        })
    }
}
