//! Connections with plain hosts that the kernel's connection manager made: it chose this
//! side's first PSN, so a queue pair is to be set to that, not to the agent's.

use crate::host::Agreement;
use masq_cm::CommId;
use masq_verbs_abi::ibv_qp_attr;
use rustc_hash::FxHashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The conversation.
    comm: CommId,
    /// This side's queue pair, if it is known yet.
    own: Option<u32>,
    agreement: Agreement,
}

/// What was agreed, by the peer's host and queue pair.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    entries: Mutex<FxHashMap<(IpAddr, u32), Entry>>,
}

impl Agreed {
    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<(IpAddr, u32), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue pair of `host` can be in one connection only: the last counts.
    pub(super) fn insert(
        &self,
        comm: CommId,
        host: IpAddr,
        own: Option<u32>,
        agreement: Agreement,
    ) {
        let entry = Entry {
            comm,
            own,
            agreement,
        };
        self.lock().insert((host, agreement.remote_qpn), entry);
    }

    /// A conversation ended.
    pub(super) fn remove(&self, comm: CommId, host: IpAddr, remote_qpn: u32) {
        let mut entries = self.lock();
        let key = (host, remote_qpn);
        if entries.get(&key).is_some_and(|entry| entry.comm == comm) {
            entries.remove(&key);
        }
    }

    /// Corrects what queue pair `own` is set to for a connection to `host`, if the kernel
    /// made it.
    pub(crate) fn correct(&self, own: u32, host: IpAddr, wanted: &mut ibv_qp_attr) {
        let entries = self.lock();
        let entry = entries.get(&(host, wanted.dest_qp_num));
        let Some(entry) = entry.filter(|entry| entry.own.is_none_or(|qpn| qpn == own)) else {
            return;
        };
        wanted.rq_psn = entry.agreement.rq_psn & 0xff_ffff;
        let mtu = u32::from(entry.agreement.mtu);
        if mtu != 0 {
            wanted.path_mtu = wanted.path_mtu.min(mtu);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    fn agreement(remote_qpn: u32, rq_psn: u32, mtu: u8) -> Agreement {
        Agreement {
            remote_qpn,
            rq_psn,
            mtu,
            ..Agreement::default()
        }
    }

    fn wanted(dest_qp_num: u32) -> ibv_qp_attr {
        ibv_qp_attr {
            dest_qp_num,
            rq_psn: 1,
            path_mtu: 5,
            ..ibv_qp_attr::default()
        }
    }

    fn corrected(agreed: &Agreed, own: u32, host: IpAddr, dest: u32) -> (u32, u32) {
        let mut attr = wanted(dest);
        agreed.correct(own, host, &mut attr);
        (attr.rq_psn, attr.path_mtu)
    }

    #[test]
    fn only_the_queue_pair_of_the_connection_is_corrected() {
        let agreed = Agreed::default();
        agreed.insert(CommId(1), HOST, Some(17), agreement(33, 77, 3));
        assert_eq!(corrected(&agreed, 17, HOST, 33), (77, 3));
        for (own, host, dest) in [
            (18, HOST, 33),
            (17, HOST, 34),
            (17, IpAddr::from([192, 0, 2, 8]), 33),
        ] {
            assert_eq!(corrected(&agreed, own, host, dest), (1, 5));
        }
        // Asked by the peer: this side's queue pair is named with the acceptance only.
        agreed.insert(CommId(2), HOST, None, agreement(34, 78, 0));
        assert_eq!(corrected(&agreed, 99, HOST, 34), (78, 5));
    }

    #[test]
    fn a_conversation_takes_nothing_of_a_later_one_along() {
        let agreed = Agreed::default();
        agreed.insert(CommId(1), HOST, None, agreement(33, 77, 3));
        agreed.insert(CommId(2), HOST, None, agreement(33, 78, 3));
        agreed.remove(CommId(1), HOST, 33);
        assert_eq!(corrected(&agreed, 17, HOST, 33).0, 78);
        agreed.remove(CommId(2), HOST, 33);
        assert!(agreed.is_empty());
    }
}
