//! `masq-runtime`: stands before an OCI runtime, and adds masq's hooks to a container's
//! config.json when it is created. Everything else goes to the runtime as it came.

use crate::ContainerError;
use crate::asked::Device;
use crate::edit::{self, HookCommand};
use crate::oci::{Config, open_regular};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variable that names the real runtime.
pub const RUNTIME_VARIABLE: &str = "MASQ_RUNTIME";
/// Runtimes that are looked for if none is named.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// Options before the subcommand that take a value, of runc and crun.
const GLOBAL_VALUES: &[&str] = &[
    "cgroup-manager",
    "criu",
    "log",
    "log-format",
    "log-level",
    "root",
    "rootless",
];
/// Options of `create` and `run` that take a value.
const CREATE_VALUES: &[&str] = &[
    "apparmor",
    "b",
    "bundle",
    "config",
    "console-socket",
    "f",
    "pid-file",
    "preserve-fds",
];

/// masq-runtime's own options, which come before the runtime's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// `--masq-device`: what every container asks for.
    pub devices: Vec<Device>,
    /// `--masq-runtime`: the real runtime.
    pub runtime: Option<PathBuf>,
    /// `--masq-run-dir`: masqd's run directory.
    pub run_dir: Option<PathBuf>,
    /// `--masq-select`: the policy chooses where nothing is asked for.
    pub select: bool,
}

/// A command line of masq-runtime, without the program's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// What is ours.
    pub own: Own,
    /// What is the runtime's.
    pub rest: Vec<OsString>,
}

impl CommandLine {
    /// Takes masq-runtime's options off the front.
    ///
    /// # Errors
    /// [`ContainerError::Runtime`] or [`ContainerError::Asked`] for an option that is
    /// ours and wrong.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, ContainerError> {
        let mut own = Own::default();
        let mut args = args.into_iter();
        let mut rest = Vec::new();
        while let Some(arg) = args.next() {
            let Some(option) = arg.as_bytes().strip_prefix(b"--masq-") else {
                rest.push(arg);
                break;
            };
            let (name, given) = match option.iter().position(|b| *b == b'=') {
                Some(at) => (option.get(..at), option.get(at + 1..)),
                None => (Some(option), None),
            };
            let mut value = || {
                given
                    .map(|value| OsStr::from_bytes(value).to_owned())
                    .or_else(|| args.next())
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| {
                        ContainerError::Runtime(format!("{} needs a value", arg.display()))
                    })
            };
            match name {
                Some(b"device") => own.devices.push(value()?.to_string_lossy().parse()?),
                Some(b"runtime") => own.runtime = Some(value()?.into()),
                Some(b"run-dir") => own.run_dir = Some(value()?.into()),
                Some(b"select") if given.is_none() => own.select = true,
                _ => {
                    return Err(ContainerError::Runtime(format!(
                        "masq-runtime has no option {}; it has --masq-device, \
                         --masq-runtime, --masq-run-dir and --masq-select",
                        arg.display()
                    )));
                }
            }
        }
        rest.extend(args);
        Ok(Self { own, rest })
    }

    /// The config.json that this command line makes a container of, if it makes one.
    pub fn config(&self) -> Option<PathBuf> {
        let mut args = self.rest.iter();
        let mut subcommand = None;
        while let Some(arg) = args.next() {
            match option(arg) {
                None => {
                    subcommand = Some(arg);
                    break;
                }
                Some((name, None)) if is_one_of(name, GLOBAL_VALUES) => {
                    args.next();
                }
                Some(_) => {}
            }
        }
        if !subcommand.is_some_and(|name| name == "create" || name == "run") {
            return None;
        }
        let mut bundle = PathBuf::from(".");
        let mut config = PathBuf::from("config.json");
        while let Some(arg) = args.next() {
            if arg == "--" {
                break;
            }
            let Some((name, given)) = option(arg) else {
                continue;
            };
            // crun takes -bDIR as well.
            let short = name.strip_prefix(b"b").or(name.strip_prefix(b"f"));
            let (name, given) = match short {
                Some(value)
                    if is_short(arg) && !is_one_of(name, CREATE_VALUES) && given.is_none() =>
                {
                    (name.get(..1).unwrap_or_default(), Some(value))
                }
                _ => (name, given),
            };
            if !is_one_of(name, CREATE_VALUES) {
                continue;
            }
            let Some(value) = given
                .map(OsStr::from_bytes)
                .or_else(|| args.next().map(OsString::as_os_str))
            else {
                break;
            };
            match name {
                b"bundle" | b"b" => bundle = value.into(),
                b"config" | b"f" => config = value.into(),
                _ => {}
            }
        }
        Some(bundle.join(config))
    }
}

/// Name and, behind `=`, value of an option; Go's runtimes take one dash for two.
fn option(arg: &OsStr) -> Option<(&[u8], Option<&[u8]>)> {
    let name = arg.as_bytes().strip_prefix(b"-")?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    if name.is_empty() {
        return None;
    }
    Some(match name.iter().position(|b| *b == b'=') {
        Some(at) => (name.get(..at).unwrap_or_default(), name.get(at + 1..)),
        None => (name, None),
    })
}

fn is_short(arg: &OsStr) -> bool {
    !arg.as_bytes().starts_with(b"--")
}

fn is_one_of(name: &[u8], list: &[&str]) -> bool {
    list.iter().any(|known| known.as_bytes() == name)
}

/// Adds masq's hooks to the config.json at `path` if the container asks for them.
///
/// # Errors
/// [`ContainerError`]; the file is as it was then.
pub fn edit_config(
    path: &Path,
    own: &Own,
    masq: &Path,
    run_dir: &Path,
) -> Result<(), ContainerError> {
    let file = open_regular(path).map_err(ContainerError::io("read", path))?;
    let mut config = Config::read(file, path.to_owned())?;
    if add(&mut config, own, masq, run_dir)? {
        config.write()?;
    }
    Ok(())
}

/// The editing of [`edit_config`], of a document in memory. Says whether it changed.
///
/// # Errors
/// [`ContainerError`].
pub fn add(
    config: &mut Config,
    own: &Own,
    masq: &Path,
    run_dir: &Path,
) -> Result<bool, ContainerError> {
    if !edit::asks(config, &own.devices)? && !own.select {
        return Ok(false);
    }
    let command = |device| HookCommand {
        masq: masq.to_owned(),
        run_dir: run_dir.to_owned(),
        device,
        select: own.select,
    };
    // One hook does for all devices, as they must agree; the fullest says most.
    let device = own.devices.iter().max_by_key(|d| d.endpoint.is_some());
    edit::add_hooks(config, &command(device.cloned()))
}

/// Becomes the real runtime; returns only if that failed.
pub fn exec(line: &CommandLine) -> ContainerError {
    let named = line.own.runtime.clone().or_else(|| {
        std::env::var_os(RUNTIME_VARIABLE)
            .filter(|v| !v.is_empty())
            .map(Into::into)
    });
    let candidates = match named {
        Some(path) => vec![path],
        None => RUNTIMES.iter().map(PathBuf::from).collect(),
    };
    let mut failures = Vec::new();
    for runtime in candidates {
        let error = Command::new(&runtime).args(&line.rest).exec();
        failures.push(format!("{}: {error}", runtime.display()));
    }
    ContainerError::Runtime(format!(
        "no container runtime could be started: {}\n  \
         name one by --masq-runtime PATH or {RUNTIME_VARIABLE}",
        failures.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(args: &[&str]) -> CommandLine {
        CommandLine::parse(args.iter().map(OsString::from)).unwrap()
    }

    fn config(line: &str) -> Option<String> {
        let args: Vec<_> = line.split(' ').collect();
        parse(&args).config().map(|p| p.display().to_string())
    }

    #[test]
    fn the_bundle_is_found_in_what_engines_say() {
        for (line, expected) in [
            ("create --bundle /b --pid-file /p c1", "/b/config.json"),
            // containerd's shim
            (
                "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p c1",
                "/b/config.json",
            ),
            // podman's conmon
            (
                "--systemd-cgroup --root=/run/runc create --bundle /b --pid-file /p --no-pivot c1",
                "/b/config.json",
            ),
            ("--root create run -b /b c1", "/b/config.json"),
            (
                "--cgroup-manager=cgroupfs --log-level debug run --bundle=/b c1",
                "/b/config.json",
            ),
            ("run c1", "./config.json"),
            ("run -b/b -f other.json c1", "/b/other.json"),
            ("create -bundle /b c1", "/b/config.json"),
            (
                "create --preserve-fds 3 --console-socket --bundle -b /b c1",
                "/b/config.json",
            ),
            ("create c1 -- --bundle /x", "./config.json"),
        ] {
            assert_eq!(config(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn other_commands_are_none_of_ours() {
        for line in [
            "start c1",
            "delete --force create",
            "--root run state c1",
            "--version",
            "exec -b /b c1 run",
            "features",
            "",
        ] {
            assert_eq!(config(line), None, "{line}");
        }
    }

    #[test]
    fn our_options_come_first_and_the_rest_is_untouched() {
        let line = parse(&[
            "--masq-device",
            "blue:pod",
            "--masq-runtime=/bin/crun",
            "--masq-select",
            "--root",
            "/r",
            "create",
            "--masq-device",
            "c1",
        ]);
        assert_eq!(line.own.devices[0].to_string(), "blue:pod");
        assert_eq!(line.own.runtime.as_deref(), Some(Path::new("/bin/crun")));
        assert!(line.own.select);
        assert_eq!(line.rest, ["--root", "/r", "create", "--masq-device", "c1"]);
    }

    #[test]
    fn a_wrong_option_of_ours_is_told() {
        for args in [
            &["--masq-device"][..],
            &["--masq-device="],
            &["--masq-device", "a/b"],
            &["--masq-x"],
            &["--masq-select=1"],
        ] {
            let result = CommandLine::parse(args.iter().map(OsString::from));
            assert!(result.is_err(), "{args:?}");
        }
    }

    #[test]
    fn a_container_that_asks_for_nothing_keeps_its_config() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = "{ \"annotations\": {\"a\": \"b\"},  \"x\": 1 }";
        std::fs::write(&path, text).unwrap();
        let edit = |own: &Own| edit_config(&path, own, Path::new("/m"), Path::new("/run/masq"));
        edit(&Own::default()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let own = Own {
            devices: vec!["blue".parse().unwrap()],
            ..Own::default()
        };
        edit(&own).unwrap();
        let edited = std::fs::read_to_string(&path).unwrap();
        assert!(edited.contains("createRuntime"), "{edited}");
    }

    #[test]
    fn an_annotation_is_enough_to_ask() {
        let text = r#"{"annotations": {"dev.masq/tenant": "blue"}}"#;
        let mut config = Config::read(text.as_bytes(), "c".into()).unwrap();
        let added = add(
            &mut config,
            &Own::default(),
            Path::new("/m"),
            Path::new("/r"),
        );
        assert!(added.unwrap());
        let text = r#"{"annotations": {"dev.masq/tenant": "../blue"}}"#;
        let mut config = Config::read(text.as_bytes(), "c".into()).unwrap();
        assert!(
            add(
                &mut config,
                &Own::default(),
                Path::new("/m"),
                Path::new("/r")
            )
            .is_err()
        );
    }

    proptest! {
        #[test]
        fn no_argument_is_lost_or_changed(args in prop::collection::vec("[a-z=/-]{0,8}", 0..8)) {
            prop_assume!(!args.iter().any(|a| a.starts_with("--masq-")));
            let line = CommandLine::parse(args.iter().map(OsString::from)).unwrap();
            let _ = line.config();
            prop_assert_eq!(line.rest, args.iter().map(OsString::from).collect::<Vec<_>>());
        }
    }
}
