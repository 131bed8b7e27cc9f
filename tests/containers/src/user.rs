//! A user of the machine, for rootless podman.

use crate::command::{command, output_of};
use crate::container::Invocation;
use crate::lock::Lock;
use crate::names::{quietly, unique};
use anyhow::Context as _;
use masq_e2e::{Binaries, Host, Place};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A user with a home and ranges of subordinate ids; gone when this is dropped, with all
/// that the home holds.
#[derive(Debug)]
pub struct User {
    name: String,
    home: PathBuf,
    uid: u32,
    gid: u32,
}

impl User {
    /// Makes one.
    ///
    /// # Errors
    /// `useradd` failed.
    pub fn new() -> anyhow::Result<Self> {
        let name = unique();
        let home = std::env::temp_dir().join(format!("{name}-home"));
        // It gives out ranges of ids, and has no lock for that.
        let _lock = Lock::take("user")?;
        let mut user = Self {
            name,
            home,
            uid: 0,
            gid: 0,
        };
        let mut add = command(["useradd", "--create-home", "--home-dir"]);
        output_of({
            add.arg(&user.home).arg(&user.name);
            add
        })?;
        let home = std::fs::metadata(&user.home).context("useradd made no home")?;
        (user.uid, user.gid) = (home.uid(), home.gid());
        Ok(user)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Starts a masqd of this user, from programs in its home: it may not be let into
    /// the source tree.
    ///
    /// # Errors
    /// masqd does not come up.
    pub fn host(&self, policy: &str) -> anyhow::Result<Host> {
        let built = Binaries::find()?;
        let dir = self.home.join("masq");
        std::fs::create_dir(&dir)?;
        let from = built.masqd();
        let from = from.parent().context("masqd lies nowhere")?;
        let mut copy = command(["cp", "-rL"]);
        copy.arg(built.masqd()).arg(built.masq());
        copy.arg(from.join("lib")).arg(&dir);
        output_of(copy)?;
        let mut own = command(["chown", "-R", &self.name]);
        own.arg(&dir);
        output_of(own)?;
        let place = Place {
            owner: Some((self.uid, self.gid)),
            parent: crate::site::memory(),
            ..Place::default()
        };
        Host::launch_at(Binaries::at(&dir)?, place, policy, &[])
    }

    /// A directory of its own in its home.
    pub(crate) fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.home.join(name);
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700))?;
        chown(&dir, Some(self.uid), Some(self.gid))?;
        Ok(dir)
    }

    /// Its number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// `words` as this user.
    pub(crate) fn invocation(&self) -> Invocation {
        let name = self.name.as_str();
        Invocation::new(["setpriv", "--reuid", name, "--regid", name, "--init-groups"])
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // podman's pause process keeps its namespaces.
        for pid in processes_of(self.uid) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Ok(_lock) = Lock::take("user") {
            quietly(command(["userdel", &self.name]));
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn processes_of(uid: u32) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == uid))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .collect()
}
