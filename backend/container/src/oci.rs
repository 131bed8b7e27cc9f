//! What a runtime tells its hooks: the state on standard input, and the bundle that it
//! names. Both are read with a bound.

use crate::ContainerError;
use masq_admin::ContainerId;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes that a state may have; runtimes write below 10 KiB.
pub(crate) const MAX_STATE: u64 = 1 << 20;
/// Bytes that a config.json may have; runtimes write below 100 KiB.
pub(crate) const MAX_CONFIG: u64 = 16 << 20;

/// The state of a container (OCI runtime specification, "State").
#[derive(Clone, Debug)]
pub struct State {
    /// Id that the runtime gave it.
    pub id: ContainerId,
    /// Its init process, as the namespace of the hook numbers it; none once it is gone.
    pub pid: Option<i32>,
    /// Directory with config.json.
    pub bundle: PathBuf,
    /// Annotations, as far as the runtime repeats them here.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawState {
    id: String,
    #[serde(default)]
    pid: Option<i64>,
    bundle: Option<PathBuf>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl State {
    /// Reads a state to its end.
    ///
    /// # Errors
    /// [`ContainerError::State`] says what is wrong with it.
    pub fn read(from: impl Read) -> Result<Self, ContainerError> {
        let mut text = Vec::new();
        from.take(MAX_STATE + 1)
            .read_to_end(&mut text)
            .map_err(|e| ContainerError::State(e.to_string()))?;
        if text.len() as u64 > MAX_STATE {
            return Err(ContainerError::State(format!(
                "it is longer than {MAX_STATE} bytes"
            )));
        }
        Self::parse(&text).map_err(ContainerError::State)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err("it is empty".to_owned());
        }
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err("it is not a JSON object".to_owned());
        }
        let raw: RawState = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let bundle = raw.bundle.ok_or("it names no bundle")?;
        if !bundle.is_absolute() {
            return Err(format!("its bundle {bundle:?} is not an absolute path"));
        }
        // runc writes 0 for a container that has ended, and its pids fit in 32 bits.
        let pid = match raw.pid.unwrap_or(0) {
            0 => None,
            pid => Some(
                i32::try_from(pid)
                    .ok()
                    .filter(|pid| *pid > 0)
                    .ok_or_else(|| format!("its pid {pid} is no process id"))?,
            ),
        };
        Ok(Self {
            id: ContainerId::new(&raw.id)?,
            pid,
            bundle,
            annotations: raw.annotations.unwrap_or_default(),
        })
    }
}

/// A bundle's config.json, kept whole so that nothing is lost when it is edited.
#[derive(Clone, Debug)]
pub struct Config {
    /// The document; an object.
    pub(crate) value: Value,
    path: PathBuf,
}

impl Config {
    /// Reads `bundle/config.json`.
    ///
    /// # Errors
    /// [`ContainerError::Bundle`] or [`ContainerError::Io`].
    pub fn of_bundle(bundle: &Path) -> Result<Self, ContainerError> {
        let path = bundle.join("config.json");
        let file = open_regular(&path).map_err(ContainerError::io("read", &path))?;
        Self::read(file, path)
    }

    /// Reads a config.json that stands in no file; `name` is for messages.
    ///
    /// # Errors
    /// [`ContainerError::Bundle`].
    pub fn read(from: impl Read, name: PathBuf) -> Result<Self, ContainerError> {
        let mut text = Vec::new();
        let read = from.take(MAX_CONFIG + 1).read_to_end(&mut text);
        let parsed = match read {
            Err(e) => Err(e.to_string()),
            Ok(n) if n as u64 > MAX_CONFIG => Err(format!("it is longer than {MAX_CONFIG} bytes")),
            Ok(_) => serde_json::from_slice(&text).map_err(|e| e.to_string()),
        };
        match parsed {
            Ok(value @ Value::Object(_)) => Ok(Self { value, path: name }),
            Ok(_) => Err(ContainerError::Bundle {
                path: name,
                why: "it is not a JSON object".to_owned(),
            }),
            Err(why) => Err(ContainerError::Bundle { path: name, why }),
        }
    }

    /// Where it was read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn wrong(&self, why: impl Into<String>) -> ContainerError {
        ContainerError::Bundle {
            path: self.path.clone(),
            why: why.into(),
        }
    }

    /// The root filesystem on the host.
    ///
    /// # Errors
    /// [`ContainerError::Bundle`] if config.json names none.
    pub fn rootfs(&self, bundle: &Path) -> Result<PathBuf, ContainerError> {
        let path = self
            .value
            .pointer("/root/path")
            .and_then(Value::as_str)
            .filter(|path| !path.is_empty())
            .ok_or_else(|| self.wrong("root.path is missing"))?;
        Ok(bundle.join(path))
    }

    /// Its annotations.
    ///
    /// # Errors
    /// [`ContainerError::Bundle`] if they are not texts.
    pub fn annotations(&self) -> Result<BTreeMap<String, String>, ContainerError> {
        match self.value.get("annotations") {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(value) => BTreeMap::deserialize(value)
                .map_err(|e| self.wrong(format!("its annotations: {e}"))),
        }
    }
}

/// Opens a file and makes sure that it is one, without waiting for a FIFO's writer.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<State, String> {
        State::parse(text.as_bytes())
    }

    #[test]
    fn the_states_that_runtimes_write_are_read() {
        let runc = r#"{"ociVersion":"1.0.2-dev","id":"c1","status":"creating","pid":71,
                       "bundle":"/b","annotations":{"dev.masq/tenant":"blue"}}"#;
        let state = parse(runc).unwrap();
        assert_eq!(state.id.as_str(), "c1");
        assert_eq!(state.pid, Some(71));
        assert_eq!(state.annotations["dev.masq/tenant"], "blue");
        let stopped = r#"{"id":"c1","status":"stopped","pid":0,"bundle":"/b"}"#;
        assert_eq!(parse(stopped).unwrap().pid, None);
        let crun = r#"{"id":"c1","status":"stopped","bundle":"/b","annotations":null}"#;
        assert!(parse(crun).unwrap().annotations.is_empty());
    }

    #[test]
    fn a_state_that_is_none_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("{", "EOF"),
            ("[]", "not a JSON object"),
            (r#"{"bundle":"/b"}"#, "id"),
            (r#"{"id":"a"}"#, "bundle"),
            (r#"{"id":"a","bundle":"b"}"#, "absolute"),
            (r#"{"id":"","bundle":"/b"}"#, "empty"),
            (r#"{"id":"../a","bundle":"/b"}"#, "'/'"),
            (r#"{"id":"..","bundle":"/b"}"#, "dot"),
            (r#"{"id":"a\u0000b","bundle":"/b"}"#, "\\0"),
            (r#"{"id":"a","pid":-1,"bundle":"/b"}"#, "-1"),
            (r#"{"id":"a","pid":4294967297,"bundle":"/b"}"#, "4294967297"),
            (r#"{"id":"a","pid":"1","bundle":"/b"}"#, "invalid type"),
            (
                r#"{"id":"a","bundle":"/b","annotations":{"x":1}}"#,
                "string",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn an_endless_state_is_refused() {
        let error = State::read(io::repeat(b' ')).unwrap_err();
        assert!(error.to_string().contains("longer"), "{error}");
    }

    #[test]
    fn a_config_that_is_a_fifo_does_not_hold_the_hook() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Config::of_bundle(dir.path()).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[test]
    fn a_rootfs_is_relative_to_its_bundle_or_absolute() {
        let rootfs = |text: &str| {
            Config::read(text.as_bytes(), "config.json".into())
                .and_then(|c| c.rootfs(Path::new("/b")))
        };
        assert_eq!(
            rootfs(r#"{"root":{"path":"rootfs"}}"#).unwrap(),
            Path::new("/b/rootfs")
        );
        assert_eq!(
            rootfs(r#"{"root":{"path":"/r"}}"#).unwrap(),
            Path::new("/r")
        );
        for bad in ["{}", r#"{"root":{}}"#, r#"{"root":{"path":""}}"#, "[1]"] {
            assert!(rootfs(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn an_id_is_one_path_component(id in ".{1,300}") {
            if let Ok(id) = ContainerId::new(&id) {
                let path = Path::new("/x").join(id.as_str());
                prop_assert_eq!(path.parent(), Some(Path::new("/x")));
                prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(id.as_str()));
            }
        }
    }
}
