//! The way to other hosts, as the control side sees it.

use crate::engine::{Engine, Inbox};
use masq_datapath::DataPath;
use masq_device::{Arrival, DeviceError, MAD_LEN, Network, Result, Sender, SenderKey, WireReport};
use masq_wire::{Mtu, PKey};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The network of a [`SoftDevice`](crate::SoftDevice): its data-path threads
/// have a port each, and share what is for the control side.
pub(crate) struct SoftNetwork {
    pub(crate) paths: Vec<Arc<DataPath<Engine>>>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) host: IpAddr,
    pub(crate) mtu: Mtu,
}

impl Network for SoftNetwork {
    fn host(&self) -> IpAddr {
        self.host
    }

    fn mtu(&self) -> Mtu {
        self.mtu
    }

    fn send(&self, to: IpAddr, partition: PKey, mad: &[u8; MAD_LEN]) -> Result<()> {
        let path = self.paths.first().ok_or(DeviceError::Gone)?;
        let mad = Box::new(*mad);
        match path.call(move |engine| engine.send_management(to, partition, &mad))? {
            true => Ok(()),
            false => Err(DeviceError::Exhausted("room for packets")),
        }
    }

    fn receive(&self) -> Option<Arrival> {
        self.inbox.pop()
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.inbox.descriptor()
    }

    fn learn(&self, sender: SenderKey, who: Option<Sender>) {
        for path in &self.paths {
            let who = who.clone();
            let _ = path.call(move |engine| engine.learn(sender, who));
        }
    }

    fn forget_senders(&self) {
        for path in &self.paths {
            let _ = path.call(|engine| engine.forget_senders());
        }
    }

    fn set_strangers(&self, hosts: Vec<IpAddr>) {
        for path in &self.paths {
            let hosts = hosts.clone();
            let _ = path.call(move |engine| engine.set_strangers(&hosts));
        }
    }

    fn report(&self) -> WireReport {
        let mut sum = WireReport::default();
        for path in &self.paths {
            if let Ok(Some(report)) = path.call(|engine| engine.wire_report()) {
                sum.add(&report);
            }
        }
        sum
    }
}
