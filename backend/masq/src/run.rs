//! `masq run`: becomes the program, with the library and the socket in its
//! environment.

use crate::CliError;
use crate::cli::RunArgs;
use crate::hosts;
use masq_admin::{AdminError, Answer, Overview, Request};
use masq_policy::EndpointId;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variable by which the library finds its endpoint.
pub(crate) const SOCKET_VARIABLE: &str = "MASQ_SOCKET";
const SOCKET_FILE: &str = "masq.sock";

/// Replaces this process; returns only if that failed.
pub(crate) fn exec(run_dir: &Path, args: &RunArgs) -> CliError {
    let prepared = prepare(run_dir, args);
    match prepared {
        Ok(mut command) => CliError::Exec {
            program: command.get_program().to_string_lossy().into_owned(),
            source: command.exec(),
        },
        Err(error) => error,
    }
}

fn prepare(run_dir: &Path, args: &RunArgs) -> Result<Command, CliError> {
    let socket = socket(run_dir, &args.endpoint)?;
    let library = library(args.library.as_deref())?;
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(CliError::Usage("no program was named".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    command.env(SOCKET_VARIABLE, socket);
    let preload = first(
        library.as_os_str(),
        std::env::var_os("LD_PRELOAD").as_deref(),
    );
    command.env("LD_PRELOAD", preload);
    if let Some(dir) = library.parent() {
        let path = first(
            dir.as_os_str(),
            std::env::var_os("LD_LIBRARY_PATH").as_deref(),
        );
        command.env("LD_LIBRARY_PATH", path);
    }
    Ok(command)
}

/// `head` before what the variable held.
fn first(head: &OsStr, rest: Option<&OsStr>) -> OsString {
    let mut list = head.to_owned();
    if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
        list.push(":");
        list.push(rest);
    }
    list
}

/// The endpoint's socket, after making sure that somebody is behind it.
fn socket(run_dir: &Path, endpoint: &EndpointId) -> Result<PathBuf, CliError> {
    let endpoints = run_dir.join("endpoints");
    let path = endpoints
        .join(endpoint.tenant().as_str())
        .join(endpoint.name().as_str())
        .join(SOCKET_FILE);
    let there = path.try_exists().map_err(|source| CliError::Read {
        path: path.clone(),
        source,
    })?;
    // Only an endpoint's socket may be within reach of whoever runs programs.
    let answer = masq_admin::call(run_dir, &Request::Overview);
    match answer {
        Err(AdminError::Unreachable { source, .. })
            if there && source.kind() == io::ErrorKind::PermissionDenied => {}
        Err(AdminError::Unreachable { source, .. })
            if there
                && source.kind() == io::ErrorKind::NotFound
                && !run_dir.join(masq_admin::SOCKET_NAME).exists() => {}
        Err(error) => return Err(error.into()),
        Ok(Answer::Overview(overview)) if !there => elsewhere(&overview, endpoint)?,
        Ok(_) => {}
    }
    if !there {
        let known = existing(&endpoints);
        let list = if known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has: {}", known.join(", "))
        };
        return Err(CliError::NotFound(format!(
            "masqd in {} has no endpoint {endpoint}; {list}\n  \
             endpoints are made in the policy file, which `masq reload` has read again",
            run_dir.display()
        )));
    }
    std::path::absolute(&path).map_err(|source| CliError::Read { path, source })
}

/// An endpoint of another host has no socket here.
fn elsewhere(overview: &Overview, endpoint: &EndpointId) -> Result<(), CliError> {
    let name = endpoint.to_string();
    let found = overview.endpoints.iter().find(|e| e.endpoint == name);
    let Some((found, place)) = found.and_then(|e| Some((e, hosts::place(overview, e)?))) else {
        return Ok(());
    };
    let remedy = match found.outside {
        true => "programs there need no masq",
        false => "run the program there, or change `host` of the endpoint in the policy",
    };
    Err(CliError::NotFound(format!("{name} {place}\n  {remedy}")))
}

/// Endpoints whose sockets exist, sorted.
fn existing(endpoints: &Path) -> Vec<String> {
    let list = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir)
            .map(|entries| entries.flatten().map(|e| e.path()).collect())
            .unwrap_or_default()
    };
    let mut names = Vec::new();
    for tenant in list(endpoints) {
        for endpoint in list(&tenant) {
            if endpoint.join(SOCKET_FILE).exists() {
                let name = endpoint.strip_prefix(endpoints).unwrap_or(&endpoint);
                names.push(name.display().to_string());
            }
        }
    }
    names.sort();
    names
}

/// The library to preload.
pub(crate) fn library(named: Option<&Path>) -> Result<PathBuf, CliError> {
    let candidates = match named {
        Some(path) => vec![path.to_owned()],
        None => masq_container::libraries(std::env::current_exe().ok().as_deref()),
    };
    let Some(found) = candidates.iter().find(|path| path.is_file()) else {
        let looked: Vec<_> = candidates
            .iter()
            .map(|path| format!("    {}", path.display()))
            .collect();
        return Err(CliError::NoLibrary(looked.join("\n")));
    };
    let path = std::fs::canonicalize(found).map_err(|source| CliError::Read {
        path: found.clone(),
        source,
    })?;
    // LD_PRELOAD is split at both, and has no way to quote them.
    let splits = |b: &u8| *b == b' ' || *b == b':';
    if path.as_os_str().as_bytes().iter().any(splits) {
        return Err(CliError::Usage(format!(
            "the path of the library holds a blank or a colon, which LD_PRELOAD cannot carry: {}",
            path.display()
        )));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_comes_before_what_was_preloaded() {
        let preload = |rest: Option<&str>| first(OsStr::new("/m/lib.so"), rest.map(OsStr::new));
        assert_eq!(preload(None), "/m/lib.so");
        assert_eq!(preload(Some("")), "/m/lib.so");
        assert_eq!(preload(Some("/x.so")), "/m/lib.so:/x.so");
    }

    #[test]
    fn a_path_that_ld_preload_would_split_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a b");
        std::fs::create_dir(&odd).unwrap();
        let file = odd.join(masq_container::LIBRARY_FILE);
        std::fs::write(&file, "").unwrap();
        let error = library(Some(&file)).unwrap_err();
        assert!(error.to_string().contains("blank"), "{error}");
        assert_eq!(error.exit_status(), 2);
    }

    #[test]
    fn a_library_that_is_nowhere_is_named_with_the_places() {
        let error = library(Some(Path::new("/no/such.so"))).unwrap_err();
        assert!(error.to_string().contains("/no/such.so"), "{error}");
    }
}
