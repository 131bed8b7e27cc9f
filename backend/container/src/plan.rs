//! What is to be mounted where, from what an image has and what masq brings.

use crate::ContainerError;
use crate::bundled::{Bundled, VERBS};
use crate::image::{Image, LOADER, Libc};
use std::path::{Path, PathBuf};

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory of masqd's, which programs only look into.
    Directory,
    /// A library or program.
    File,
}

/// One bind mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Whether the container is no endpoint without it.
    pub essential: bool,
}

/// All that is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In order.
    pub items: Vec<Item>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl Plan {
    fn file(&mut self, source: &Path, target: PathBuf, essential: bool) {
        self.items.push(Item {
            source: source.to_owned(),
            target,
            kind: Kind::File,
            essential,
        });
    }

    /// What of `dir`, masqd's directory for the container, goes where.
    pub(crate) fn directories(&mut self, dir: &Path) {
        for (name, target, essential) in [
            ("run", "/run/masq", true),
            ("dev", "/dev/infiniband", false),
        ] {
            self.items.push(Item {
                source: dir.join(name),
                target: target.into(),
                kind: Kind::Directory,
                essential,
            });
        }
    }

    /// What of `bundled` goes into `image`.
    ///
    /// # Errors
    /// [`ContainerError::Image`] if masq's library cannot work there.
    pub(crate) fn libraries(
        &mut self,
        image: &Image,
        bundled: &Bundled,
    ) -> Result<(), ContainerError> {
        if image.has_too_many_verbs() {
            return Err(ContainerError::Image(format!(
                "the image has more than {} files libibverbs.so.1*, and masq's would have to \
                 be mounted over each\n  \
                 remove those that no program loads, or set the annotation \
                 dev.masq/library=none",
                image.verbs.len() - 1
            )));
        }
        match image.libc {
            Libc::Musl => Err(ContainerError::Image(
                "the image is built on musl, and masq's libibverbs.so.1 needs glibc\n  \
                 use an image with glibc (Debian, Ubuntu, Fedora, …), or, if its programs \
                 bring a library of masq of their own, set the annotation \
                 dev.masq/library=none"
                    .to_owned(),
            )),
            Libc::Glibc(version) if version < bundled.verbs_needs => {
                Err(ContainerError::Image(format!(
                    "the image has glibc {version}, and masq's libibverbs.so.1 needs {}\n  \
                     use a newer image, or set the annotation dev.masq/library=none",
                    bundled.verbs_needs
                )))
            }
            Libc::Glibc(version) => {
                for target in &image.verbs {
                    self.file(&bundled.verbs, target.clone(), true);
                }
                let Some(dir) = &image.default_dir else {
                    return Ok(());
                };
                if image.verbs.is_empty() {
                    self.file(&bundled.verbs, dir.join(VERBS), true);
                }
                for (name, (source, needs)) in &bundled.libraries {
                    if image.present.contains(name) {
                    } else if version < *needs {
                        self.notes.push(format!(
                            "{name} is left out: it needs glibc {needs}, the image has {version}"
                        ));
                    } else {
                        self.file(source, dir.join(name), false);
                    }
                }
                Ok(())
            }
            Libc::None => {
                self.everything(image, bundled);
                Ok(())
            }
        }
    }

    /// For an image whose programs are static: a loader, its libraries, and two programs
    /// to look at the device with. Programs that such an image itself has use no library.
    fn everything(&mut self, image: &Image, bundled: &Bundled) {
        let Some(loader) = &bundled.loader else {
            self.notes
                .push("no libraries: neither the image nor masq has a loader".to_owned());
            return;
        };
        self.file(loader, LOADER.into(), false);
        let dir = &bundled.library_dir;
        self.file(&bundled.verbs, dir.join(VERBS), false);
        let libraries = bundled
            .libraries
            .iter()
            .map(|(name, (path, _))| (name, path));
        for (name, source) in libraries.chain(&bundled.libc) {
            self.file(source, dir.join(name), false);
        }
        let bin = Path::new(if image.has_usr_bin {
            "/usr/bin"
        } else {
            "/bin"
        });
        for (name, source) in &bundled.programs {
            if !image.present.contains(name) {
                self.file(source, bin.join(name), false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::GlibcVersion;

    fn bundled() -> Bundled {
        let library = |name: &str, minor| {
            (
                name.to_owned(),
                (PathBuf::from("/m").join(name), GlibcVersion::new(2, minor)),
            )
        };
        Bundled {
            verbs: "/m/libibverbs.so.1".into(),
            verbs_needs: GlibcVersion::new(2, 28),
            libraries: [library("librdmacm.so.1", 34), library("libefa.so.1", 28)].into(),
            libc: [("libc.so.6".to_owned(), "/m/libc.so.6".into())].into(),
            loader: Some("/m/ld".into()),
            library_dir: "/lib/multi".into(),
            programs: [("ibv_devinfo".to_owned(), "/m/ibv_devinfo".into())].into(),
        }
    }

    fn image(libc: Libc) -> Image {
        Image {
            libc,
            default_dir: matches!(libc, Libc::Glibc(_)).then(|| "/usr/lib".into()),
            verbs: vec![],
            present: Default::default(),
            has_usr_bin: false,
        }
    }

    fn targets(image: &Image) -> Vec<String> {
        let mut plan = Plan::default();
        plan.libraries(image, &bundled()).unwrap();
        plan.items
            .iter()
            .map(|item| format!("{} <- {}", item.target.display(), item.source.display()))
            .collect()
    }

    #[test]
    fn every_copy_of_the_library_is_replaced() {
        let mut image = image(Libc::Glibc(GlibcVersion::new(2, 36)));
        image.verbs = vec![
            "/usr/lib/libibverbs.so.1.14".into(),
            "/opt/libibverbs.so.1".into(),
        ];
        image.present = ["librdmacm.so.1".into(), "libefa.so.1".into()].into();
        assert_eq!(
            targets(&image),
            [
                "/usr/lib/libibverbs.so.1.14 <- /m/libibverbs.so.1",
                "/opt/libibverbs.so.1 <- /m/libibverbs.so.1"
            ]
        );
    }

    #[test]
    fn an_image_without_rdma_core_gets_what_its_glibc_can_load() {
        let old = image(Libc::Glibc(GlibcVersion::new(2, 28)));
        assert_eq!(
            targets(&old),
            [
                "/usr/lib/libibverbs.so.1 <- /m/libibverbs.so.1",
                "/usr/lib/libefa.so.1 <- /m/libefa.so.1"
            ]
        );
        let new = image(Libc::Glibc(GlibcVersion::new(2, 34)));
        assert_eq!(targets(&new).len(), 3);
    }

    #[test]
    fn an_image_that_cannot_load_the_library_is_refused_with_a_remedy() {
        for libc in [Libc::Musl, Libc::Glibc(GlibcVersion::new(2, 27))] {
            let error = Plan::default()
                .libraries(&image(libc), &bundled())
                .unwrap_err();
            assert!(
                error.to_string().contains("dev.masq/library=none"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_image_of_countless_copies_is_refused() {
        let mut image = image(Libc::Glibc(GlibcVersion::new(2, 36)));
        image.verbs = vec!["/usr/lib/libibverbs.so.1".into(); 65];
        let error = Plan::default().libraries(&image, &bundled()).unwrap_err();
        assert!(error.to_string().contains("more than 64"), "{error}");
    }

    #[test]
    fn a_static_image_gets_loader_libraries_and_programs() {
        let targets = targets(&image(Libc::None));
        for target in [
            format!("{LOADER} <- /m/ld"),
            "/lib/multi/libc.so.6 <- /m/libc.so.6".to_owned(),
            "/lib/multi/libibverbs.so.1 <- /m/libibverbs.so.1".to_owned(),
            "/lib/multi/librdmacm.so.1 <- /m/librdmacm.so.1".to_owned(),
            "/bin/ibv_devinfo <- /m/ibv_devinfo".to_owned(),
        ] {
            assert!(targets.contains(&target), "{target} in {targets:?}");
        }
    }
}
