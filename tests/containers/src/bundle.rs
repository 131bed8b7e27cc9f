//! runc and crun on bundles made by hand.

use crate::command::{command, output_of};
use crate::container::{Container, Invocation};
use crate::names::{quietly, unique};
use crate::netns::PodNet;
use crate::podman::{CRUN, script};
use crate::rootfs::RootFs;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What containers usually have; nothing that RDMA would need.
const CAPABILITIES: [&str; 4] = [
    "CAP_CHOWN",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_NET_BIND_SERVICE",
];

/// An OCI runtime that is driven directly.
#[derive(Debug)]
pub struct Bundles {
    dir: tempfile::TempDir,
    program: PathBuf,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Bundle {
    rootfs: RootFs,
    net: Option<PathBuf>,
    edits: Value,
    annotations: BTreeMap<String, String>,
    change: Option<String>,
}

impl Bundle {
    /// A container of this root filesystem that sleeps, with a network namespace of its
    /// own.
    pub fn of(rootfs: &RootFs) -> Self {
        Self {
            rootfs: rootfs.clone(),
            net: None,
            edits: json!({}),
            annotations: BTreeMap::new(),
            change: None,
        }
    }

    /// With a root filesystem that this shell script has changed, before the start, in
    /// that directory and on the host.
    #[must_use]
    pub fn changed_by(mut self, script: &str) -> Self {
        self.change = Some(script.to_owned());
        self
    }

    /// In this network namespace.
    #[must_use]
    pub fn inside(mut self, net: &PodNet) -> Self {
        self.net = Some(net.path());
        self
    }

    /// With the `containerEdits` of a CDI device, as a runtime that knows CDI would apply
    /// them.
    #[must_use]
    pub fn edits(mut self, edits: &Value) -> Self {
        self.edits = edits.clone();
        self
    }

    /// With this annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    fn config(&self) -> Value {
        let mut network = json!({ "type": "network" });
        if let (Some(net), Some(map)) = (&self.net, network.as_object_mut()) {
            map.insert("path".to_owned(), json!(net));
        }
        let caps = json!(CAPABILITIES);
        let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": ["sleep", "1000"],
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000 }],
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs", "readonly": false },
            "hostname": "bundle",
            "annotations": self.annotations,
            "hooks": self.hooks(),
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            ],
            "linux": {
                "namespaces": [
                    { "type": "pid" }, network, { "type": "ipc" }, { "type": "uts" },
                    { "type": "mount" },
                ],
                "devices": self.device_nodes(),
                "resources": { "devices": self.device_rules() },
            },
        })
    }

    fn hooks(&self) -> Value {
        let mut stages: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for hook in list(&self.edits, "hooks") {
            let stage = hook.get("hookName").and_then(Value::as_str);
            let mut hook = hook.clone();
            if let Some(map) = hook.as_object_mut() {
                map.remove("hookName");
            }
            stages
                .entry(stage.unwrap_or_default().to_owned())
                .or_default()
                .push(hook);
        }
        json!(stages)
    }

    fn device_nodes(&self) -> Vec<Value> {
        let mut nodes: Vec<Value> = list(&self.edits, "deviceNodes").cloned().collect();
        for node in nodes.iter_mut().filter_map(Value::as_object_mut) {
            node.remove("hostPath");
            node.remove("permissions");
        }
        nodes
    }

    fn device_rules(&self) -> Vec<Value> {
        let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
        for node in list(&self.edits, "deviceNodes") {
            let part = |name: &str| node.get(name).cloned().unwrap_or_default();
            rules.push(json!({
                "allow": true, "type": part("type"), "major": part("major"),
                "minor": part("minor"), "access": "rw",
            }));
        }
        rules
    }
}

fn list<'v>(edits: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    edits
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

impl Bundles {
    /// runc.
    ///
    /// # Errors
    /// There is no room for its state.
    pub fn runc() -> anyhow::Result<Self> {
        Self::with(|_| Ok(PathBuf::from("runc")))
    }

    /// crun, also where it refuses the machine's cgroups.
    ///
    /// # Errors
    /// As [`Self::runc`].
    pub fn crun() -> anyhow::Result<Self> {
        Self::with(|dir| script(dir, "crun", CRUN))
    }

    /// This program, which takes runc's arguments.
    ///
    /// # Errors
    /// As [`Self::runc`].
    pub fn program(program: &Path) -> anyhow::Result<Self> {
        Self::with(|_| Ok(program.to_owned()))
    }

    fn with(program: impl FnOnce(&Path) -> anyhow::Result<PathBuf>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("masqt-bundle-").tempdir()?;
        let program = program(dir.path())?;
        Ok(Self { dir, program })
    }

    fn runtime(&self) -> Invocation {
        let state = self.dir.path().join("state");
        Invocation::new([self.program.display().to_string()])
            .with(["--root".to_owned(), state.display().to_string()])
    }

    /// Starts a container.
    ///
    /// # Errors
    /// It does not start; the error holds what the runtime and the hook said.
    pub fn start(&self, bundle: &Bundle) -> anyhow::Result<Container> {
        let id = unique();
        let dir = self.dir.path().join(&id);
        let rootfs = dir.join("rootfs");
        let mut container = Container {
            id: id.clone(),
            pid: 0,
            enter: self.runtime().with(["exec", &id]),
            remove: vec![
                self.runtime().with(["delete", "-f", &id]),
                Invocation::new(["umount".to_owned(), rootfs.display().to_string()]),
            ],
        };
        overlay(bundle.rootfs.dir(), &dir)?;
        if let Some(script) = &bundle.change {
            let mut change = command(["sh", "-e", "-c", script]);
            change.current_dir(&rootfs);
            output_of(change)?;
        }
        std::fs::write(
            dir.join("config.json"),
            serde_json::to_vec_pretty(&bundle.config())?,
        )?;
        let pid_file = dir.join("pid");
        let mut run = self.runtime().with(["run", "-d", "--pid-file"]).command();
        run.arg(&pid_file).arg("--bundle").arg(&dir).arg(&id);
        detached(run, &dir.join("log"))?;
        container.pid = std::fs::read_to_string(&pid_file)?
            .trim()
            .parse()
            .context("no process id")?;
        Ok(container)
    }

    /// A file of a container's root filesystem, as the host sees it.
    pub fn file_of(&self, container: &Container, path: &str) -> PathBuf {
        let root = self.dir.path().join(&container.id).join("rootfs");
        root.join(path.trim_start_matches('/'))
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        // Nothing may be mounted when the directory goes.
        for entry in std::fs::read_dir(self.dir.path()).into_iter().flatten() {
            let Ok(entry) = entry else { continue };
            let rootfs = entry.path().join("rootfs");
            if rootfs.exists() {
                let mut umount = command(["umount", "-q", "-l"]);
                umount.arg(rootfs);
                quietly(umount);
            }
        }
    }
}

/// Makes `dir/rootfs`, which shows `lower` and keeps changes in `dir`.
pub(crate) fn overlay(lower: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    for name in ["rootfs", "upper", "work"] {
        std::fs::create_dir_all(dir.join(name))?;
    }
    let rootfs = dir.join("rootfs");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        dir.join("upper").display(),
        dir.join("work").display()
    );
    let mut mount = command(["mount", "-t", "overlay", "overlay", "-o", &options]);
    mount.arg(&rootfs);
    output_of(mount)?;
    Ok(rootfs)
}

/// Runs a command whose children keep its output open.
fn detached(mut command: Command, log: &Path) -> anyhow::Result<()> {
    let file = File::create(log)?;
    command.stdout(file.try_clone()?).stderr(file);
    let status = command
        .status()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(
        status.success(),
        "{:?}: {status}\n{}",
        command.get_program(),
        std::fs::read_to_string(log).unwrap_or_default()
    );
    Ok(())
}
