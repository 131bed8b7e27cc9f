//! A masqd for containers.

use crate::cdi::CdiDevices;
use crate::container::Container;
use crate::footprint::Footprint;
use crate::podman::script;
use anyhow::ensure;
use masq_admin::ContainerReport;
use masq_e2e::{Binaries, Host, Place};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A policy with the tenants blue and red, each with one class of containers whose
/// addresses lie in `addresses`, and within which everything may talk.
pub fn policy(addresses: &str) -> String {
    let tenant = |name: &str| {
        format!(
            "  {name}:
    addresses: [{addresses}]
    endpoints:
      pod: {{ address: auto }}
    rules:
      - {{ name: pods, from: pod, to: pod, action: allow }}
"
        )
    };
    format!("version: 1\ntenants:\n{}{}", tenant("blue"), tenant("red"))
}

/// A directory in memory, as `/run` is where masqd usually has its own.
pub(crate) fn memory() -> Option<&'static Path> {
    Some(Path::new("/dev/shm")).filter(|dir| dir.is_dir())
}

/// A masqd with its policy and its CDI devices.
#[derive(Debug)]
pub struct Site {
    // Before the host: hooks of containers ask masqd.
    devices: CdiDevices,
    host: Host,
}

impl Site {
    /// With this policy.
    ///
    /// # Errors
    /// masqd does not come up, or there are no CDI devices.
    pub fn start(policy: &str) -> anyhow::Result<Self> {
        Self::with(Binaries::find()?, policy, &[])
    }

    /// With these programs, this policy, and further arguments of masqd.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn with(binaries: Binaries, policy: &str, args: &[&str]) -> anyhow::Result<Self> {
        let place = Place {
            parent: memory(),
            ..Place::default()
        };
        Self::around(Host::launch_at(binaries, place, policy, args)?)
    }

    /// Around this masqd.
    ///
    /// # Errors
    /// There are no CDI devices.
    pub fn around(host: Host) -> anyhow::Result<Self> {
        let devices = CdiDevices::of(&host)?;
        Ok(Self { devices, host })
    }

    /// Its CDI devices.
    pub fn devices(&self) -> &CdiDevices {
        &self.devices
    }

    /// `masq-runtime` for this masqd, as a runtime in place of runc.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn wrapper(&self) -> anyhow::Result<PathBuf> {
        let dir = self.host.scratch().join("by-name");
        std::fs::create_dir_all(&dir)?;
        let program = dir.join("masq-runtime");
        let _ = std::fs::remove_file(&program);
        std::os::unix::fs::symlink(self.host.binaries().masq(), &program)?;
        let text = format!(
            "#!/bin/sh\nexec '{}' --masq-run-dir '{}' \"$@\"\n",
            program.display(),
            self.host.run_dir().display(),
        );
        script(self.host.scratch(), "masq-runtime", &text)
    }

    /// The containers that masqd serves.
    ///
    /// # Errors
    /// masqd does not answer.
    pub fn containers(&self) -> anyhow::Result<Vec<ContainerReport>> {
        masq_e2e::containers(&self.host)
    }

    /// What masqd knows of this one.
    ///
    /// # Errors
    /// It does not know it.
    pub fn report_of(&self, container: &Container) -> anyhow::Result<ContainerReport> {
        container.report(&self.host)
    }

    /// What masqd holds, once that has stopped changing: just after its start a thread of
    /// its own still opens its libraries.
    ///
    /// # Errors
    /// It has ended.
    pub fn footprint(&self) -> anyhow::Result<Footprint> {
        let look = || Footprint::of(self.host.pid(), &self.host.run_dir());
        let mut last = look()?;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(20));
            let next = look()?;
            if next.grown_since(&last).is_empty() && last.grown_since(&next).is_empty() {
                return Ok(next);
            }
            last = next;
        }
        Ok(last)
    }

    /// Waits until masqd serves no container and no session, and holds no more than
    /// `before`.
    ///
    /// # Errors
    /// Something is left after ten seconds; the error says what.
    pub fn wait_until_back_to(&self, before: &Footprint) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let mut left = self.footprint()?.grown_since(before);
            left.extend(self.containers()?.into_iter().map(|c| c.container));
            if left.is_empty() {
                break;
            }
            ensure!(
                Instant::now() < end,
                "masqd still holds: {}\n{}",
                left.join(", "),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.host.wait_until_empty()
    }
}

impl Deref for Site {
    type Target = Host;
    fn deref(&self) -> &Host {
        &self.host
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}
