//! What several hosts need: this one's address, room in its packets, the port, the
//! directory.

use super::{Check, read};
use crate::ps;
use masq_admin::{DirectoryReport, HostsReport};
use nix::ifaddrs::getifaddrs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

/// The port of RoCEv2.
const PORT: u16 = 4791;
/// Bytes around a payload: IPv6, UDP, BTH, the longest further headers, ICRC.
const AROUND: u32 = 40 + 8 + 12 + 28 + 4;

pub(super) fn checks(run_dir: &Path) -> Vec<Check> {
    let overview = ps::overview(run_dir).unwrap_or_default();
    let mut devices = overview.devices.iter();
    let card = devices.any(|d| d.reaches_hosts && d.data_path == "relay");
    let hosts = overview.hosts;
    let this = hosts.as_ref().and_then(|hosts| hosts.this);
    let Some((hosts, this)) = hosts.zip(this) else {
        return vec![alone()];
    };
    vec![
        address(&hosts, this, interface(this).as_ref()),
        match card {
            true => Check::ok(
                "UDP port 4791",
                "left to the card that has this host's address",
            ),
            false => port(this, true),
        },
        directory(&hosts),
    ]
}

/// Without a masqd that is one of several, only the port can be looked at.
fn alone() -> Check {
    match port(Ipv4Addr::UNSPECIFIED.into(), false) {
        check if check.remedy.is_some() => check,
        _ => Check::ok(
            "other hosts",
            "none; masqd --host makes this one of several",
        ),
    }
}

/// The interface that has an address, and its MTU.
fn interface(address: IpAddr) -> Option<(String, u32)> {
    let has = |found: &nix::ifaddrs::InterfaceAddress| {
        let found = found.address.as_ref();
        let v4 = found
            .and_then(|a| a.as_sockaddr_in())
            .map(|a| IpAddr::V4(a.ip()));
        let v6 = found
            .and_then(|a| a.as_sockaddr_in6())
            .map(|a| IpAddr::V6(a.ip()));
        v4.or(v6) == Some(address)
    };
    let name = getifaddrs().ok()?.find(has)?.interface_name;
    let mtu = read(&format!("/sys/class/net/{name}/mtu"))?.parse().ok()?;
    Some((name, mtu))
}

fn address(hosts: &HostsReport, this: IpAddr, interface: Option<&(String, u32)>) -> Check {
    const NAME: &str = "this host";
    let call = hosts.call(this);
    let Some((interface, mtu)) = interface else {
        return Check::fail(
            NAME,
            format!("{call}, which is on no interface"),
            "give an interface the address, or correct it under `hosts` of the policy",
        );
    };
    let path_mtu = [4096, 2048, 1024, 512, 256]
        .into_iter()
        .find(|payload| payload + AROUND <= *mtu);
    let found = format!("{call} on {interface}, MTU {mtu}");
    match path_mtu {
        Some(path_mtu) => Check::ok(NAME, format!("{found}: path MTU {path_mtu}")),
        None => Check::fail(
            NAME,
            format!("{found}: too small for RoCE"),
            "raise the MTU of the interface: 1500 carries 1024 bytes a packet, 4200 carries 4096",
        ),
    }
}

fn port(address: IpAddr, masqd_uses_it: bool) -> Check {
    const NAME: &str = "UDP port 4791";
    let soft_roce = read("/proc/modules").is_some_and(|m| m.contains("rdma_rxe"));
    match UdpSocket::bind(SocketAddr::new(address, PORT)) {
        Ok(_) => Check::ok(NAME, "free"),
        Err(error) if error.kind() == ErrorKind::AddrInUse && soft_roce => Check::fail(
            NAME,
            "in use, and rdma_rxe is loaded",
            "rdma_rxe takes the packets of all addresses of the host: use it (masqd --device \
             verbs:rxe0; `rdma link show` names it), or modprobe -r rdma_rxe",
        ),
        Err(error) if error.kind() == ErrorKind::AddrInUse && masqd_uses_it => {
            Check::ok(NAME, "in use, as it is while masqd runs")
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => Check::warn(
            NAME,
            "in use",
            "RoCEv2 knows no other port; `ss -ulnp sport = 4791` says who has it",
        ),
        Err(error) => Check::warn(NAME, error.to_string(), "masqd could not open it either"),
    }
}

fn directory(hosts: &HostsReport) -> Check {
    const NAME: &str = "directory";
    let DirectoryReport {
        kind,
        place,
        away_seconds,
        error,
        entries,
        conflicts,
        ignored,
        ..
    } = &hosts.directory;
    if kind == "embedded" {
        return Check::ok(NAME, "the policy");
    }
    if let Some(seconds) = away_seconds {
        let error = error.as_deref().unwrap_or("no answer");
        return Check::fail(
            NAME,
            format!("{place} is away for {seconds} s: {error}"),
            "what was known then goes on counting; other hosts forget this one meanwhile",
        );
    }
    let found = format!("{place}, {entries} addresses of other hosts");
    if conflicts.is_empty() && ignored.is_empty() {
        return Check::ok(NAME, found);
    }
    let (conflicts, ignored) = (conflicts.len(), ignored.len());
    Check::warn(
        NAME,
        format!("{found}, {conflicts} conflicts, {ignored} ignored"),
        "`masq hosts` says which and why",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn hosts(directory: DirectoryReport) -> HostsReport {
        HostsReport {
            directory,
            ..Default::default()
        }
    }

    #[test]
    fn the_interface_of_an_address_is_found() {
        let (name, mtu) = interface(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert_eq!(name, "lo");
        assert!(mtu >= 1500);
        assert_eq!(interface("192.0.2.77".parse().unwrap()), None);
    }

    #[test]
    fn an_address_that_is_nowhere_and_a_small_mtu_are_failures() {
        let this = "192.0.2.1".parse().unwrap();
        let judge = |interface: Option<(&str, u32)>| {
            let interface = interface.map(|(name, mtu)| (name.to_owned(), mtu));
            address(&hosts(DirectoryReport::default()), this, interface.as_ref())
        };
        assert_eq!(judge(None).level, Level::Fail);
        assert_eq!(judge(Some(("eth0", 300))).level, Level::Fail);
        for (mtu, path_mtu) in [(1280, 1024), (1500, 1024), (4200, 4096), (9000, 4096)] {
            let check = judge(Some(("eth0", mtu)));
            let end = format!("path MTU {path_mtu}");
            assert!(check.found.ends_with(&end), "{}", check.found);
        }
    }

    #[test]
    fn a_directory_that_is_away_is_a_failure_and_a_conflict_a_warning() {
        let etcd = DirectoryReport {
            kind: "etcd".into(),
            ..Default::default()
        };
        assert_eq!(directory(&hosts(etcd.clone())).level, Level::Ok);
        let away = DirectoryReport {
            away_seconds: Some(3),
            ..etcd.clone()
        };
        assert_eq!(directory(&hosts(away)).level, Level::Fail);
        let conflict = masq_admin::ConflictReport {
            endpoint: "t/a".into(),
            address: Ipv4Addr::LOCALHOST.into(),
            host: Ipv4Addr::LOCALHOST.into(),
            holder: "t/b".into(),
        };
        let conflict = DirectoryReport {
            conflicts: vec![conflict],
            ..etcd
        };
        assert_eq!(directory(&hosts(conflict)).level, Level::Warn);
    }

    #[test]
    fn a_port_that_somebody_has_is_noticed() {
        // Another test may have it at the moment, which is what this one is about.
        let _held = UdpSocket::bind(("127.0.0.93", PORT));
        let check = port("127.0.0.93".parse().unwrap(), false);
        assert_ne!(check.level, Level::Ok);
        let check = port("192.0.2.77".parse().unwrap(), true);
        assert_eq!(check.level, Level::Warn);
    }
}
