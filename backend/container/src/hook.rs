//! The hook: what happens when a runtime has made a container and not started it yet, and
//! when it has ended.

use crate::ContainerError;
use crate::asked::{Asked, Device, devices_of_hooks};
use crate::bundled::Bundled;
use crate::inject::{Injection, inject};
use crate::oci::{Config, State};
use crate::record::{self, Place, Record};
use crate::storage;
use masq_admin::{AdminError, Answer, ContainerReport, ProcessId, Registration, Request};
use std::path::PathBuf;

/// Seconds after which the hook ends itself, whatever holds it up.
pub const TIME_LIMIT: u32 = 25;

/// Where masq's parts are on this host.
#[derive(Clone, Debug)]
pub struct Host {
    /// masqd's run directory, absolute.
    pub run_dir: PathBuf,
    /// Directory with libibverbs.so.1 and `container/`.
    pub lib_dir: PathBuf,
}

/// What the hook did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The container as masqd knows it; none if it was left alone.
    pub registered: Option<ContainerReport>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Sees to it that this process ends in bounded time: a filesystem of the container's may
/// not answer.
pub fn limit_time() {
    nix::unistd::alarm::set(TIME_LIMIT);
}

/// Makes a container that is about to start an endpoint. With `select`, one that asks for
/// nothing becomes what the policy's selectors say, if they say anything. Doing it twice is
/// doing it once.
///
/// # Errors
/// [`ContainerError`]; everything is undone then, and the container must not start.
pub fn create_runtime(
    host: &Host,
    devices: &[Device],
    select: bool,
    state: &State,
) -> Result<Outcome, ContainerError> {
    let pid = state.pid.ok_or_else(|| {
        ContainerError::State("it has no pid: is this the createRuntime stage?".to_owned())
    })?;
    let config = Config::of_bundle(&state.bundle)?;
    let mut annotations = state.annotations.clone();
    annotations.extend(config.annotations()?);
    let mut all = devices_of_hooks(&config)?;
    all.extend_from_slice(devices);
    let asked = Asked::new(&all, &annotations)?;
    if asked.is_nothing() && !select {
        return Ok(Outcome::default());
    }
    let known = storage::known(state.id.as_str(), &state.bundle, &config, &annotations);
    let mut labels = known.labels;
    labels.extend(annotations);
    let request = Request::Register(Registration {
        container: state.id.to_string(),
        pid,
        tenant: asked.tenant.as_ref().map(ToString::to_string),
        endpoint: asked.endpoint.as_ref().map(ToString::to_string),
        image: known.image,
        labels,
    });
    // Before masqd is asked, so that a broken installation leaves no trace there.
    let bundled = if asked.no_library {
        None
    } else {
        Some(Bundled::read(&host.lib_dir)?)
    };
    let report = match masq_admin::call(&host.run_dir, &request) {
        Ok(Answer::Registered(report)) => report,
        Ok(_) => return Err(ContainerError::WrongAnswer),
        Err(e @ (AdminError::Refused(_) | AdminError::Unreachable { .. }))
            if asked.is_nothing() =>
        {
            return Ok(Outcome {
                registered: None,
                notes: vec![format!("the container is left alone: {e}")],
            });
        }
        Err(e) => return Err(e.into()),
    };
    let injected = bring(host, state, &config, pid, &report, bundled.as_ref());
    match injected {
        Ok(notes) => Ok(Outcome {
            registered: Some(report),
            notes,
        }),
        Err(e) => {
            undo(host, state, Some(pid));
            Err(e)
        }
    }
}

fn bring(
    host: &Host,
    state: &State,
    config: &Config,
    pid: i32,
    report: &ContainerReport,
    bundled: Option<&Bundled>,
) -> Result<Vec<String>, ContainerError> {
    let process = ProcessId::of(pid).map_err(ContainerError::io(
        "find the container's process in",
        format!("/proc/{pid}"),
    ))?;
    let rootfs = config.rootfs(&state.bundle)?;
    let place = Place::to_write(&host.run_dir, &state.id, &rootfs, &state.bundle)?;
    let mut record = Record {
        container: state.id.to_string(),
        process,
        rootfs,
        created: Vec::new(),
    };
    let _lock = record::lock(&host.run_dir);
    for before in Place::all(&host.run_dir, &state.id, &state.bundle) {
        match before.read() {
            Ok(Some(found)) if !found.process.is_alive() => drop(before.undo(&found)),
            Ok(Some(found)) if found.rootfs == record.rootfs => record.created = found.created,
            Ok(_) | Err(_) => {}
        }
    }
    inject(Injection {
        pid,
        dir: &report.dir,
        bundled,
        place: &place,
        record,
    })
}

/// Forgets a container that has ended. What is gone already is no failure.
pub fn poststop(host: &Host, state: &State) -> Outcome {
    Outcome {
        registered: None,
        notes: undo(host, state, None),
    }
}

/// `pid` is the container's process if it still runs. What else runs under the container's
/// id is another runtime's.
fn undo(host: &Host, state: &State, pid: Option<i32>) -> Vec<String> {
    let mut notes = Vec::new();
    let request = Request::Unregister {
        container: state.id.to_string(),
        pid,
    };
    // masqd forgets it by itself as well, once its process has ended.
    if let Err(e) = masq_admin::call(&host.run_dir, &request) {
        notes.push(format!(
            "masqd could not be told that the container ended: {e}"
        ));
    }
    let _lock = record::lock(&host.run_dir);
    for place in Place::all(&host.run_dir, &state.id, &state.bundle) {
        match place.read() {
            Ok(Some(record)) if pid == Some(record.process.pid) || !record.process.is_alive() => {
                notes.extend(place.undo(&record));
            }
            Ok(_) => {}
            Err(e) => notes.push(e.to_string()),
        }
    }
    notes
}
