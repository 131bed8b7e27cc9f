//! The host's RDMA cards, whether masqd could use them, and which devices it does use.

use super::Check;
use crate::ps;
use masq_admin::{DeviceReport, Overview};
use rustix::fs::{Access, access};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "RDMA cards";
/// What masqd loads to use one.
const LIBRARY: &str = "libibverbs.so.1";
/// What it connects through to hosts without masqd, and over iWARP to all.
const USER_CM: &str = "/dev/infiniband/rdma_cm";

pub(super) fn checks(run_dir: &Path) -> Vec<Check> {
    let overview = ps::overview(run_dir).ok();
    let cards = cards(Path::new("/"));
    let has_library = !cards.is_empty() && loads(LIBRARY);
    let mut checks = judge(&cards, has_library, overview.as_ref());
    if let Some(overview) = overview.filter(|o| o.devices.iter().any(is_relay)) {
        checks.push(connection_manager(Path::new("/"), &cards, &overview));
        let limits = fs::read_to_string(format!("/proc/{}/limits", overview.pid));
        let status = fs::read_to_string(format!("/proc/{}/status", overview.pid));
        checks.extend(pinning(
            &limits.unwrap_or_default(),
            &status.unwrap_or_default(),
        ));
    }
    checks
}

fn is_relay(device: &DeviceReport) -> bool {
    device.data_path == "relay"
}

/// Whether there is a way to the kernel's connection manager, for cards that are in use.
fn connection_manager(root: &Path, cards: &[Card], overview: &Overview) -> Check {
    const NAME: &str = "connection manager";
    let node = root.join(USER_CM.trim_start_matches('/'));
    let (found, remedy) = match access(&node, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => return Check::ok(NAME, USER_CM),
        Err(rustix::io::Errno::NOENT) => (format!("no {USER_CM}"), "modprobe rdma_ucm"),
        Err(_) => (
            format!("{USER_CM} is closed to this user"),
            "masqd needs to read and write it: run it as root, or in the group that has it",
        ),
    };
    let is_used = |card: &Card| overview.devices.iter().any(|d| d.name == card.name);
    let is_iwarp = |card: &Card| card.node_type == "RNIC";
    match cards.iter().find(|card| is_used(card) && is_iwarp(card)) {
        Some(card) => Check::fail(
            NAME,
            format!("{found}: no queue pair of {} can be connected", card.name),
            &format!("{remedy}, then start masqd again"),
        ),
        None => Check::warn(
            NAME,
            format!("{found}: tenants and hosts without masqd cannot connect by rdma_cm"),
            remedy,
        ),
    }
}

/// Whether masqd may pin what its tenants register, by its files in /proc; nothing if
/// they cannot be read.
fn pinning(limits: &str, status: &str) -> Option<Check> {
    const NAME: &str = "memory to pin";
    const IPC_LOCK: u32 = 14;
    let has = |line: &str| {
        line.strip_prefix("CapEff:")
            .map(str::trim)
            .map(str::to_owned)
    };
    let capabilities = u64::from_str_radix(&status.lines().find_map(has)?, 16).ok()?;
    if capabilities >> IPC_LOCK & 1 == 1 {
        return Some(Check::ok(NAME, "all, by CAP_IPC_LOCK"));
    }
    let limit = |line: &str| {
        let rest = line.strip_prefix("Max locked memory")?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let limit = limits.lines().find_map(limit)?;
    Some(match limit.as_str() {
        "unlimited" => Check::ok(NAME, "all, by RLIMIT_MEMLOCK"),
        limit => Check::warn(
            NAME,
            format!("{limit} bytes for all tenants together (RLIMIT_MEMLOCK)"),
            "a card pins what is registered: LimitMEMLOCK=infinity in masqd's unit, or \
             CAP_IPC_LOCK",
        ),
    })
}

fn judge(cards: &[Card], has_library: bool, overview: Option<&Overview>) -> Vec<Check> {
    let mut checks: Vec<Check> = cards.iter().map(Card::check).collect();
    match (cards, has_library) {
        ([], _) => checks.push(Check::ok(NAME, "none; the soft device needs none")),
        (_, true) => checks.push(Check::ok("rdma-core", format!("{LIBRARY} is found"))),
        (_, false) => checks.push(Check::warn(
            "rdma-core",
            format!("{LIBRARY} is not found"),
            "masqd uses cards through it: install rdma-core (Debian: libibverbs1 and \
             ibverbs-providers)",
        )),
    }
    if let Some(overview) = overview.filter(|overview| !overview.devices.is_empty()) {
        checks.push(in_use(cards, has_library, overview));
    }
    checks
}

/// Which devices masqd has, and whether they are what the host could give.
fn in_use(cards: &[Card], has_library: bool, overview: &Overview) -> Check {
    const NAME: &str = "masqd's devices";
    let devices = &overview.devices;
    let words = devices.iter().map(|device| {
        let tenants = match device.tenants.as_slice() {
            [] => "no tenant".to_owned(),
            tenants => tenants.join(" "),
        };
        format!("{} ({}): {tenants}", device.name, device.data_path)
    });
    let found = words.collect::<Vec<_>>().join("; ");
    let is_there = |name: &str| cards.iter().any(|card| card.name == name);
    let relays = devices.iter().filter(|device| is_relay(device));
    let mut names = relays.map(|device| device.name.as_str());
    if let Some(gone) = names.find(|name| !is_there(name)) {
        return Check::fail(
            NAME,
            format!("{found}; the card {gone} is gone"),
            "bring it back (`rdma link show`) and start masqd again; its sessions were told \
             DEVICE_FATAL",
        );
    }
    let usable = cards.iter().find(|card| card.is_usable() && has_library);
    match usable.filter(|_| !devices.iter().any(is_relay)) {
        Some(card) => Check::warn(
            NAME,
            format!("{found}; and the card {} is not used", card.name),
            &format!(
                "to have it carry the data, start masqd with --device auto or --device verbs:{}; \
                 `device` of a tenant chooses if there are several",
                card.name
            ),
        ),
        None => Check::ok(NAME, found),
    }
}

/// A port of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    number: u32,
    state: String,
    link_layer: String,
    /// Its network interface.
    netdev: Option<String>,
}

/// A card, as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Card {
    name: String,
    /// Its driver; none of a device that the kernel makes of an interface.
    driver: Option<String>,
    node_type: String,
    ports: Vec<Port>,
    /// Its character device, and whether this user may read and write it.
    node: Option<(PathBuf, bool)>,
}

impl Card {
    fn is_active(&self) -> bool {
        self.ports.iter().any(|port| port.state == "ACTIVE")
    }

    fn is_usable(&self) -> bool {
        self.is_active() && matches!(self.node, Some((_, true)))
    }

    fn check(&self) -> Check {
        let driver = self.driver.as_deref().unwrap_or("software");
        let mut found = format!("{} ({driver}, {})", self.name, self.node_type);
        for port in &self.ports {
            let Port {
                number,
                state,
                link_layer,
                netdev,
            } = port;
            let on = netdev
                .as_ref()
                .map_or(String::new(), |dev| format!(" on {dev}"));
            found.push_str(&format!(", port {number} {state} {link_layer}{on}"));
        }
        let Some((node, is_open)) = &self.node else {
            let remedy = "programs have no way to it: modprobe ib_uverbs";
            return Check::warn(NAME, format!("{found}, no uverbs device"), remedy);
        };
        let node = node.display();
        if !is_open {
            return Check::warn(
                NAME,
                format!("{found}, {node} is closed to this user"),
                "masqd needs to read and write it: run it as root, or in the group that has it",
            );
        }
        found.push_str(&format!(", {node}"));
        if self.is_active() {
            return Check::ok(NAME, found);
        }
        let dev = self.ports.iter().find_map(|port| port.netdev.as_deref());
        let remedy = match dev {
            Some(dev) => format!("no port is active: ip link set {dev} up"),
            None => "no port is active: set its network interface up".to_owned(),
        };
        Check::warn(NAME, found, &remedy)
    }
}

/// The cards below `root`, which is `/` but in tests.
fn cards(root: &Path) -> Vec<Card> {
    let all = root.join("sys/class/infiniband");
    names(&all)
        .into_iter()
        .map(|name| {
            let dir = all.join(&name);
            let ports = names(&dir.join("ports"));
            let mut ports: Vec<Port> = ports.iter().filter_map(|n| port(&dir, n)).collect();
            ports.sort_by_key(|port| port.number);
            let driver = fs::read_link(dir.join("device/driver")).ok();
            Card {
                driver: driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned())),
                node_type: after_number(&line(&dir.join("node_type"))),
                ports,
                node: node(root, &name),
                name,
            }
        })
        .collect()
}

fn port(card: &Path, number: &str) -> Option<Port> {
    let dir = card.join("ports").join(number);
    // Of a card with one port for each of several interfaces only GIDs tell which is whose.
    let netdev = fs::read_to_string(dir.join("gid_attrs/ndevs/0")).ok();
    let of_card = || names(&card.join("device/net")).into_iter().next();
    let parent = || Some(line(&card.join("parent"))).filter(|name| !name.is_empty());
    let netdev = netdev.map(|text| text.trim().to_owned());
    Some(Port {
        number: number.parse().ok()?,
        state: after_number(&line(&dir.join("state"))),
        link_layer: line(&dir.join("link_layer")),
        netdev: netdev
            .filter(|name| !name.is_empty())
            .or_else(parent)
            .or_else(of_card),
    })
}

fn node(root: &Path, card: &str) -> Option<(PathBuf, bool)> {
    let all = root.join("sys/class/infiniband_verbs");
    let mut found = names(&all).into_iter();
    let name = found.find(|node| line(&all.join(node).join("ibdev")) == card)?;
    let path = Path::new("/dev/infiniband").join(&name);
    let real = root.join("dev/infiniband").join(&name);
    let is_open = access(&real, Access::READ_OK | Access::WRITE_OK).is_ok();
    Some((path, is_open))
}

/// Entries of a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>());
    let entries = entries.unwrap_or_default().into_iter();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A file of one line; nothing if there is none.
fn line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

/// `4: ACTIVE` without the number.
fn after_number(text: &str) -> String {
    let words = text.split_once(": ").map_or(text, |(_, words)| words);
    words.to_owned()
}

/// Whether the dynamic linker finds a library of the host: it complains on standard
/// error, and goes on without.
fn loads(soname: &str) -> bool {
    let mut command = Command::new("/bin/true");
    command
        .env_remove("LD_LIBRARY_PATH")
        .env("LD_PRELOAD", soname);
    let out = command.output();
    out.is_ok_and(|out| out.status.success() && out.stderr.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    /// What the kernel shows of rdma_rxe's rxe0 on e0.
    fn rxe(root: &Path, state: &str) {
        let card = "sys/class/infiniband/rxe0";
        write(root, &format!("{card}/node_type"), "1: CA");
        write(root, &format!("{card}/parent"), "e0");
        write(root, &format!("{card}/ports/1/state"), state);
        write(root, &format!("{card}/ports/1/link_layer"), "Ethernet");
        write(root, "sys/class/infiniband_verbs/uverbs0/ibdev", "rxe0");
        write(root, "dev/infiniband/uverbs0", "");
    }

    fn overview(devices: &[(&str, &str)]) -> Overview {
        let devices = devices.iter().map(|(name, path)| DeviceReport {
            name: (*name).into(),
            data_path: (*path).into(),
            tenants: vec!["blue".into()],
            ..Default::default()
        });
        Overview {
            devices: devices.collect(),
            ..Default::default()
        }
    }

    const SOFT: (&str, &str) = ("soft", "direct copy");
    const RXE: (&str, &str) = ("rxe0", "relay");

    #[test]
    fn a_host_without_cards_needs_none() {
        let root = tempfile::tempdir().unwrap();
        assert!(cards(root.path()).is_empty());
        let checks = judge(&[], false, Some(&overview(&[SOFT])));
        assert!(checks.iter().all(|check| check.level == Level::Ok));
        assert_eq!(checks[1].found, "soft (direct copy): blue");
    }

    #[test]
    fn a_card_is_listed_with_driver_port_interface_and_node() {
        let root = tempfile::tempdir().unwrap();
        rxe(root.path(), "4: ACTIVE");
        let found = cards(root.path());
        let check = found[0].check();
        assert_eq!(check.level, Level::Ok);
        assert_eq!(
            check.found,
            "rxe0 (software, CA), port 1 ACTIVE Ethernet on e0, /dev/infiniband/uverbs0"
        );
        // A card of hardware has a driver, and its GIDs their interface.
        let card = root.path().join("sys/class/infiniband/rxe0");
        fs::create_dir(card.join("device")).unwrap();
        let driver = "../../../../bus/pci/drivers/mlx5_core";
        std::os::unix::fs::symlink(driver, card.join("device/driver")).unwrap();
        let attrs = "sys/class/infiniband/rxe0/ports/1/gid_attrs/ndevs/0";
        write(root.path(), attrs, "eth2");
        let check = cards(root.path())[0].check();
        assert!(
            check
                .found
                .starts_with("rxe0 (mlx5_core, CA), port 1 ACTIVE Ethernet on eth2")
        );
    }

    #[test]
    fn what_keeps_masqd_from_a_card_is_said_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        rxe(root.path(), "1: DOWN");
        let check = cards(root.path())[0].check();
        assert_eq!(check.level, Level::Warn);
        assert!(check.remedy.unwrap().contains("ip link set e0 up"));
        fs::remove_file(root.path().join("dev/infiniband/uverbs0")).unwrap();
        let check = cards(root.path())[0].check();
        assert!(check.found.contains("closed to this user"), "{check:?}");
        fs::remove_dir_all(root.path().join("sys/class/infiniband_verbs")).unwrap();
        let check = cards(root.path())[0].check();
        assert!(check.remedy.unwrap().contains("modprobe ib_uverbs"));
        let found = cards(root.path());
        let checks = judge(&found, false, None);
        assert!(
            checks[1]
                .remedy
                .as_ref()
                .unwrap()
                .contains("install rdma-core")
        );
    }

    #[test]
    fn a_usable_card_that_masqd_does_not_use_is_pointed_at() {
        let root = tempfile::tempdir().unwrap();
        rxe(root.path(), "4: ACTIVE");
        let found = cards(root.path());
        let last = |has_library, devices: &[(&str, &str)]| {
            let mut checks = judge(&found, has_library, Some(&overview(devices)));
            checks.pop().unwrap()
        };
        let check = last(true, &[SOFT]);
        assert_eq!(check.level, Level::Warn);
        assert!(
            check.found.contains("the card rxe0 is not used"),
            "{check:?}"
        );
        assert!(check.remedy.unwrap().contains("--device auto"));
        assert_eq!(last(true, &[SOFT, RXE]).level, Level::Ok);
        // Nor could it.
        assert_eq!(last(false, &[SOFT]).level, Level::Ok);
    }

    #[test]
    fn a_card_in_use_needs_a_way_to_the_kernels_connection_manager() {
        let root = tempfile::tempdir().unwrap();
        rxe(root.path(), "4: ACTIVE");
        let used = overview(&[RXE]);
        let check = |used: &Overview| connection_manager(root.path(), &cards(root.path()), used);
        assert_eq!(check(&used).level, Level::Warn);
        assert_eq!(check(&used).remedy.unwrap(), "modprobe rdma_ucm");
        // Over iWARP nothing is connected without it.
        write(
            root.path(),
            "sys/class/infiniband/rxe0/node_type",
            "4: RNIC",
        );
        assert_eq!(check(&used).level, Level::Fail);
        assert!(check(&used).remedy.unwrap().contains("modprobe rdma_ucm"));
        assert_eq!(check(&overview(&[SOFT])).level, Level::Warn);
        write(root.path(), "dev/infiniband/rdma_cm", "");
        assert_eq!(check(&used).level, Level::Ok);
    }

    #[test]
    fn what_masqd_may_pin_is_a_capability_or_a_limit() {
        let limits = |most: &str| {
            format!("Max processes 1 1 processes\nMax locked memory  {most}  {most}  bytes\n")
        };
        let (none, lock) = ("CapEff:\t0000000000000000", "CapEff:\t0000000000004000");
        let level = |most, status| pinning(&limits(most), status).unwrap().level;
        assert_eq!(level("8388608", none), Level::Warn);
        assert_eq!(level("8388608", lock), Level::Ok);
        assert_eq!(level("unlimited", none), Level::Ok);
        assert!(pinning("", "").is_none());
    }

    #[test]
    fn a_card_of_masqd_that_is_gone_is_a_failure() {
        let checks = judge(&[], true, Some(&overview(&[SOFT, RXE])));
        let check = checks.last().unwrap();
        assert_eq!(check.level, Level::Fail);
        assert!(check.found.contains("the card rxe0 is gone"), "{check:?}");
    }
}
