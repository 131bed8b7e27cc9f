//! CDI: a specification file that gives container engines masq's devices.
//!
//! A device is a tenant, or an endpoint of a tenant: `masq.dev/endpoint=blue`,
//! `masq.dev/endpoint=blue:pod`. What a device does to a container is to run masq's hook,
//! which does all that differs from container to container.

use crate::ContainerError;
use crate::asked::Device;
use crate::edit::{self, HOOK_PATH, HOOK_TIMEOUT, HookCommand, STAGES};
use masq_policy::{Endpoint, Policy};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Version of CDI's format that is written: podman 4.3 knows no newer one.
pub const VERSION: &str = "0.3.0";
/// Kind of masq's devices.
pub const KIND: &str = "masq.dev/endpoint";
/// Directory where engines look.
pub const DIR: &str = "/etc/cdi";
/// Name of masq's file there.
pub const FILE: &str = "masq.json";

/// A specification file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Version of the format.
    pub cdi_version: String,
    /// `vendor/class`.
    pub kind: String,
    /// The devices.
    pub devices: Vec<CdiDevice>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiDevice {
    /// Its name within the kind.
    pub name: String,
    /// What it does to a container.
    pub container_edits: Edits,
}

/// Edits of a container's config.json.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edits {
    /// Device nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_nodes: Vec<DeviceNode>,
    /// Hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
}

/// A device node; engines look up what is absent on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNode {
    /// Path in the container and on the host.
    pub path: String,
    /// `c` or `b`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub file_mode: u32,
    /// What the container's device filter allows: of `rwm`.
    pub permissions: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// An OCI hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Stage.
    pub hook_name: String,
    /// Program.
    pub path: String,
    /// Arguments, its name first.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: u32,
}

/// What a specification needs to know of the host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// masq's program, absolute.
    pub masq: PathBuf,
    /// masqd's run directory, absolute.
    pub run_dir: PathBuf,
    /// Major and minor number of /dev/userfaultfd, if the host has it.
    pub userfaultfd: Option<(u32, u32)>,
    /// `vendor/class`.
    pub kind: String,
}

impl Settings {
    /// The usual ones, with what this host has.
    pub fn of_host(masq: PathBuf, run_dir: PathBuf) -> Self {
        Self {
            masq,
            run_dir,
            userfaultfd: edit::userfaultfd(),
            kind: KIND.to_owned(),
        }
    }
}

/// A specification, and what could not be part of it.
#[derive(Debug)]
pub struct Generated {
    /// The file.
    pub spec: Spec,
    /// Tenants and endpoints whose names CDI does not take. One of them would make engines
    /// refuse the whole file.
    pub left_out: Vec<ContainerError>,
}

/// The devices of `policy`: one for each tenant, one for each of its classes and fixed
/// endpoints.
///
/// # Errors
/// [`ContainerError::CdiName`] for a kind that CDI does not take.
pub fn generate(policy: &Policy, settings: &Settings) -> Result<Generated, ContainerError> {
    check_kind(&settings.kind)?;
    let mut left_out = Vec::new();
    let mut devices = Vec::new();
    let mut add = |device: Device| match check_name(&device.to_string()) {
        Ok(()) => devices.push(edits(device, settings)),
        Err(e) => left_out.push(e),
    };
    for tenant in policy.tenants() {
        add(Device {
            tenant: tenant.name().clone(),
            endpoint: None,
        });
        let classes = tenant.classes().map(|class| class.name());
        // Instances of classes are containers that run, and nothing to ask for.
        let may_be = |e: &&Endpoint| e.class().is_none() && !e.is_outside();
        let fixed = tenant.endpoints().filter(may_be);
        for name in classes.chain(fixed.map(|e| e.id().name())) {
            add(Device {
                tenant: tenant.name().clone(),
                endpoint: Some(name.clone()),
            });
        }
    }
    Ok(Generated {
        spec: Spec {
            cdi_version: VERSION.to_owned(),
            kind: settings.kind.clone(),
            devices,
        },
        left_out,
    })
}

fn edits(device: Device, settings: &Settings) -> CdiDevice {
    let name = device.to_string();
    let command = HookCommand {
        masq: settings.masq.clone(),
        run_dir: settings.run_dir.clone(),
        device: Some(device),
        select: false,
    };
    let hook = |stage: &str| Hook {
        hook_name: stage.to_owned(),
        path: command.masq.to_string_lossy().into_owned(),
        args: command.args(stage),
        env: vec![HOOK_PATH.to_owned()],
        timeout: HOOK_TIMEOUT,
    };
    let node = |(major, minor)| DeviceNode {
        path: "/dev/userfaultfd".to_owned(),
        kind: "c".to_owned(),
        major,
        minor,
        file_mode: 0o666,
        permissions: "rw".to_owned(),
        uid: 0,
        gid: 0,
    };
    CdiDevice {
        name,
        container_edits: Edits {
            device_nodes: settings.userfaultfd.map(node).into_iter().collect(),
            hooks: STAGES.map(hook).into(),
        },
    }
}

fn wrong(name: &str, why: &'static str) -> ContainerError {
    ContainerError::CdiName {
        name: name.to_owned(),
        why,
    }
}

/// CDI 0.3.0: begins with a letter, ends with a letter or digit, and `_-.:` between.
fn check_name(name: &str) -> Result<(), ContainerError> {
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(wrong(name, "it does not begin with a letter"));
    }
    if !name.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(wrong(name, "it does not end with a letter or a digit"));
    }
    if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
    {
        return Err(wrong(
            name,
            "it has characters other than letters, digits and _-.:",
        ));
    }
    Ok(())
}

fn check_kind(kind: &str) -> Result<(), ContainerError> {
    let (vendor, class) = kind
        .split_once('/')
        .ok_or_else(|| wrong(kind, "a kind is VENDOR/CLASS"))?;
    for part in [vendor, class] {
        check_name(part)?;
        if part.contains(':') {
            return Err(wrong(kind, "a kind has no colon"));
        }
    }
    Ok(())
}

/// The specification as it stands in a file.
pub fn to_json(spec: &Spec) -> String {
    let mut text = serde_json::to_string_pretty(spec).unwrap_or_default();
    text.push('\n');
    text
}

/// Writes `dir/masq.json`, whole or not at all. Says whether it changed anything.
///
/// # Errors
/// [`ContainerError::Io`].
pub fn write(dir: &Path, spec: &Spec) -> Result<bool, ContainerError> {
    write_file(&dir.join(FILE), spec)
}

/// As [`write`](fn@write), to any path. Engines read the file as whoever runs them.
///
/// # Errors
/// [`ContainerError::Io`].
pub fn write_file(path: &Path, spec: &Spec) -> Result<bool, ContainerError> {
    let text = to_json(spec);
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        // A name that engines do not take for a specification.
        let mut file = tempfile::Builder::new()
            .prefix(".masq-cdi")
            .suffix(".part")
            .tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(ContainerError::io("write", path))?;
    Ok(true)
}

/// Reads a specification of masq's.
///
/// # Errors
/// [`ContainerError::Io`] or [`ContainerError::Garbled`].
pub fn read_file(path: &Path) -> Result<Spec, ContainerError> {
    let text = std::fs::read(path).map_err(ContainerError::io("read", path))?;
    serde_json::from_slice(&text).map_err(|e| ContainerError::Garbled {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(tenants: &str) -> Policy {
        let text = format!("version: 1\ntenants:\n{tenants}");
        Policy::parse("p.yaml", &text).unwrap()
    }

    fn settings() -> Settings {
        Settings {
            masq: "/usr/bin/masq".into(),
            run_dir: "/run/masq".into(),
            userfaultfd: Some((10, 257)),
            kind: KIND.to_owned(),
        }
    }

    #[test]
    fn a_tenant_and_each_of_its_endpoints_is_a_device() {
        let mut policy = policy(
            "  blue:\n    addresses: [10.0.0.0/8]\n    endpoints:\n      \
             a: { address: 10.0.0.1 }\n      pod: { address: auto }\n",
        );
        let pod = "blue/pod".parse().unwrap();
        policy
            .add_instance(&pod, "pod.3f2a".parse().unwrap())
            .unwrap();
        let generated = generate(&policy, &settings()).unwrap();
        assert!(generated.left_out.is_empty());
        let names: Vec<_> = generated.spec.devices.iter().map(|d| &d.name).collect();
        assert_eq!(names, ["blue", "blue:pod", "blue:a"]);
        let edits = &generated.spec.devices[2].container_edits;
        assert_eq!(edits.device_nodes[0].file_mode, 0o666);
        assert_eq!(
            edits.hooks[0].args,
            [
                "masq",
                "--run-dir",
                "/run/masq",
                "hook",
                "createRuntime",
                "--device",
                "blue:a"
            ]
        );
        assert_eq!(edits.hooks[1].hook_name, "poststop");
        let text = to_json(&generated.spec);
        assert!(text.contains("\"cdiVersion\": \"0.3.0\""), "{text}");
    }

    #[test]
    fn a_name_that_cdi_does_not_take_spoils_no_other() {
        let policy = policy(
            "  7up:\n    endpoints:\n      a: { address: 10.0.0.1 }\n  \
             blue:\n    endpoints:\n      b-: { address: 10.0.0.2 }\n",
        );
        let generated = generate(&policy, &settings()).unwrap();
        let names: Vec<_> = generated.spec.devices.iter().map(|d| &d.name).collect();
        assert_eq!(names, ["blue"]);
        assert_eq!(generated.left_out.len(), 3);
    }

    #[test]
    fn a_kind_is_vendor_and_class() {
        for bad in ["masq", "a/b/c", "/x", "x/", "a:b/c", "-a/b"] {
            let settings = Settings {
                kind: bad.to_owned(),
                ..settings()
            };
            let result = generate(&policy("  b:\n    endpoints: {}\n"), &settings);
            assert!(result.is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_only_if_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let cdi = dir.path().join("cdi");
        let policy = policy("  blue:\n    endpoints: {}\n");
        let spec = generate(&policy, &settings()).unwrap().spec;
        assert!(write(&cdi, &spec).unwrap());
        assert!(!write(&cdi, &spec).unwrap());
        assert_eq!(read_file(&cdi.join(FILE)).unwrap(), spec);
        assert_eq!(std::fs::read_dir(&cdi).unwrap().count(), 1);
    }
}
