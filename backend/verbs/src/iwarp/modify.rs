//! MODIFY_QP of an iWARP card's queue pairs.

use super::connector::{Connector, Member};
use super::place::Placement;
use super::table::{Depths, End, Own};
use super::words::Nonce;
use crate::attr::to_card;
use crate::bridge::{News, Tell};
use crate::host::{Qp, Ticket, refused};
use crate::session::VerbsSession;
use masq_device::{Destination, DeviceError, Handle, QpChange, Result};
use masq_spec::verbs::{QpAttr, QpMask, State};
use masq_verbs_abi::{IBV_QP_ACCESS_FLAGS, IBV_QP_STATE};
use std::sync::Arc;

/// READs under way if a queue pair is connected before it is in RTS, where the
/// program says how many.
const ASKED: u8 = 16;

const CHANGE: &str = "this change of the queue pair";

impl VerbsSession {
    /// A change that the state machine of a queue pair allows, from `now` to `to`.
    pub(crate) fn modify_iwarp(
        &mut self,
        qp: Handle,
        change: &QpChange,
        host: &Arc<Qp>,
        (now, to): (State, State),
    ) -> Result<State> {
        let (mask, attr) = (change.mask, change.attr);
        let wanted = to_card(&self.card, mask, &attr, None)?;
        let fails = |error| refused(CHANGE, &error);
        let connector = self.connector.clone();
        let qpn = host.qpn();
        match to {
            State::Reset => {
                let left = |c: Arc<Connector>| c.leave_unused(qpn);
                let joined = self.joined.contains(&qpn);
                if now == State::Err || joined && !connector.is_some_and(left) {
                    return Err(DeviceError::Unsupported(
                        "a second connection of a queue pair: an iWARP card's is used once",
                    ));
                }
                self.joined.remove(&qpn);
                self.call(move |relay, s| relay.begin_reset(s, qp))?;
                host.modify(wanted, mask.bits()).map_err(fails)?;
            }
            // librdmacm says so once more when the kernel has connected it to a plain host.
            State::Init if self.agreed.has_connected(qpn) => {
                if mask.contains(QpMask::ACCESS_FLAGS) {
                    host.modify(wanted, IBV_QP_ACCESS_FLAGS).map_err(fails)?;
                }
            }
            State::Init => host.modify(wanted, mask.bits()).map_err(fails)?,
            State::Rtr | State::Rts => {
                let connector = connector.ok_or(DeviceError::Unsupported(
                    "connecting over an iWARP card without the host's connection manager",
                ))?;
                if mask.contains(QpMask::ACCESS_FLAGS) {
                    host.modify(wanted, IBV_QP_ACCESS_FLAGS).map_err(fails)?;
                }
                if to == State::Rtr {
                    return self.join(qp, change, host, &connector);
                }
                if mask.contains(QpMask::MAX_QP_RD_ATOMIC) {
                    connector.set_asked(qpn, attr.max_rd_atomic);
                }
            }
            // What librdmacm does to an RNIC's to disconnect: the card closes the
            // connection, whose end then moves the queue pair to ERROR.
            State::Sqd
                if connector.is_some_and(|c| c.is_connected(qpn))
                    || self.agreed.has_connected(qpn) =>
            {
                // Told first, so that the end is known to be the program's own.
                self.call(move |relay, s| relay.modified(s, qp, mask, &attr, to))?;
                host.modify(wanted, IBV_QP_STATE).map_err(fails)?;
                return Ok(to);
            }
            State::Sqd | State::Sqe => {
                let attr = QpAttr {
                    qp_state: State::Err as u32,
                    ..attr
                };
                let attr = to_card(&self.card, QpMask::STATE, &attr, None)?;
                host.modify(attr, IBV_QP_STATE).map_err(fails)?;
                self.leave(qpn);
                let asked = change.attr;
                self.call(move |relay, s| relay.modified(s, qp, mask, &asked, State::Err))?;
                return Ok(State::Err);
            }
            State::Err => {
                host.modify(wanted, mask.bits()).map_err(fails)?;
                self.leave(qpn);
            }
        }
        self.call(move |relay, s| relay.modified(s, qp, mask, &attr, to))?;
        Ok(to)
    }

    /// To RTR.
    fn join(
        &mut self,
        qp: Handle,
        change: &QpChange,
        host: &Arc<Qp>,
        connector: &Connector,
    ) -> Result<State> {
        let (mask, attr, qpn) = (change.mask, change.attr, host.qpn());
        let peer = attr.dest_qp_num & 0xff_ffff;
        let there = match change.destination {
            Some(Destination::Endpoint(endpoint)) => {
                self.check_destination(Destination::Endpoint(endpoint), Some(peer))?;
                connector.host()
            }
            Some(Destination::Host(there)) => there,
            _ => return Err(DeviceError::Unsupported("multicast over a card")),
        };
        let peer = End {
            host: there,
            qpn: peer,
        };
        if (connector.host(), qpn) == (peer.host, peer.qpn) {
            return Err(DeviceError::Unsupported(
                "a queue pair connected to itself over an iWARP card",
            ));
        }
        let own = Own {
            qpn,
            place: self.place.unwrap_or_default(),
            nonce: Nonce::draw().map_err(|_| DeviceError::Exhausted("randomness"))?,
        };
        let path = self.path_number();
        let ticket = self.call(move |relay, s| {
            relay.modified(s, qp, mask, &attr, State::Rtr)?;
            relay.ticket_of(s, qp)
        })?;
        if self.agreed.join(qpn, there, peer.qpn, self.teller(ticket)) {
            self.joined.insert(qpn);
            return Ok(State::Rtr);
        }
        let member = Member {
            qp: Arc::clone(host),
            ticket,
            path,
        };
        let depths = Depths {
            asked: ASKED,
            served: attr.max_dest_rd_atomic,
        };
        self.joined.insert(qpn);
        connector.join(own, member, peer, depths);
        Ok(State::Rtr)
    }

    /// Tells the data path of a connection with a plain host, which the kernel makes at
    /// the agent's word.
    fn teller(&self, ticket: Ticket) -> Tell {
        let path = self.data_path();
        Arc::new(move |news| {
            let _ = path.call(move |relay| match news {
                News::Connected => relay.connected(ticket, Placement::default()),
                News::Ended => relay.disconnected(ticket, "the plain host, or the program"),
            });
        })
    }

    /// The card's queue pair of this number is in ERROR, or about to go.
    pub(crate) fn leave(&mut self, qpn: u32) {
        self.agreed.leave(qpn);
        if let Some(connector) = &self.connector {
            connector.leave(qpn);
        }
    }

    /// All of them are about to go.
    pub(crate) fn leave_all(&mut self) {
        for qpn in std::mem::take(&mut self.joined) {
            self.leave(qpn);
        }
    }
}
