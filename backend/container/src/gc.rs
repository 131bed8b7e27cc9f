//! Removes what containers left behind whose runtime died before it could run the poststop
//! hook, or whose masqd did not live to see them end.

use crate::ContainerError;
use crate::record::{self, Place};
use masq_admin::{AdminError, Answer, ContainerId, ProcessId, Request};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// One thing that was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// The container.
    pub container: String,
    /// Its directory or record below the run directory.
    pub path: PathBuf,
    /// Mount points in its root filesystem.
    pub mount_points: Vec<PathBuf>,
    /// What could not be removed, and why.
    pub failures: Vec<String>,
}

/// Finds what is left behind below `run_dir` and, unless `dry_run`, removes it.
///
/// # Errors
/// [`ContainerError`] if masqd answers, but not to the question, or a directory cannot be
/// listed. A masqd that does not run is no error: it knows no container.
pub fn collect(run_dir: &Path, dry_run: bool) -> Result<Vec<Leftover>, ContainerError> {
    let known = known(run_dir)?;
    let mut leftovers = Vec::new();
    let dir = record::directory(run_dir);
    let records = record::list(run_dir).map_err(ContainerError::io("list", &dir))?;
    let _lock = record::lock(run_dir);
    for (id, name) in records {
        let Ok(place) = Place::named(run_dir, name) else {
            continue;
        };
        let record = match place.read() {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(e) => {
                leftovers.push(broken(&id, place.path(), &e));
                continue;
            }
        };
        if record.process.is_alive() {
            continue;
        }
        leftovers.push(Leftover {
            container: id.to_string(),
            path: place.path().to_owned(),
            mount_points: record.created.iter().map(|c| c.path.clone()).collect(),
            failures: if dry_run {
                Vec::new()
            } else {
                place.undo(&record)
            },
        });
    }
    for (id, path) in list(&run_dir.join("containers"))? {
        if known.contains(id.as_str()) || is_alive(&path) {
            continue;
        }
        let mut leftover = Leftover {
            container: id.to_string(),
            path: path.clone(),
            mount_points: Vec::new(),
            failures: Vec::new(),
        };
        if !dry_run && let Err(e) = std::fs::remove_dir_all(&path) {
            leftover.failures.push(e.to_string());
        }
        leftovers.push(leftover);
    }
    Ok(leftovers)
}

fn broken(id: &ContainerId, path: &Path, error: &ContainerError) -> Leftover {
    Leftover {
        container: id.to_string(),
        path: path.to_owned(),
        mount_points: Vec::new(),
        failures: vec![error.to_string()],
    }
}

fn known(run_dir: &Path) -> Result<BTreeSet<String>, ContainerError> {
    match masq_admin::call(run_dir, &Request::Containers) {
        Ok(Answer::Containers(list)) => Ok(list.into_iter().map(|c| c.container).collect()),
        Ok(_) => Err(ContainerError::WrongAnswer),
        Err(AdminError::Unreachable { .. }) => Ok(BTreeSet::new()),
        Err(e) => Err(e.into()),
    }
}

/// Whether the process that masqd's state.json names still runs. A directory without one is
/// alive for a minute: masqd may be about to write it.
fn is_alive(dir: &Path) -> bool {
    let state = dir.join("state.json");
    match std::fs::read(&state) {
        Ok(text) => serde_json::from_slice::<ProcessId>(&text).is_ok_and(ProcessId::is_alive),
        Err(_) => std::fs::symlink_metadata(dir)
            .and_then(|m| m.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() < 60)),
    }
}

/// Entries of `dir` that are named for a container.
fn list(dir: &Path) -> Result<Vec<(ContainerId, PathBuf)>, ContainerError> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(ContainerError::io("list", dir))?,
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let id = ContainerId::new(&name).ok()?;
            Some((id, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Created, Record};
    use std::fs;
    use std::os::unix::fs::symlink;

    fn dead() -> ProcessId {
        ProcessId {
            pid: std::process::id() as i32,
            start_time: 1,
        }
    }

    fn created(path: &str, directory: bool) -> Created {
        Created {
            path: path.into(),
            directory,
        }
    }

    fn write(run_dir: &Path, record: &Record) {
        let id = ContainerId::new(&record.container).unwrap();
        Place::to_write(run_dir, &id, &record.rootfs, run_dir)
            .unwrap()
            .write(record)
            .unwrap();
    }

    #[test]
    fn mount_points_of_a_dead_container_go_if_they_are_still_empty() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("run/masq")).unwrap();
        fs::create_dir_all(rootfs.join("opt/kept")).unwrap();
        fs::write(rootfs.join("lib.so"), "").unwrap();
        fs::write(rootfs.join("used.so"), "contents").unwrap();
        fs::write(rootfs.join("opt/kept/file"), "").unwrap();
        let record = Record {
            container: "c1".into(),
            process: dead(),
            rootfs: rootfs.clone(),
            created: vec![
                created("/run", true),
                created("/run/masq", true),
                created("/lib.so", false),
                created("/used.so", false),
                created("/opt/kept", true),
                created("/gone/x", true),
            ],
        };
        write(dir.path(), &record);
        let found = collect(dir.path(), true).unwrap();
        assert_eq!(found.len(), 1);
        assert!(
            rootfs.join("run/masq").exists(),
            "a dry run removes nothing"
        );
        let found = collect(dir.path(), false).unwrap();
        assert!(found[0].failures.is_empty(), "{found:?}");
        assert!(!rootfs.join("run").exists());
        assert!(!rootfs.join("lib.so").exists());
        assert!(rootfs.join("used.so").exists());
        assert!(rootfs.join("opt/kept/file").exists());
        assert!(collect(dir.path(), false).unwrap().is_empty());
    }

    #[test]
    fn a_mount_point_that_a_running_container_shares_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("run/masq")).unwrap();
        fs::write(rootfs.join("lib.so"), "").unwrap();
        let run = [created("/run", true), created("/run/masq", true)];
        let record = |name: &str, process, more: &[Created]| Record {
            container: name.into(),
            process,
            rootfs: rootfs.clone(),
            created: [&run[..], more].concat(),
        };
        let alive = ProcessId::of(std::process::id() as i32).unwrap();
        write(
            dir.path(),
            &record("ended", dead(), &[created("/lib.so", false)]),
        );
        write(dir.path(), &record("runs", alive, &[]));
        let found = collect(dir.path(), false).unwrap();
        assert_eq!(found.len(), 1);
        assert!(!rootfs.join("lib.so").exists());
        assert!(rootfs.join("run/masq").exists());
        write(dir.path(), &record("runs", dead(), &[]));
        assert_eq!(collect(dir.path(), false).unwrap().len(), 1);
        assert!(!rootfs.join("run").exists());
    }

    #[test]
    fn another_root_filesystem_at_the_same_path_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("run/masq")).unwrap();
        let record = Record {
            container: "c1".into(),
            process: dead(),
            rootfs: rootfs.clone(),
            created: vec![created("/run", true), created("/run/masq", true)],
        };
        write(dir.path(), &record);
        // Not removed, or its number could be the next one's.
        fs::rename(&rootfs, dir.path().join("old")).unwrap();
        fs::create_dir_all(rootfs.join("run/masq")).unwrap();
        assert_eq!(collect(dir.path(), false).unwrap().len(), 1);
        assert!(rootfs.join("run/masq").exists());
        assert!(collect(dir.path(), false).unwrap().is_empty());
    }

    #[test]
    fn a_link_that_a_container_left_leads_the_collector_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        let outside = dir.path().join("outside");
        fs::create_dir_all(&rootfs).unwrap();
        fs::create_dir_all(outside.join("masq")).unwrap();
        symlink(&outside, rootfs.join("run")).unwrap();
        symlink(outside.join("masq"), rootfs.join("link")).unwrap();
        write(
            dir.path(),
            &Record {
                container: "c1".into(),
                process: dead(),
                rootfs: rootfs.clone(),
                created: vec![created("/run/masq", true), created("/link", true)],
            },
        );
        collect(dir.path(), false).unwrap();
        assert!(outside.join("masq").exists());
        assert!(rootfs.join("link").is_symlink());
    }

    #[test]
    fn a_container_that_runs_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let alive = ProcessId::of(std::process::id() as i32).unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("run")).unwrap();
        write(
            dir.path(),
            &Record {
                container: "c1".into(),
                process: alive,
                rootfs: rootfs.clone(),
                created: vec![created("/run", true)],
            },
        );
        let own = dir.path().join("containers/c1");
        fs::create_dir_all(&own).unwrap();
        let state = |process: ProcessId| {
            fs::write(
                own.join("state.json"),
                serde_json::to_vec(&process).unwrap(),
            )
            .unwrap();
        };
        state(alive);
        assert!(collect(dir.path(), false).unwrap().is_empty());
        state(dead());
        assert_eq!(collect(dir.path(), false).unwrap().len(), 1);
        assert!(!own.exists());
        assert!(rootfs.join("run").exists());
    }
}
