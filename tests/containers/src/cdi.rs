//! The CDI devices of one site.
//!
//! podman 4.3 reads `/etc/cdi` and nothing else, so tests that run side by side have files
//! there with a kind each.

use crate::names::unique;
use anyhow::{Context as _, ensure};
use masq_e2e::Host;
use std::path::{Path, PathBuf};

/// Where runtimes look.
pub(crate) const DIR: &str = "/etc/cdi";
const KIND: &str = "masq.dev/endpoint";

/// The devices of a policy, as `masq cdi generate` describes them, under another kind; the
/// file ends with it.
#[derive(Debug)]
pub struct CdiDevices {
    kind: String,
    file: PathBuf,
    specification: serde_json::Value,
}

impl CdiDevices {
    /// Those of the policy that `host` serves.
    ///
    /// # Errors
    /// `masq cdi generate` failed, or the file cannot be written.
    pub fn of(host: &Host) -> anyhow::Result<Self> {
        let policy = host.policy_file().display().to_string();
        let args = ["cdi", "generate", "--policy", &policy, "--output", "-"];
        let text = host.masq_output(args)?.success()?.output;
        let mut specification: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("this is no JSON: {text}"))?;
        let kind = specification.get_mut("kind").context("it has no kind")?;
        ensure!(*kind == KIND, "its kind is {kind}");
        let name = unique();
        let own = format!("{KIND}-{name}");
        *kind = own.clone().into();
        std::fs::create_dir_all(DIR)?;
        let file = Path::new(DIR).join(format!("{name}.json"));
        // Never half a file: others read the directory at any moment.
        let part = file.with_extension("part");
        std::fs::write(&part, serde_json::to_vec_pretty(&specification)?)?;
        std::fs::rename(&part, &file)?;
        Ok(Self {
            kind: own,
            file,
            specification,
        })
    }

    /// `masq.dev/endpoint-…`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The specification as it is in the file.
    pub fn specification(&self) -> &serde_json::Value {
        &self.specification
    }

    /// The edits of one device.
    ///
    /// # Errors
    /// There is no such device.
    pub fn edits(&self, name: &str) -> anyhow::Result<&serde_json::Value> {
        self.specification
            .get("devices")
            .and_then(|devices| devices.as_array())
            .into_iter()
            .flatten()
            .find(|device| device.get("name").is_some_and(|n| n == name))
            .and_then(|device| device.get("containerEdits"))
            .with_context(|| format!("there is no device {name}"))
    }
}

impl Drop for CdiDevices {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
