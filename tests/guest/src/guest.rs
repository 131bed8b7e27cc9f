//! A running guest.

use crate::channel::{Channel, JobId, Stream};
use crate::gid::{self, GidIndex, GidTable};
use crate::kit::{Kind, Kit};
use crate::watch::end_of;
use anyhow::{Context as _, bail};
use ipnet::IpNet;
use masq_e2e::{Namespace, Running, Wire, addresses_of, spawn};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A quick answer of a guest, with room for a loaded machine.
const SOON: Duration = Duration::from_secs(30);

/// Where a guest sees the directory that it was given.
pub const SHARE: &str = "/run/share";

/// What a guest has.
#[derive(Clone, Debug)]
pub struct GuestConfig<'n> {
    /// Where it runs; its taps are there.
    pub namespace: &'n Namespace,
    /// Interface number N is `eN` in the guest; its driver's device goes over it.
    pub interfaces: Vec<Interface>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// A directory that the guest sees, read-only, as [`SHARE`]; as it is when the guest
    /// boots.
    pub share: Option<PathBuf>,
}

/// An interface of a guest.
#[derive(Clone, Debug)]
pub struct Interface {
    /// The tap of the machine.
    pub tap: String,
    /// Addresses with prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Bytes of a packet; the device's path MTU is the largest that fits.
    pub mtu: u32,
    /// What makes an RDMA device of it.
    pub driver: Driver,
}

/// A driver of the kernel that makes an RDMA device of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// Soft RoCE.
    #[default]
    Rxe,
    /// Soft iWARP.
    Siw,
    /// None: an interface only.
    Bare,
}

impl Driver {
    /// What it makes of interface number `n`.
    pub fn device(self, n: usize) -> Option<String> {
        self.kind().map(|kind| format!("{kind}{n}"))
    }

    /// As `rdma link add` calls it.
    pub fn kind(self) -> Option<&'static str> {
        match self {
            Self::Rxe => Some("rxe"),
            Self::Siw => Some("siw"),
            Self::Bare => None,
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().unwrap_or("no driver"))
    }
}

impl<'n> GuestConfig<'n> {
    /// One interface at a wire, with this address.
    ///
    /// # Errors
    /// The tap cannot be made.
    pub fn on(wire: &'n Wire, address: IpNet) -> anyhow::Result<Self> {
        Self::with_addresses(wire, vec![address])
    }

    /// The same with several addresses.
    ///
    /// # Errors
    /// The tap cannot be made.
    pub fn with_addresses(wire: &'n Wire, addresses: Vec<IpNet>) -> anyhow::Result<Self> {
        Ok(Self {
            namespace: wire.namespace(),
            interfaces: vec![Interface {
                tap: wire.tap()?,
                addresses,
                mtu: wire.mtu(),
                driver: Driver::default(),
            }],
            memory_mib: 512,
            share: None,
        })
    }

    /// With this driver over each interface.
    #[must_use]
    pub fn driver(mut self, driver: Driver) -> Self {
        for interface in &mut self.interfaces {
            interface.driver = driver;
        }
        self
    }
}

impl Interface {
    /// Made of the first address, so that those on one wire differ.
    pub(crate) fn mac(&self) -> String {
        let [a, b, c, d] = match self.addresses.first().map(IpNet::addr) {
            Some(IpAddr::V4(v4)) => v4.octets(),
            Some(IpAddr::V6(v6)) => {
                let [.., a, b, c, d] = v6.octets();
                [a, b, c, d]
            }
            None => [0; 4],
        };
        format!("02:51:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// The script that sets it up as number `n`.
    fn set_up(&self, n: usize) -> String {
        let mac = self.mac();
        let mtu = self.mtu;
        let addresses = addresses_of(&format!("e{n}"), &self.addresses);
        format!(
            r#"
for dir in /sys/class/net/*; do
    if [ "$(cat "$dir/address")" = {mac} ]; then ip link set "${{dir##*/}}" name e{n}; fi
done
ip link set e{n} mtu {mtu}
{addresses}{}"#,
            self.add_device(n)
        )
    }

    /// The script that makes the device of number `n`, and waits until it works.
    fn add_device(&self, n: usize) -> String {
        let (Some(kind), Some(name)) = (self.driver.kind(), self.driver.device(n)) else {
            return String::new();
        };
        format!(
            r#"rdma link add {name} type {kind} netdev e{n}
for i in $(seq 200); do
    rdma link show {name}/1 | grep -q 'state ACTIVE' && break
    sleep 0.05
done
"#
        )
    }
}

/// A running guest; dropped, it is powered off. It also ends when the thread that booted
/// it ends.
#[derive(Debug)]
pub struct Guest {
    channel: Channel,
    kernel: Mutex<Running>,
    kind: Kind,
    next: AtomicU32,
    gids: Vec<GidTable>,
    addresses: Vec<IpNet>,
    took: Duration,
    _scratch: TempDir,
}

impl Guest {
    /// Boots one, sets its interfaces up and waits until each `rxeN` has the GIDs of its
    /// addresses, each `siwN` its carrier. QEMU is tried up to three times: one of its boots in ten fails.
    ///
    /// # Errors
    /// It does not come up; the error holds the end of its console.
    pub fn boot(kit: &Kit, config: &GuestConfig<'_>) -> anyhow::Result<Self> {
        let (tries, limit) = match kit.kind() {
            Kind::Uml => (1, SOON),
            Kind::Qemu => (3, Duration::from_secs(60)),
        };
        let mut failures = Vec::new();
        for _ in 0..tries {
            match Self::boot_once(kit, config, limit) {
                Ok(guest) => return Ok(guest),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!(
            "a guest by {} does not come up: {}",
            kit.kind(),
            failures.join("\nand again: ")
        )
    }

    fn boot_once(kit: &Kit, config: &GuestConfig<'_>, limit: Duration) -> anyhow::Result<Self> {
        let since = Instant::now();
        let scratch = tempfile::Builder::new().prefix("masq-guest-").tempdir()?;
        let channel = Channel::new()?;
        let command = kit.command(config, channel.path(), scratch.path())?;
        let kernel = config.namespace.inside(|| spawn(command))?;
        let mut guest = Self {
            channel,
            kernel: Mutex::new(kernel),
            kind: kit.kind(),
            next: AtomicU32::new(1),
            gids: Vec::new(),
            addresses: Vec::new(),
            took: Duration::ZERO,
            _scratch: scratch,
        };
        guest
            .channel
            .wait_until_ready(limit * kit.kind().slowness(), || guest.is_alive())
            .with_context(|| format!("console:\n{}", end_of(&guest.console())))?;
        if config.share.is_some() {
            guest
                .run(&mount_share(kit.kind(), config), limit)?
                .success()?;
        }
        for (n, interface) in config.interfaces.iter().enumerate() {
            guest
                .run(&format!("set -e\n{}", interface.set_up(n)), limit)?
                .success()?;
            let table = match interface.driver {
                Driver::Rxe => guest.wait_for_gids(n, interface)?,
                Driver::Siw | Driver::Bare => GidTable::default(),
            };
            guest.gids.push(table);
            guest.addresses.extend(&interface.addresses);
        }
        guest.took = since.elapsed();
        Ok(guest)
    }

    fn wait_for_gids(&self, n: usize, interface: &Interface) -> anyhow::Result<GidTable> {
        let end = Instant::now() + SOON * self.kind.slowness();
        let list = format!("set rxe{n}; {}", gid::LIST);
        loop {
            let table = GidTable::parse(&self.run(&list, SOON)?.success()?.stdout);
            let mut wanted = interface.addresses.iter().map(IpNet::addr);
            match wanted.try_for_each(|address| table.of(address).map(drop)) {
                Ok(()) => return Ok(table),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The first address of its first interface.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first().map(IpNet::addr)
    }

    /// Where rxe0's GID table has this address of the guest as RoCEv2.
    ///
    /// # Errors
    /// It is not there.
    pub fn gid_index(&self, address: IpAddr) -> anyhow::Result<GidIndex> {
        self.gids.first().context("no interface")?.of(address)
    }

    /// The GID table of `rxeN`.
    pub fn gids(&self, n: usize) -> Option<&GidTable> {
        self.gids.get(n)
    }

    /// From the start of its kernel until its device was up.
    pub fn boot_time(&self) -> Duration {
        self.took
    }

    /// What its kernel printed.
    pub fn console(&self) -> String {
        self.kernel().output()
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.kernel().is_running()
    }

    /// What it is: whoever waits for it waits [`Kind::slowness`] times as long.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs a shell script as root to its end; after `limit`, times
    /// [`Kind::slowness`], it is killed.
    ///
    /// # Errors
    /// It took longer (the error holds its output), or the guest is gone. A failure is in
    /// the status.
    pub fn run(&self, script: &str, limit: Duration) -> anyhow::Result<Output> {
        self.spawn(script)?.wait(limit)
    }

    /// Starts a shell script as root.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn spawn(&self, script: &str) -> anyhow::Result<Job<'_>> {
        let id = JobId(self.next.fetch_add(1, Ordering::Relaxed));
        self.channel.start(id, script)?;
        Ok(Job {
            guest: self,
            id,
            script: script.to_owned(),
        })
    }

    fn kernel(&self) -> std::sync::MutexGuard<'_, Running> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It keeps nothing, so what does not power off in time is killed.
        if self.channel.power_off().is_ok() {
            let end = Instant::now() + Duration::from_secs(3);
            while self.is_alive() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// The script that mounts what the machine shares.
fn mount_share(kind: Kind, config: &GuestConfig<'_>) -> String {
    let dir = config.share.as_deref().unwrap_or(Path::new("/"));
    let mount = match kind {
        Kind::Uml => format!("mount -t hostfs -o '{}' none {SHARE}", dir.display()),
        Kind::Qemu => format!("mount -t ext4 -o ro /dev/vdb {SHARE}"),
    };
    format!("mkdir -p {SHARE} && {mount}")
}

/// A script that runs in a guest; dropped, it is killed.
#[derive(Debug)]
pub struct Job<'g> {
    guest: &'g Guest,
    id: JobId,
    script: String,
}

/// How a script ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The script.
    pub name: String,
    /// As a shell counts: 0 is success, 128 and more a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// An error with the outputs, unless it succeeded.
    ///
    /// # Errors
    /// It failed.
    pub fn success(self) -> anyhow::Result<Self> {
        if self.status != 0 {
            bail!("{self}");
        }
        Ok(self)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} (in a guest): status {}",
            self.name.trim(),
            self.status
        )?;
        for line in self.stdout.lines().chain(self.stderr.lines()) {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

impl Job<'_> {
    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.guest.channel.status(self.id).is_none() && self.guest.is_alive()
    }

    /// What it wrote so far to standard output, and to standard error.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn output(&self) -> anyhow::Result<(String, String)> {
        let read = |stream| {
            let channel = &self.guest.channel;
            channel.read(self.id, stream, || self.guest.is_alive())
        };
        Ok((read(Stream::Out)?, read(Stream::Err)?))
    }

    /// Sends its process group a signal, by its name without SIG.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        self.guest.channel.kill(self.id, name)
    }

    /// Waits for its end; after `limit`, times [`Kind::slowness`], it is killed.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn wait(self, limit: Duration) -> anyhow::Result<Output> {
        let alive = || self.guest.is_alive();
        let limit = limit * self.guest.kind.slowness();
        let status = self.guest.channel.wait(self.id, limit, alive);
        let status = status.map_err(|error| {
            let (stdout, stderr) = self.output().unwrap_or_default();
            error.context(format!(
                "{} did not end in the guest:\n{stdout}{stderr}console:\n{}",
                self.script.trim(),
                end_of(&self.guest.console())
            ))
        })?;
        let (stdout, stderr) = self.output()?;
        Ok(Output {
            name: self.script.clone(),
            status,
            stdout,
            stderr,
        })
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// It does not end, or the guest is gone.
    pub fn kill(self) -> anyhow::Result<Output> {
        self.end()?;
        self.wait(SOON)
    }

    fn end(&self) -> anyhow::Result<()> {
        let end = Instant::now() + SOON;
        while self.is_running() {
            if Instant::now() > end {
                bail!("{} cannot be killed", self.script.trim());
            }
            // It may not have begun when a signal came.
            self.signal("KILL")?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        let _ = self.end();
        let _ = self.guest.channel.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(address: &str) -> Interface {
        Interface {
            tap: "tap1".to_owned(),
            addresses: vec![address.parse().unwrap()],
            mtu: 1500,
            driver: Driver::Rxe,
        }
    }

    #[test]
    fn guests_on_one_wire_have_hardware_addresses_of_their_own() {
        assert_eq!(interface("10.77.0.1/24").mac(), "02:51:0a:4d:00:01");
        assert_eq!(interface("fd00::1:2/64").mac(), "02:51:00:01:00:02");
    }

    #[test]
    fn an_interface_has_its_mtu_before_the_device_that_derives_its_own() {
        let script = interface("10.77.0.1/24").set_up(0);
        let mtu = script.find("mtu 1500").unwrap();
        assert!(mtu < script.find("rdma link add rxe0").unwrap());
    }

    #[test]
    fn an_interface_has_the_device_of_its_driver_and_a_bare_one_none() {
        let script = |driver| {
            let tap = interface("10.77.0.1/24");
            Interface { driver, ..tap }.set_up(1)
        };
        let siw = script(Driver::Siw);
        assert!(
            siw.contains("rdma link add siw1 type siw netdev e1"),
            "{siw}"
        );
        let bare = script(Driver::Bare);
        assert!(bare.contains("e1") && !bare.contains("rdma"), "{bare}");
    }
}
