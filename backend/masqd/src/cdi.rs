//! Keeps the container engines' list of devices in step with the policy.

use anyhow::{Context, Result, bail};
use masq_container::cdi::{self, Settings};
use masq_policy::Policy;
use std::path::{Path, PathBuf};

/// Writes the CDI file of a directory.
pub(crate) struct CdiFile {
    dir: PathBuf,
    settings: Settings,
}

impl CdiFile {
    /// # Errors
    /// There is no `masq` beside this program for the hooks to run, or a path is odd.
    pub(crate) fn new(dir: &Path, run_dir: &Path) -> Result<Self> {
        let exe = std::env::current_exe().context("find this program")?;
        let masq = exe.with_file_name("masq");
        if !masq.is_file() {
            bail!(
                "--cdi-dir: engines would run {}, which is not there\n  \
                 install masq beside masqd",
                masq.display()
            );
        }
        let run_dir = std::path::absolute(run_dir).context("--run-dir")?;
        Ok(Self {
            dir: dir.to_owned(),
            settings: Settings::of_host(masq, run_dir),
        })
    }

    /// Brings the file in step; a failure is logged, since the policy is in force anyhow.
    pub(crate) fn write(&self, policy: &Policy) {
        let dir = self.dir.display();
        let written = cdi::generate(policy, &self.settings).and_then(|generated| {
            for problem in &generated.left_out {
                tracing::warn!(%problem, "no CDI device");
            }
            let devices = generated.spec.devices.len();
            Ok((cdi::write(&self.dir, &generated.spec)?, devices))
        });
        match written {
            Ok((true, devices)) => tracing::info!(%dir, devices, "CDI devices written"),
            Ok((false, _)) => {}
            Err(error) => tracing::error!(%dir, %error, "CDI devices are not in step"),
        }
    }
}
