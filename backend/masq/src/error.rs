//! What can go wrong, in the words of somebody who has to mend it.

use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// masqd did not answer, or refused.
    #[error(transparent)]
    Admin(#[from] masq_admin::AdminError),
    /// A container cannot be an endpoint.
    #[error(transparent)]
    Container(#[from] masq_container::ContainerError),
    /// masqd answered something else than was asked.
    #[error(
        "masqd answered another question than was asked\n  \
         are masq and masqd of the same version? compare `masq --version` and `masqd --version`"
    )]
    WrongAnswer,
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// masqd went away in the middle.
    #[error("masqd is gone: {0}\n  what was captured until then is in the file")]
    Interrupted(io::Error),
    /// A policy file has mistakes; the text shows them.
    #[error("{0}")]
    Policy(String),
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// What was asked about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// `masq run`: the library is nowhere.
    #[error("libibverbs.so.1 of masq was not found; looked in:\n{looked}\n  name it: masq run --library PATH …", looked = .0)]
    NoLibrary(String),
    /// `masq run`: the program did not start.
    #[error("cannot run {program}: {source}")]
    Exec {
        /// The command.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A report could not be made into JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl CliError {
    /// 2 for a mistake in the command line, 126 and 127 as shells use them for
    /// a program that did not start, else 1.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Exec { .. } => 126,
            _ => 1,
        }
    }

    /// Prints it to standard error. A reader that went away needs no message.
    pub fn report(&self) {
        if matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe) {
            return;
        }
        if let Self::Policy(rendered) = self {
            anstream::eprintln!("{rendered}");
            return;
        }
        let style = crate::output::BAD;
        let text = crate::output::printable_lines(&self.to_string());
        anstream::eprintln!("{style}error{style:#}: {text}");
    }
}
