//! Connections with plain hosts that the kernel's connection manager made: it chose this
//! side's first PSN, so a queue pair is to be set to that, not to the agent's.

use super::pairs::Pairs;
use crate::host::Agreement;
use masq_cm::CommId;
use masq_verbs_abi::ibv_qp_attr;
use rustc_hash::FxHashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The kernel has connected the queue pair.
    Connected,
    /// The connection ended.
    Ended,
}

/// Told to whoever has the queue pair.
pub(crate) type Tell = Arc<dyn Fn(News) + Send + Sync>;

struct Entry {
    /// The conversation.
    comm: CommId,
    /// This side's queue pair, if it is known yet.
    own: Option<u32>,
    /// None of iWARP, whose queue pairs the kernel connects by itself.
    agreement: Option<Agreement>,
    is_connected: bool,
}

impl Entry {
    fn is_of(&self, own: u32) -> bool {
        self.own.is_none_or(|qpn| qpn == own)
    }
}

/// A queue pair of this side, whose owner believes in a connection.
struct Joined {
    /// The peer's host and queue pair.
    key: (IpAddr, u32),
    tell: Tell,
}

#[derive(Default)]
struct State {
    entries: FxHashMap<(IpAddr, u32), Entry>,
    /// By their numbers. The peer's number is no secret, so anybody may join it; only the
    /// one that the program names when it accepts is told.
    joined: FxHashMap<u32, Joined>,
}

impl State {
    /// Whom to tell of a connection.
    fn teller(&self, key: (IpAddr, u32), own: Option<u32>) -> Option<Tell> {
        let joined = self.joined.get(&own?)?;
        (joined.key == key).then(|| Arc::clone(&joined.tell))
    }
}

/// What was agreed, by the peer's host and queue pair.
#[derive(Default)]
pub(crate) struct Agreed {
    /// Of an iWARP card.
    pub(crate) pairs: Pairs,
    state: Mutex<State>,
}

impl Agreed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue pair of `host` can be in one connection only: the last counts.
    pub(super) fn insert(
        &self,
        comm: CommId,
        (host, remote_qpn): (IpAddr, u32),
        own: Option<u32>,
        agreement: Option<Agreement>,
    ) {
        let entry = Entry {
            comm,
            own,
            agreement,
            is_connected: false,
        };
        self.lock().entries.insert((host, remote_qpn), entry);
    }

    /// This side's queue pair was named.
    pub(super) fn name(&self, comm: CommId, host: IpAddr, remote_qpn: u32, own: u32) {
        if let Some(entry) = self.lock().entries.get_mut(&(host, remote_qpn))
            && entry.comm == comm
        {
            entry.own = Some(own);
        }
    }

    /// A conversation ended.
    pub(super) fn remove(&self, comm: CommId, host: IpAddr, remote_qpn: u32) {
        let mut state = self.lock();
        let key = (host, remote_qpn);
        let is_its = |entry: &Entry| entry.comm == comm;
        if !state.entries.get(&key).is_some_and(is_its) {
            return;
        }
        let own = state.entries.remove(&key).and_then(|entry| entry.own);
        // Of one that was never accepted whoever has joined it hears.
        let ended = state
            .joined
            .extract_if(|qpn, joined| joined.key == key && own.is_none_or(|own| own == *qpn));
        let ended: Vec<Tell> = ended.map(|(_, joined)| joined.tell).collect();
        drop(state);
        for tell in ended {
            tell(News::Ended);
        }
    }

    /// Both sides have confirmed.
    pub(super) fn established(&self, comm: CommId, host: IpAddr, remote_qpn: u32) {
        let mut state = self.lock();
        let key = (host, remote_qpn);
        let entry = state.entries.get_mut(&key);
        let own = entry.filter(|entry| entry.comm == comm).and_then(|entry| {
            entry.is_connected = true;
            entry.own
        });
        let tell = state.teller(key, own);
        drop(state);
        if let Some(tell) = tell {
            tell(News::Connected);
        }
    }

    /// Whether the kernel has connected this queue pair to one of `host`.
    pub(crate) fn has_connected(&self, own: u32) -> bool {
        let state = self.lock();
        let mut all = state.entries.values();
        all.any(|entry| entry.own == Some(own) && entry.is_connected)
    }

    /// Has somebody hear of the connection of queue pair `own`, if the kernel makes it.
    pub(crate) fn join(&self, own: u32, host: IpAddr, remote_qpn: u32, tell: Tell) -> bool {
        let mut state = self.lock();
        let key = (host, remote_qpn);
        let entry = state.entries.get(&key);
        let Some(entry) = entry.filter(|entry| entry.is_of(own)) else {
            return false;
        };
        let is_connected = entry.is_connected && entry.own == Some(own);
        let told = Arc::clone(&tell);
        state.joined.insert(own, Joined { key, tell: told });
        drop(state);
        if is_connected {
            tell(News::Connected);
        }
        true
    }

    /// Queue pair `own` is in ERROR, or about to go.
    pub(crate) fn leave(&self, own: u32) {
        self.lock().joined.remove(&own);
    }

    /// Corrects what queue pair `own` is set to for a connection to `host`, if the kernel
    /// made it.
    pub(crate) fn correct(&self, own: u32, host: IpAddr, wanted: &mut ibv_qp_attr) {
        let state = self.lock();
        let entry = state.entries.get(&(host, wanted.dest_qp_num));
        let entry = entry.filter(|entry| entry.is_of(own));
        let Some(agreement) = entry.and_then(|entry| entry.agreement) else {
            return;
        };
        wanted.rq_psn = agreement.rq_psn & 0xff_ffff;
        let mtu = u32::from(agreement.mtu);
        if mtu != 0 {
            wanted.path_mtu = wanted.path_mtu.min(mtu);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    fn agreement(rq_psn: u32, mtu: u8) -> Option<Agreement> {
        Some(Agreement {
            rq_psn,
            mtu,
            ..Agreement::default()
        })
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
        agreed.insert(CommId(1), (HOST, 33), Some(17), agreement(77, 3));
        assert_eq!(corrected(&agreed, 17, HOST, 33), (77, 3));
        for (own, host, dest) in [
            (18, HOST, 33),
            (17, HOST, 34),
            (17, IpAddr::from([192, 0, 2, 8]), 33),
        ] {
            assert_eq!(corrected(&agreed, own, host, dest), (1, 5));
        }
        // Asked by the peer: this side's queue pair is named with the acceptance only.
        agreed.insert(CommId(2), (HOST, 34), None, agreement(78, 0));
        assert_eq!(corrected(&agreed, 99, HOST, 34), (78, 5));
    }

    #[test]
    fn a_conversation_takes_nothing_of_a_later_one_along() {
        let agreed = Agreed::default();
        agreed.insert(CommId(1), (HOST, 33), None, agreement(77, 3));
        agreed.insert(CommId(2), (HOST, 33), None, agreement(78, 3));
        agreed.remove(CommId(1), HOST, 33);
        assert_eq!(corrected(&agreed, 17, HOST, 33).0, 78);
        agreed.remove(CommId(2), HOST, 33);
        assert!(agreed.is_empty());
    }

    /// Its number is no secret.
    #[test]
    fn who_joins_anothers_connection_hears_nothing_and_keeps_nothing_from_it() {
        let agreed = Agreed::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = |qpn: u32| -> Tell {
            let heard = Arc::clone(&heard);
            Arc::new(move |news| heard.lock().unwrap().push((qpn, news)))
        };
        let news = || std::mem::take(&mut *heard.lock().unwrap());
        agreed.insert(CommId(1), (HOST, 33), None, None);
        assert!(agreed.join(17, HOST, 33, tell(17)));
        assert!(agreed.join(66, HOST, 33, tell(66)));
        agreed.name(CommId(1), HOST, 33, 17);
        agreed.established(CommId(1), HOST, 33);
        assert_eq!(news(), [(17, News::Connected)]);
        assert!(!agreed.join(66, HOST, 33, tell(66)));
        agreed.remove(CommId(1), HOST, 33);
        assert_eq!(news(), [(17, News::Ended)]);
        agreed.leave(66);
        assert!(agreed.lock().joined.is_empty());
        // One that is not accepted ends for all who wait for it.
        agreed.insert(CommId(2), (HOST, 34), None, None);
        assert!(agreed.join(17, HOST, 34, tell(17)));
        agreed.remove(CommId(2), HOST, 34);
        assert_eq!(news(), [(17, News::Ended)]);
        // One that has left hears no more.
        agreed.insert(CommId(3), (HOST, 35), Some(17), None);
        assert!(agreed.join(17, HOST, 35, tell(17)));
        agreed.leave(17);
        agreed.established(CommId(3), HOST, 35);
        assert_eq!(news(), []);
    }

    #[test]
    fn who_has_the_queue_pair_hears_of_its_connection_once_it_is_made() {
        let agreed = Agreed::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = |heard: &Arc<Mutex<Vec<News>>>| -> Tell {
            let heard = Arc::clone(heard);
            Arc::new(move |news| heard.lock().unwrap().push(news))
        };
        let news = || std::mem::take(&mut *heard.lock().unwrap());
        assert!(!agreed.join(17, HOST, 33, tell(&heard)));
        // The program's queue pair is in RTS before it accepts.
        agreed.insert(CommId(1), (HOST, 33), None, None);
        assert!(agreed.join(17, HOST, 33, tell(&heard)));
        assert_eq!(news(), []);
        agreed.name(CommId(1), HOST, 33, 17);
        agreed.established(CommId(1), HOST, 33);
        assert_eq!(news(), [News::Connected]);
        assert!(agreed.has_connected(17));
        agreed.remove(CommId(1), HOST, 33);
        assert_eq!(news(), [News::Ended]);
        // The kernel was first.
        agreed.insert(CommId(2), (HOST, 34), Some(17), None);
        agreed.established(CommId(2), HOST, 34);
        assert!(agreed.has_connected(17) && !agreed.has_connected(18));
        assert!(!agreed.join(18, HOST, 34, tell(&heard)));
        assert!(agreed.join(17, HOST, 34, tell(&heard)));
        assert_eq!(news(), [News::Connected]);
    }
}
