use crate::{Answer, Request};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the socket in masqd's run directory.
pub const SOCKET_NAME: &str = "masqd.sock";

/// Why masqd gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens.
    #[error(
        "masqd does not answer at {path}: {source}\n  \
         is it running with this --run-dir? start it with: masqd --policy FILE --run-dir DIR"
    )]
    Unreachable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It said something else.
    #[error("masqd gave an answer that this masq does not understand: {0}")]
    Garbled(#[from] serde_json::Error),
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

/// Asks the masqd of `run_dir`.
///
/// # Errors
/// [`AdminError`]; never blocks for more than ten seconds.
pub fn call(run_dir: &Path, request: &Request) -> Result<Answer, AdminError> {
    let path = run_dir.join(SOCKET_NAME);
    let line =
        exchange(&path, request).map_err(|source| AdminError::Unreachable { path, source })?;
    match serde_json::from_str(&line)? {
        Answer::Error(message) => Err(AdminError::Refused(message)),
        answer => Ok(answer),
    }
}

/// Sends a request.
pub(crate) fn send(path: &Path, request: &Request) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    (&stream).write_all(text.as_bytes())?;
    Ok(stream)
}

fn exchange(path: &Path, request: &Request) -> io::Result<String> {
    let stream = send(path, request)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok(line)
}
