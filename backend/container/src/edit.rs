//! masq's hooks, as they stand in a config.json or a CDI specification, and the editing of
//! a config.json that has none yet.

use crate::ContainerError;
use crate::asked::{Asked, Device, ENDPOINT, LIBRARY, TENANT};
use crate::oci::Config;
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Seconds after which a runtime ends a hook; the hook itself gives up before.
pub(crate) const HOOK_TIMEOUT: u32 = 30;
/// The whole environment of a hook: some runtimes would pass their own.
pub(crate) const HOOK_PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
pub(crate) const STAGES: [&str; 2] = ["createRuntime", "poststop"];

/// The device by which a program may serve its own page faults.
const USERFAULTFD: &str = "/dev/userfaultfd";

/// How masq is called as a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCommand {
    /// masq's program, absolute.
    pub masq: PathBuf,
    /// masqd's run directory, absolute.
    pub run_dir: PathBuf,
    /// What the container asks for.
    pub device: Option<Device>,
    /// Whether masqd's policy may choose where nothing is asked for.
    pub select: bool,
}

impl HookCommand {
    /// Its arguments, the program's name first.
    pub(crate) fn args(&self, stage: &str) -> Vec<String> {
        let mut args = vec![
            "masq".to_owned(),
            "--run-dir".to_owned(),
            self.run_dir.to_string_lossy().into_owned(),
            "hook".to_owned(),
            stage.to_owned(),
        ];
        if stage == "createRuntime" {
            if let Some(device) = &self.device {
                args.extend(["--device".to_owned(), device.to_string()]);
            }
            if self.select {
                args.push("--select".to_owned());
            }
        }
        args
    }

    fn value(&self, stage: &str) -> Value {
        json!({
            "path": self.masq,
            "args": self.args(stage),
            "env": [HOOK_PATH],
            "timeout": HOOK_TIMEOUT,
        })
    }
}

/// /dev/userfaultfd of the host: major and minor.
pub(crate) fn userfaultfd() -> Option<(u32, u32)> {
    let found = std::fs::metadata(USERFAULTFD).ok()?;
    if !found.file_type().is_char_device() {
        return None;
    }
    let number = found.rdev();
    Some((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// Whether `config` asks for masq, by annotation.
///
/// # Errors
/// As [`Asked::new`], so that a mistake is told before anything starts.
pub fn asks(config: &Config, devices: &[Device]) -> Result<bool, ContainerError> {
    let annotations = config.annotations()?;
    let asked = Asked::new(devices, &annotations)?;
    let keys = [TENANT, ENDPOINT, LIBRARY];
    Ok(!asked.is_nothing() || keys.iter().any(|key| annotations.contains_key(*key)))
}

/// Adds masq's hooks to `config`, unless they are there; says whether it changed.
///
/// # Errors
/// [`ContainerError::Bundle`] if what is to be added to is not as OCI says.
pub fn add_hooks(config: &mut Config, command: &HookCommand) -> Result<bool, ContainerError> {
    let mut changed = false;
    for stage in STAGES {
        let hooks = entry(config, &["hooks", stage], || json!([]))?;
        let hook = command.value(stage);
        changed |= push(hooks, hook).map_err(|()| wrong(config, &["hooks", stage]))?;
    }
    if changed && let Some((major, minor)) = userfaultfd() {
        add_userfaultfd(config, major, minor)?;
    }
    Ok(changed)
}

fn add_userfaultfd(config: &mut Config, major: u32, minor: u32) -> Result<(), ContainerError> {
    let path = ["linux", "devices"];
    let devices = entry(config, &path, || json!([]))?;
    let there = devices.as_array().into_iter().flatten();
    if there
        .filter_map(|d| d.get("path"))
        .any(|p| p == USERFAULTFD)
    {
        return Ok(());
    }
    let device = json!({"path": USERFAULTFD, "type": "c", "major": major, "minor": minor,
                        "fileMode": 0o666, "uid": 0, "gid": 0});
    push(devices, device).map_err(|()| wrong(config, &path))?;
    let path = ["linux", "resources", "devices"];
    let rules = entry(config, &path, || json!([]))?;
    let rule = json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rw"});
    push(rules, rule).map_err(|()| wrong(config, &path))?;
    Ok(())
}

fn push(list: &mut Value, value: Value) -> Result<bool, ()> {
    let list = list.as_array_mut().ok_or(())?;
    let new = !list.contains(&value);
    if new {
        list.push(value);
    }
    Ok(new)
}

fn wrong(config: &Config, path: &[&str]) -> ContainerError {
    config.wrong(format!("{} is of the wrong type", path.join(".")))
}

/// The value at `path`, made if it, or what it lies in, is absent or null.
fn entry<'a>(
    config: &'a mut Config,
    path: &[&str],
    default: impl FnOnce() -> Value,
) -> Result<&'a mut Value, ContainerError> {
    let error = wrong(config, path);
    let mut at = &mut config.value;
    for key in path {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        let Some(object) = at.as_object_mut() else {
            return Err(error);
        };
        at = object.entry(*key).or_insert(Value::Null);
    }
    if at.is_null() {
        *at = default();
    }
    Ok(at)
}

impl Config {
    /// The document as JSON.
    pub fn to_json(&self) -> String {
        self.value.to_string()
    }

    /// Replaces the file that it was read from, whole or not at all, keeping its owner
    /// and mode.
    ///
    /// # Errors
    /// [`ContainerError::Io`].
    pub fn write(&self) -> Result<(), ContainerError> {
        let path = self.path();
        let write = || -> std::io::Result<()> {
            let old = std::fs::symlink_metadata(path)?;
            let dir = path.parent().unwrap_or(Path::new("/"));
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(self.to_json().as_bytes())?;
            file.as_file().set_permissions(old.permissions())?;
            std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(ContainerError::io("write", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command() -> HookCommand {
        HookCommand {
            masq: "/usr/bin/masq".into(),
            run_dir: "/run/masq".into(),
            device: Some("blue:pod".parse().unwrap()),
            select: false,
        }
    }

    fn config(value: &Value) -> Config {
        Config::read(value.to_string().as_bytes(), "config.json".into()).unwrap()
    }

    #[test]
    fn hooks_are_added_behind_those_that_are_there_and_only_once() {
        let before =
            json!({"hooks": {"createRuntime": [{"path": "/a"}], "prestart": [{"path": "/b"}]}});
        let mut edited = config(&before);
        assert!(add_hooks(&mut edited, &command()).unwrap());
        let hooks = &edited.value["hooks"];
        assert_eq!(hooks["createRuntime"][0], json!({"path": "/a"}));
        assert_eq!(
            hooks["createRuntime"][1]["args"],
            json!([
                "masq",
                "--run-dir",
                "/run/masq",
                "hook",
                "createRuntime",
                "--device",
                "blue:pod"
            ])
        );
        assert_eq!(hooks["poststop"][0]["path"], "/usr/bin/masq");
        assert_eq!(hooks["prestart"], before["hooks"]["prestart"]);
        let once = edited.value.clone();
        assert!(!add_hooks(&mut edited, &command()).unwrap());
        assert_eq!(edited.value, once);
    }

    #[test]
    fn a_config_of_wrong_types_is_refused() {
        for bad in [
            json!({"hooks": []}),
            json!({"hooks": {"createRuntime": {}}}),
            json!({"hooks": "x"}),
        ] {
            let error = add_hooks(&mut config(&bad), &command()).unwrap_err();
            assert!(error.to_string().contains("wrong type"), "{error}");
        }
        let mut null = config(&json!({"hooks": null}));
        assert!(add_hooks(&mut null, &command()).unwrap());
    }

    #[test]
    fn a_rewritten_file_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "{}").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let mut config = Config::of_bundle(dir.path()).unwrap();
        add_hooks(&mut config, &command()).unwrap();
        config.write().unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(Config::of_bundle(dir.path()).unwrap().value, config.value);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,6}", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    /// Whether everything of `before` is in `after`; lists may only have grown at their end.
    fn kept(before: &Value, after: &Value) -> bool {
        match (before, after) {
            (Value::Null, _) => true,
            (Value::Object(b), Value::Object(a)) => b
                .iter()
                .all(|(k, v)| a.get(k).is_some_and(|after| kept(v, after))),
            (Value::Array(b), Value::Array(a)) => {
                b.len() <= a.len() && b.iter().zip(a).all(|(b, a)| b == a)
            }
            _ => before == after,
        }
    }

    proptest! {
        #[test]
        fn editing_loses_nothing(
            fields in prop::collection::btree_map("[a-z]{1,6}", any_json(), 0..6),
            hooks in prop::collection::vec(any_json(), 0..3),
        ) {
            let mut before = Value::Object(fields.into_iter().collect());
            before["hooks"] = json!({"createRuntime": hooks});
            before["linux"] = json!({"resources": {"devices": [{"allow": false}]}});
            let mut edited = config(&before);
            add_hooks(&mut edited, &command()).unwrap();
            prop_assert!(kept(&before, &edited.value));
        }
    }
}
