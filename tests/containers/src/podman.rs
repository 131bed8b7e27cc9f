//! podman, as root or as a user.

use crate::available::Runtime;
use crate::cdi::CdiDevices;
use crate::command::output_of;
use crate::container::{Container, Invocation};
use crate::lock::Lock;
use crate::names::{quietly, unique};
use crate::netns::PodNet;
use crate::rootfs::RootFs;
use crate::user::User;
use anyhow::Context as _;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The machines of CI have no CAP_SYS_RESOURCE: podman's own defaults would raise limits.
const CONTAINERS_CONF: &str = "[containers]\n\
    default_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\n";

/// crun 1.8 refuses machines with cgroups of both versions.
pub(crate) const CRUN: &str = "#!/bin/sh\n\
    exec unshare -m --propagation slave sh -c '\n\
    mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified\n\
    exec crun \"$@\"' crun \"$@\"\n";

/// podman with settings of its own.
#[derive(Debug)]
pub struct Podman {
    dir: tempfile::TempDir,
    base: Invocation,
    rootless: bool,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    image: RootFs,
    options: Vec<String>,
    words: Vec<String>,
}

impl Launch {
    /// A container of this image that sleeps, without network.
    pub fn of(image: &RootFs) -> Self {
        Self {
            image: image.clone(),
            options: Vec::new(),
            words: ["sleep", "1000"].map(str::to_owned).to_vec(),
        }
    }

    /// With further options of `podman run`, split at blanks.
    #[must_use]
    pub fn options(mut self, options: &str) -> Self {
        let words = options.split_ascii_whitespace().map(str::to_owned);
        self.options.extend(words);
        self
    }

    /// In this network.
    #[must_use]
    pub fn on(self, network: &Network) -> Self {
        self.options(&format!("--network {}", network.name))
    }

    /// In this network namespace.
    #[must_use]
    pub fn inside(self, net: &PodNet) -> Self {
        self.options(&format!("--network ns:{}", net.path().display()))
    }

    /// With this CDI device: `blue`.
    #[must_use]
    pub fn device(self, devices: &CdiDevices, name: &str) -> Self {
        self.options(&format!("--device {}={name}", devices.kind()))
    }

    /// With another program than `sleep`.
    #[must_use]
    pub fn program(mut self, words: &[&str]) -> Self {
        self.words = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }
}

/// A bridge network of podman; it ends with it.
#[derive(Debug)]
pub struct Network {
    name: String,
    subnet: String,
    remove: Invocation,
}

impl Network {
    /// `10.89.7.0/24`.
    pub fn subnet(&self) -> &str {
        &self.subnet
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        quietly(self.remove.command());
    }
}

impl Podman {
    /// As root, with runc.
    ///
    /// # Errors
    /// Its settings cannot be written.
    pub fn new() -> anyhow::Result<Self> {
        crate::names::sweep()?;
        Self::with("runc", None)
    }

    /// As root, with crun.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_crun() -> anyhow::Result<Self> {
        Self::with("", None)
    }

    /// As this user, with runc and a storage in its home.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn rootless(user: &User) -> anyhow::Result<Self> {
        Self::with("runc", Some(user))
    }

    fn with(runtime: &str, user: Option<&User>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("masqt-podman-").tempdir()?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        let conf = dir.path().join("containers.conf");
        std::fs::write(&conf, CONTAINERS_CONF)?;
        let runtime = match runtime {
            "" => script(dir.path(), "crun", CRUN)?.display().to_string(),
            name => name.to_owned(),
        };
        let mut base = match user {
            None => Invocation::new(["podman"]),
            Some(user) => {
                let home = user.home();
                let run = user.directory("run")?;
                let mut base = user.invocation().with(["env", "-C", "/", "podman"]);
                base = base.with([format!("--root={}", home.join("storage").display())]);
                base = base.with([format!("--runroot={}", run.join("podman").display())]);
                let set = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
                base.env.push(set("HOME", home));
                base.env.push(set("XDG_RUNTIME_DIR", &run));
                base.env.push(("STORAGE_DRIVER".into(), "overlay".into()));
                base
            }
        };
        base.env
            .push(("CONTAINERS_CONF".into(), conf.display().to_string()));
        base = base.with(["--runtime".to_owned(), runtime]);
        Ok(Self {
            dir,
            base,
            rootless: user.is_some(),
        })
    }

    /// With the OCI hooks that are described in this directory.
    #[must_use]
    pub fn hooks(mut self, dir: &Path) -> Self {
        self.base = self.base.with([format!("--hooks-dir={}", dir.display())]);
        self
    }

    /// Which of the runtimes this is.
    pub fn runtime(&self) -> Runtime {
        if self.rootless {
            Runtime::Rootless
        } else {
            Runtime::Podman
        }
    }

    /// A directory that ends with it.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `podman WORDS`; what it printed.
    ///
    /// # Errors
    /// It failed.
    pub fn podman(&self, words: &[&str]) -> anyhow::Result<String> {
        output_of(self.base.with(words.iter().copied()).command())
    }

    /// A bridge network with a subnet that nobody else has.
    ///
    /// # Errors
    /// podman cannot make it.
    pub fn network(&self) -> anyhow::Result<Network> {
        let name = unique();
        // Two that look for a free subnet at once would find the same one.
        let _lock = Lock::take("network")?;
        self.podman(&["network", "create", &name])?;
        let remove = self.base.with(["network", "rm", "-f", &name]);
        let mut network = Network {
            name,
            subnet: String::new(),
            remove,
        };
        let format = "{{(index .Subnets 0).Subnet}}";
        network.subnet = self.podman(&["network", "inspect", "--format", format, &network.name])?;
        Ok(network)
    }

    /// Brings the image into podman's storage.
    ///
    /// # Errors
    /// The import failed.
    pub fn import(&self, image: &RootFs) -> anyhow::Result<()> {
        let _lock = Lock::take("import")?;
        if self.podman(&["image", "exists", image.image()]).is_ok() {
            return Ok(());
        }
        // A user may not be let into the source tree: the file comes by its descriptor.
        let mut import = self
            .base
            .with(["import", "--quiet", "-", image.image()])
            .command();
        import.stdin(File::open(image.tar())?);
        output_of(import).map(drop)
    }

    /// The command that starts a container of this name in the foreground.
    pub(crate) fn run_words(&self, name: &str, launch: &Launch, mode: &str) -> Invocation {
        let mut run = self.base.with(["run", mode, "--name", name]);
        if !launch.options.iter().any(|word| word == "--network") {
            run = run.with(["--network", "none"]);
        }
        run.with(launch.options.iter().cloned())
            .with([launch.image.image().to_owned()])
            .with(launch.words.iter().cloned())
    }

    /// Starts a container.
    ///
    /// # Errors
    /// It does not start; the error holds what podman and the hook said.
    pub fn start(&self, launch: &Launch) -> anyhow::Result<Container> {
        self.import(&launch.image)?;
        let name = unique();
        let mut container = Container {
            id: String::new(),
            pid: 0,
            enter: self.base.with(["exec", &name]),
            remove: vec![self.base.with(["rm", "-f", "-t", "0", &name])],
        };
        container.id = output_of(self.run_words(&name, launch, "-d").command())?;
        let pid = self.podman(&["inspect", "--format", "{{.State.Pid}}", &name])?;
        container.pid = pid.parse().context("podman tells no process id")?;
        Ok(container)
    }

    /// Runs a container's own program to its end; what it printed.
    ///
    /// # Errors
    /// It does not start, or fails.
    pub fn run(&self, launch: &Launch) -> anyhow::Result<String> {
        self.import(&launch.image)?;
        let run = self.run_words(&unique(), launch, "--rm");
        output_of(run.command())
    }
}

/// An executable file in `dir`.
pub(crate) fn script(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    Ok(path)
}
