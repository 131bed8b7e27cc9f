//! A connected queue pair whose peer is on another host.

use super::fetch::Fetch;
use super::pending::{Backlog, Pending};
use crate::engine::objects::{Current, Qp, Receive};
use masq_connected::{Payload, Requester, RequesterConfig, Responder, ResponderConfig};
use masq_device::QpCounters;
use masq_port::Path;
use masq_spec::verbs::{Access, AhAttr, QpAttr, QpType, State};
use masq_transport::Nanos;
use masq_wire::{Ecn, Mtu, PKey, Psn, Qpn, TrafficClass};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Requests that are taken off the send queue before the oldest is complete.
const DEPTH: usize = 128;
/// Packets under way, at first and at most.
const WINDOW: (u32, u32) = (32, 512);
const HOP_LIMIT: u8 = 64;

/// The two halves of the connection, and what they work on.
pub(crate) struct Link {
    pub(super) path: Path,
    pub(super) partition: PKey,
    /// From RTS on.
    pub(super) requester: Option<Requester>,
    pub(super) responder: Responder,
    /// Requests that the requester holds, in order, and the name of the first.
    pub(super) posted: VecDeque<Box<Current>>,
    pub(super) first: u64,
    /// Kept to be filled again.
    #[allow(clippy::vec_box)] // moved in and out of `posted` as they are
    pub(super) spare: Vec<Box<Current>>,
    /// The receive of the message that is arriving.
    pub(super) receive: Receive,
    /// Packets of requests, and of answers, that wait for bytes.
    pub(super) requests: Fetch,
    pub(super) answers: Fetch,
    /// A packet that a helper is at; those behind it wait.
    pub(super) pending: Option<Pending>,
    pub(super) backlog: Backlog,
    /// Bytes beyond its last turn's, which the next pays for.
    pub(super) overdrawn: u64,
    /// The timer that is set: its serial, and when it fires.
    pub(super) timer: Option<(u64, Nanos)>,
    /// No new requests are taken: it is in ERROR, or UC's SQE.
    pub(super) ended: bool,
}

/// How packets travel to a host, by the address vector.
pub(in crate::engine) fn path_to(to: IpAddr, ah: &AhAttr) -> Path {
    Path {
        to,
        traffic_class: TrafficClass(ah.traffic_class),
        hop_limit: match ah.hop_limit {
            // What verbs programs leave at 0 or 1 for a network of one hop.
            0 | 1 => HOP_LIMIT,
            hops => hops,
        },
    }
}

/// The same for a connection, which reacts to marks of congestion (RFC 3168).
fn connected_path(to: IpAddr, ah: &AhAttr) -> Path {
    let path = path_to(to, ah);
    Path {
        traffic_class: TrafficClass::new(path.traffic_class.dscp(), Ecn::Capable0),
        ..path
    }
}

impl Link {
    /// A queue pair's link in RTR.
    pub(crate) fn new(qp: &Qp, host: IpAddr, partition: PKey) -> Self {
        let attr = &qp.attr;
        Self {
            path: connected_path(host, &attr.ah),
            partition,
            requester: None,
            responder: Responder::new(ResponderConfig {
                qp_type: qp.qp_type,
                dest_qpn: Qpn::new(attr.dest_qp_num),
                psn: Psn::new(attr.rq_psn),
                mtu: mtu(attr),
                max_dest_rd_atomic: attr.max_dest_rd_atomic,
                min_rnr_timer: attr.min_rnr_timer,
                access: Access::from_bits_truncate(attr.qp_access_flags),
            }),
            posted: VecDeque::new(),
            first: 0,
            spare: Vec::new(),
            receive: Receive::default(),
            requests: Fetch::default(),
            answers: Fetch::default(),
            pending: None,
            backlog: Backlog::default(),
            overdrawn: 0,
            timer: None,
            ended: false,
        }
    }

    /// A modify has changed attributes, or the state.
    pub(crate) fn modified(&mut self, qp_type: QpType, attr: &QpAttr, state: State) {
        let access = Access::from_bits_truncate(attr.qp_access_flags);
        self.responder
            .set_attributes(access, attr.min_rnr_timer, attr.max_dest_rd_atomic);
        self.path = connected_path(self.path.to, &attr.ah);
        match &mut self.requester {
            Some(requester) if !self.ended => {
                requester.set_attributes(
                    attr.timeout,
                    attr.retry_cnt,
                    attr.rnr_retry,
                    attr.max_rd_atomic,
                );
                requester.set_draining(state == State::Sqd);
            }
            // From RTR, or UC from SQE: the numbers go on.
            old if state == State::Rts => {
                let psn = match old {
                    Some(old) => old.next_psn(),
                    None => Psn::new(attr.sq_psn),
                };
                self.requester = Some(requester(qp_type, attr, psn));
                self.ended = false;
            }
            _ => {}
        }
    }

    /// The peer is reached on another path (SQD).
    pub(crate) fn moved_to(&mut self, host: IpAddr, attr: &QpAttr) {
        self.path = connected_path(host, &attr.ah);
    }

    /// The queue pair went to ERROR: what is not complete is to be flushed.
    pub(crate) fn end(&mut self) {
        if let Some(requester) = &mut self.requester {
            requester.flush();
        }
        // A refusal that it has made stays, to be repeated.
        self.responder.flush();
        self.ended = true;
        self.requests = Fetch::default();
    }

    /// Requests that are off the ring, in the order of their slots.
    pub(super) fn room(&self) -> bool {
        self.posted.len() < DEPTH
    }

    /// A cleared place for the next request.
    pub(super) fn take_spare(&mut self) -> Box<Current> {
        self.spare.pop().unwrap_or_else(Current::boxed)
    }

    /// A request by its name.
    pub(super) fn request(&self, id: u64) -> Option<&Current> {
        let at = id.checked_sub(self.first)?;
        self.posted
            .get(usize::try_from(at).ok()?)
            .map(|boxed| &**boxed)
    }

    /// Whether a packet of the oldest request waits to be written.
    pub(super) fn first_waits(&self) -> bool {
        let payload = self.requests.waiting.as_ref().map(|packet| packet.payload);
        matches!(payload, Some(Payload::Request { id, .. }) if id == self.first)
    }

    /// Whether timer `serial` is its own.
    pub(crate) fn has_timer(&self, serial: u64) -> bool {
        self.timer.is_some_and(|(own, _)| own == serial)
    }

    /// Its timer fired.
    pub(crate) fn timer_fired(&mut self, serial: u64) -> bool {
        let fired = self.has_timer(serial);
        if fired {
            self.timer = None;
        }
        fired
    }

    /// Fills in what a query tells of it.
    pub(crate) fn report(&self, attr: &mut QpAttr, counters: &mut QpCounters) {
        attr.rq_psn = self.responder.expected_psn().get();
        if let Some(requester) = &self.requester {
            attr.sq_psn = requester.next_psn().get();
            let own = requester.counters();
            counters.rnr_waits += own.rnr_waits;
            counters.retries += own.losses + own.silences;
        }
    }
}

pub(in crate::engine) fn mtu(attr: &QpAttr) -> Mtu {
    u8::try_from(attr.path_mtu)
        .ok()
        .and_then(Mtu::from_code)
        .unwrap_or(Mtu::B1024)
}

fn requester(qp_type: QpType, attr: &QpAttr, psn: Psn) -> Requester {
    Requester::new(RequesterConfig {
        qp_type,
        dest_qpn: Qpn::new(attr.dest_qp_num),
        psn,
        mtu: mtu(attr),
        max_rd_atomic: attr.max_rd_atomic,
        timeout: attr.timeout,
        retry_cnt: attr.retry_cnt,
        rnr_retry: attr.rnr_retry,
        depth: DEPTH,
        window: WINDOW,
    })
}
