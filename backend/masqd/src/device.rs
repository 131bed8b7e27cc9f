//! What carries the data: the software NIC, cards, or some of each.

mod arrange;

use crate::args::{Args, PortKind};
use crate::run::Underlay;
use anyhow::{Context, Result, bail};
use arrange::{Maker, Unusable, arrange};
use masq_control::Devices;
use masq_datapath::DataPathConfig;
use masq_device::Device;
use masq_port::{Port, PortError};
use masq_soft::SoftDevice;
use masq_verbs::{CardError, VerbsDevice};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Starts the devices that `--device` names, in that order.
pub(crate) fn start(
    args: &Args,
    config: &DataPathConfig,
    underlay: Option<&Underlay>,
) -> Result<Devices> {
    let mut maker = ThisHost { config, underlay };
    let mut started = arrange(&args.device, &mut maker)?.into_iter();
    let Some(first) = started.next() else {
        bail!("--device: expected at least one");
    };
    let mut devices = Devices::new(first);
    for device in started {
        devices.add(device).context("--device")?;
    }
    Ok(devices)
}

/// Makes devices of what this host has.
struct ThisHost<'a> {
    config: &'a DataPathConfig,
    underlay: Option<&'a Underlay>,
}

impl Maker for ThisHost<'_> {
    type Device = Arc<dyn Device>;

    fn cards(&self) -> Result<Vec<String>> {
        Ok(masq_verbs::cards()?)
    }

    fn has_other_hosts(&self) -> bool {
        self.underlay.is_some()
    }

    fn card(&mut self, name: &str, other_hosts: bool) -> Result<(Self::Device, bool), Unusable> {
        let host = self.underlay.map(|underlay| underlay.host.address);
        let host = host.filter(|_| other_hosts);
        let device = VerbsDevice::start(name, self.config, host).map_err(|error| match error {
            CardError::NoGid { .. } => Unusable::NotOfThisAddress(error.into()),
            error => Unusable::Otherwise(error.into()),
        })?;
        let card = device.info();
        let address = card.address.map(|address| address.to_string());
        tracing::info!(
            card = card.name,
            port = card.port,
            link = card.link,
            address,
            other_hosts = host.is_some(),
            "an RDMA card carries data"
        );
        let takes_packets = card.link == "RoCEv2";
        Ok((Arc::new(device), takes_packets))
    }

    fn soft(&mut self, other_hosts: bool) -> Result<Self::Device> {
        let underlay = self.underlay.filter(|_| other_hosts);
        let device = SoftDevice::start(self.config, ports(underlay, self.config.threads)?);
        Ok(Arc::new(device.context("start the data-path threads")?))
    }
}

/// The ports of the data-path threads; none if this host is the only one.
fn ports(underlay: Option<&Underlay>, threads: usize) -> Result<Vec<Box<dyn Port>>> {
    let Some(Underlay { host, port }) = underlay else {
        return Ok(Vec::new());
    };
    let config = masq_port::Config {
        threads: threads.max(1),
        ..masq_port::Config::new(host.address)
    };
    let kind = match port {
        PortKind::Udp => masq_port::PortKind::Udp,
        PortKind::Raw => masq_port::PortKind::Raw,
    };
    // Also there if it is part of the kernel.
    let has_rxe = Path::new("/sys/module/rdma_rxe").exists();
    masq_port::open(kind, &config).map_err(|error| explained(error, host.address, has_rxe))
}

/// What to do if somebody else has RoCEv2's port.
fn explained(error: PortError, host: IpAddr, has_rxe: bool) -> anyhow::Error {
    let in_use = matches!(
        &error,
        PortError::System { source, .. } if source.kind() == io::ErrorKind::AddrInUse
    );
    let error = anyhow::Error::new(error);
    match (in_use, has_rxe) {
        (false, _) => error.context("--port"),
        (true, true) => error.context(format!(
            "UDP port 4791 of {host} is in use: this kernel has rdma_rxe, which holds it in the \
             first network namespace\n  \
             use the kernel's device (`rdma link show` names it): --device verbs:rxe0; or give \
             the port back: modprobe -r rdma_rxe"
        )),
        (true, false) => error.context(format!(
            "UDP port 4791 of {host} is in use, and RoCEv2 knows no other\n  \
             stop what has it: `ss -ulnp sport = 4791` says who"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: io::ErrorKind, has_rxe: bool) -> String {
        let error = PortError::System {
            doing: "bind UDP port 4791",
            source: kind.into(),
        };
        let host = IpAddr::from([192, 0, 2, 1]);
        format!("{:#}", explained(error, host, has_rxe))
    }

    #[test]
    fn a_port_that_rdma_rxe_holds_is_said_with_the_remedy() {
        let text = of(io::ErrorKind::AddrInUse, true);
        for part in [
            "UDP port 4791 of 192.0.2.1 is in use",
            "rdma_rxe",
            "--device verbs:rxe0",
            "modprobe -r",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let text = of(io::ErrorKind::AddrInUse, false);
        assert!(text.contains("ss -ulnp") && !text.contains("rxe"), "{text}");
        let text = of(io::ErrorKind::PermissionDenied, true);
        assert!(text.starts_with("--port: cannot bind"), "{text}");
        assert!(!text.contains("rxe"), "{text}");
    }
}
