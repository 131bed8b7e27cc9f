use std::io;
use std::path::{Path, PathBuf};

/// Why a container cannot be an endpoint, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The state that a runtime hands to its hooks is not one.
    #[error(
        "the container's state on standard input is wrong: {0}\n  \
         this command is run by a container runtime, as a hook; see `masq hook --help`"
    )]
    State(String),
    /// The bundle, or its config.json, is not as OCI says.
    #[error("the container's {path} is not what an OCI runtime makes: {why}")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What is asked for contradicts itself or is no name.
    #[error("{0}")]
    Asked(String),
    /// masqd did not answer, or refused.
    #[error(transparent)]
    Masqd(#[from] masq_admin::AdminError),
    /// masqd answered something else than was asked.
    #[error(
        "masqd answered another question than was asked\n  \
         are masq and masqd of the same version? compare `masq --version` and `masqd --version`"
    )]
    WrongAnswer,
    /// The image cannot take masq's library.
    #[error("{0}")]
    Image(String),
    /// A step of the work failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The verb.
        what: &'static str,
        /// Its object.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that masq itself wrote, or was installed with it, is broken.
    #[error("{path} cannot be understood: {why}")]
    Garbled {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A name that CDI does not allow.
    #[error("{name:?} cannot be the name of a CDI device: {why}")]
    CdiName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// No runtime could be started.
    #[error("{0}")]
    Runtime(String),
}

impl ContainerError {
    /// For `map_err` after a system call on `path`.
    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            what,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}
