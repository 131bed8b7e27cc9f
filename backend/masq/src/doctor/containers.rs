//! What containers need of the host: a runtime, the CDI file and the hook, the device
//! that lets their programs move memory safely.

use super::{Check, read};
use crate::{policy, ps, runtime};
use masq_container::cdi::{self, Settings, Spec};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HOOK_DIRS: [&str; 2] = [
    "/etc/containers/oci/hooks.d",
    "/usr/share/containers/oci/hooks.d",
];
/// What starts containers, the managers before what they call.
const RUNTIMES: [&str; 7] = [
    "podman",
    "dockerd",
    "containerd",
    "crio",
    "runc",
    "crun",
    "youki",
];
/// A program that says its version takes milliseconds; one that hangs is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn checks(run_dir: &Path) -> Vec<Check> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = runtimes(&path);
    let mut checks = vec![runtime_check(&found)];
    if found.iter().any(|(name, _)| *name == "crun") {
        checks.extend(cgroups(&read("/proc/self/mounts").unwrap_or_default()));
    }
    let file = Path::new(cdi::DIR).join(cdi::FILE);
    checks.push(cdi_file(&file, expected(run_dir).as_ref()));
    checks.extend(hooks(&HOOK_DIRS.map(PathBuf::from)));
    checks.push(userfaultfd(Path::new("/dev/userfaultfd")));
    checks
}

/// Runtimes of `path` with what they say of their version.
fn runtimes(path: &OsStr) -> Vec<(&'static str, String)> {
    let find = |name: &str| {
        let mut places = std::env::split_paths(path).map(|dir| dir.join(name));
        places.find(|file| file.is_file())
    };
    RUNTIMES
        .into_iter()
        .filter_map(|name| Some((name, version(&find(name)?))))
        .collect()
}

fn runtime_check(found: &[(&str, String)]) -> Check {
    const NAME: &str = "container runtimes";
    if found.is_empty() {
        return Check::ok(
            NAME,
            "none (podman, docker, containerd, cri-o); `masq run` needs none",
        );
    }
    let words: Vec<_> = found.iter().map(|(n, v)| format!("{n} {v}")).collect();
    Check::ok(NAME, words.join(", "))
}

/// The first word with a number and a point in it of what `--version` prints.
fn version(program: &Path) -> String {
    let unknown = || "(says no version)".to_owned();
    let Ok(mut child) = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
    else {
        return unknown();
    };
    let end = Instant::now() + PATIENCE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let text = child.wait_with_output().map(|out| out.stdout);
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    number(&text).unwrap_or_else(unknown)
}

fn number(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        let word = word.trim_start_matches('v');
        word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.')
    };
    let word = text.split_whitespace().find(is_version)?;
    let ends = |c: char| c == ',' || c == ';';
    Some(word.trim_start_matches('v').trim_end_matches(ends).into())
}

/// crun up to 1.8 refuses a host that mixes both kinds of cgroups.
fn cgroups(mounts: &str) -> Option<Check> {
    let kinds: BTreeSet<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .filter(|kind| kind.starts_with("cgroup"))
        .collect();
    (kinds.len() > 1).then(|| {
        Check::warn(
            "cgroups",
            "version 1 and 2 are both mounted",
            "crun before 1.9 starts no container on such a host; use runc, or boot with \
             systemd.unified_cgroup_hierarchy=1",
        )
    })
}

/// The devices that the policy of the masqd that runs asks for.
fn expected(run_dir: &Path) -> Option<Spec> {
    let overview = ps::overview(run_dir).ok()?;
    let policy = policy::checked(Path::new(&overview.policy_file)).ok()?;
    let settings = Settings::of_host(runtime::own_path().ok()?, runtime::absolute(run_dir).ok()?);
    Some(cdi::generate(&policy, &settings).ok()?.spec)
}

/// The file with masq's devices, and whether it says what the policy does.
fn cdi_file(path: &Path, expected: Option<&Spec>) -> Check {
    const NAME: &str = "CDI devices";
    const REMEDY: &str = "`masq cdi generate` writes the file anew";
    if !path.exists() {
        return Check::ok(
            NAME,
            "none; `masq cdi generate` makes them, for podman run --device masq.dev/endpoint=…",
        );
    }
    let spec = match cdi::read_file(path) {
        Ok(spec) => spec,
        Err(error) => return Check::fail(NAME, error.to_string(), REMEDY),
    };
    let hooks = spec.devices.iter().flat_map(|d| &d.container_edits.hooks);
    let absent = hooks
        .map(|hook| &hook.path)
        .find(|p| !Path::new(p).is_file());
    if let Some(program) = absent {
        let found = format!("{} names a hook that is absent: {program}", path.display());
        return Check::fail(NAME, found, REMEDY);
    }
    let found = format!("{} in {}", spec.devices.len(), path.display());
    if expected.is_some_and(|expected| names(expected) != names(&spec)) {
        return Check::warn(
            NAME,
            format!("{found}, which are not those of masqd's policy"),
            REMEDY,
        );
    }
    Check::ok(NAME, found)
}

fn names(spec: &Spec) -> BTreeSet<&str> {
    spec.devices.iter().map(|d| d.name.as_str()).collect()
}

/// podman's hook for containers that ask by annotation.
fn hooks(dirs: &[PathBuf]) -> Option<Check> {
    const NAME: &str = "podman's hook";
    let (file, path) = dirs.iter().find_map(|dir| {
        let file = dir.join("masq.json");
        let hook: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
        let path = hook.pointer("/hook/path")?.as_str()?.to_owned();
        Some((file, path))
    })?;
    Some(if Path::new(&path).is_file() {
        Check::ok(NAME, file.display().to_string())
    } else {
        Check::fail(
            NAME,
            format!("{} names {path}, which is absent", file.display()),
            "containers with the annotation dev.masq/tenant do not start: install masq there, or \
             remove the file",
        )
    })
}

fn userfaultfd(device: &Path) -> Check {
    const NAME: &str = "/dev/userfaultfd";
    if device.exists() {
        return Check::ok(NAME, "given to containers, whatever their seccomp profile");
    }
    Check::ok(
        NAME,
        "absent (Linux 6.1 brings it): containers use userfaultfd(2) if their seccomp profile \
         allows it, see docs/memory.md",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_found_in_what_runtimes_print() {
        let podman = number("podman version 4.3.1\n");
        assert_eq!(podman.as_deref(), Some("4.3.1"));
        let docker = number("Docker version 20.10.24+dfsg1, build 297e128\n");
        assert_eq!(docker.as_deref(), Some("20.10.24+dfsg1"));
        assert_eq!(number("containerd x/y v1.6 z").as_deref(), Some("1.6"));
        assert_eq!(number("no number"), None);
    }

    #[test]
    fn a_runtime_that_says_nothing_is_named_and_none_is_no_failure() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("runc");
        std::fs::write(&file, "#!/bin/sh\nexit 1\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = runtimes(dir.path().as_os_str());
        assert_eq!(found.len(), 1);
        assert!(runtime_check(&found).found.contains("runc (says no"));
        assert_eq!(runtime_check(&[]).level, Level::Ok);
    }

    #[test]
    fn devices_of_another_policy_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("masq.json");
        let spec = |tenant: &str, hook: &str| -> Spec {
            serde_json::from_value(json!({
                "cdiVersion": cdi::VERSION, "kind": cdi::KIND,
                "devices": [{ "name": tenant, "containerEdits": { "hooks": [{
                    "hookName": "createRuntime", "path": hook, "args": [], "env": [],
                    "timeout": 1,
                }] } }],
            }))
            .unwrap()
        };
        let blue = spec("blue", "/bin/sh");
        assert_eq!(cdi_file(&file, Some(&blue)).level, Level::Ok, "none made");
        cdi::write_file(&file, &blue).unwrap();
        let check = cdi_file(&file, Some(&blue));
        assert_eq!(check.level, Level::Ok, "{check:?}");
        assert!(check.found.starts_with("1 in"), "{check:?}");
        assert_eq!(cdi_file(&file, None).level, Level::Ok);
        let red = spec("red", "/bin/sh");
        assert_eq!(cdi_file(&file, Some(&red)).level, Level::Warn);
        cdi::write_file(&file, &spec("blue", "/nonexistent/masq")).unwrap();
        assert_eq!(cdi_file(&file, Some(&blue)).level, Level::Fail);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(cdi_file(&file, None).level, Level::Fail);
    }

    #[test]
    fn a_hook_that_is_absent_is_a_failure_as_containers_would_not_start() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        assert!(hooks(&dirs).is_none());
        let put = |path: &str| {
            let text = json!({ "hook": { "path": path } }).to_string();
            std::fs::write(dir.path().join("masq.json"), text).unwrap();
        };
        put("/bin/sh");
        assert_eq!(hooks(&dirs).unwrap().level, Level::Ok);
        put("/nonexistent/masq");
        assert_eq!(hooks(&dirs).unwrap().level, Level::Fail);
    }

    #[test]
    fn mixed_cgroups_matter() {
        let one = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert!(cgroups(one).is_none());
        let both = format!("{one}cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n");
        assert_eq!(cgroups(&both).unwrap().level, Level::Warn);
    }
}
