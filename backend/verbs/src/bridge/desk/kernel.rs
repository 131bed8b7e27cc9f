//! What the kernel tells of plain hosts.

use super::super::translate::{Asking, Names};
use super::turns::Job;
use super::{AGAIN, Desk, FAREWELL, MOST, MOST_REQUESTS, Manager, PATIENCE, State, Talk, drep};
use crate::host::{Agreement, Parameters, Told};
use masq_cm::{CommId, Event, Message, PortSpace, Private, Rtu, SidrStatus};
use masq_device::PublishedService;
use masq_wire::PKey;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Instant;

impl<M: Manager> Desk<M> {
    /// Something happened to an id of the kernel.
    pub(in crate::bridge) fn on_event(&mut self, now: Instant, told: Told) {
        if told.event == Event::ConnectRequest {
            return self.on_request(now, &told);
        }
        if told.event == Event::DeviceRemoval
            && let Some(listener) = self.listeners.values_mut().find(|l| l.id == Some(told.id))
        {
            self.manager.destroy(told.id);
            listener.id = None;
            listener.try_again = Some(now + AGAIN);
            return;
        }
        let Some(&comm) = self.by_id.get(&told.id) else {
            return;
        };
        let Some((state, datagram)) = self.talks.get(&comm).map(|t| (t.state, t.datagram)) else {
            return;
        };
        match (told.event, state) {
            (Event::AddressResolved, State::Asking) => self.resolve_route(comm, told.id),
            (Event::RouteResolved, State::Asking) => self.connect(comm, told.id),
            (Event::ConnectResponse, State::Calling) => self.accepted(now, comm, &told),
            // A datagram service was named; or iWARP, which confirms by itself.
            (Event::Established, State::Calling) if datagram => {
                self.named(comm, SidrStatus::VALID, &told.parameters);
            }
            (Event::Established, State::Calling) => self.accepted(now, comm, &told),
            (Event::Established, State::Accepted) => {
                self.go_on(now, comm, State::Established, None);
                self.established(comm);
                let rtu = |names: Names| {
                    Message::Rtu(Rtu {
                        local_comm: names.local,
                        remote_comm: names.remote,
                        private: Private::EMPTY,
                    })
                };
                self.tell(comm, rtu);
            }
            (Event::Unreachable, State::Calling) if datagram && told.status > 0 => {
                let status = SidrStatus(told.status.min(255) as u8);
                self.named(comm, status, &told.parameters);
            }
            (
                Event::AddressError | Event::RouteError | Event::ConnectError | Event::Unreachable,
                State::Asking | State::Calling | State::Accepted,
            ) => self.lost(comm),
            (Event::Rejected | Event::ConnectError | Event::Unreachable, state) => match state {
                State::Asking
                | State::Calling
                | State::Asked
                | State::Accepted
                | State::Answered => {
                    self.refused(comm, told.status, &told.parameters);
                }
                _ => self.left(now, comm),
            },
            (Event::Disconnected, State::Leaving) => {
                // Otherwise the agent waits as long as the kernel did, for nothing.
                if told.status != -libc::ETIMEDOUT {
                    self.tell(comm, drep);
                }
                self.end(comm);
            }
            (Event::Disconnected, _) => self.left(now, comm),
            (Event::DeviceRemoval, State::Asking | State::Calling) => self.lost(comm),
            (Event::DeviceRemoval, _) => {
                self.left(now, comm);
                self.end(comm);
            }
            _ => {}
        }
    }

    /// A plain host asks for a service.
    fn on_request(&mut self, now: Instant, told: &Told) {
        let id = told.id;
        let (Some(listener), Ok(peer)) = (told.service, self.manager.peer(id)) else {
            return self.manager.destroy(id);
        };
        let host = peer.ip();
        let of_listener = |s: &&PublishedService| {
            PortSpace::from_raw(s.port_space) == Some(listener.0) && s.port == listener.1
        };
        let mut services = self.services.iter().filter(of_listener);
        let service = services.find(|service| service.hosts.contains(&host));
        let waiting = self.asked.get(&host).copied().unwrap_or_default();
        let counter = match service {
            None => &self.counters.unknown_host,
            Some(_) if waiting >= MOST_REQUESTS || self.talks.len() >= MOST => {
                &self.counters.too_many
            }
            Some(service) => {
                let partition = service.partition;
                return self.take_on(now, listener, peer, partition, told);
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let _ = self.manager.reject(id, b"masq: not served");
        self.manager.destroy(id);
    }

    fn take_on(
        &mut self,
        now: Instant,
        (space, port): (PortSpace, u16),
        peer: SocketAddr,
        partition: PKey,
        told: &Told,
    ) {
        let datagram = space == PortSpace::Udp;
        let mut talk = Talk {
            id: told.id,
            host: peer.ip(),
            partition,
            agent: CommId(0),
            datagram,
            state: State::Asked,
            remote_qpn: 0,
            pair: None,
            said: None,
            told: None,
            deadline: Some(now + PATIENCE),
        };
        let asking = Asking {
            comm: self.new_comm(),
            peer,
            host: self.host,
            space,
            port,
        };
        let message = if datagram {
            asking.sidr_req(&told.parameters)
        } else {
            let Ok(agreed) = self.manager.agreement(told.id) else {
                return self.manager.destroy(told.id);
            };
            talk.remote_qpn = self.agree(asking.comm, peer.ip(), None, &agreed);
            asking.req(&told.parameters, &agreed, talk.remote_qpn)
        };
        *self.asked.entry(talk.host).or_default() += 1;
        let host = talk.host;
        self.insert_as(asking.comm, talk);
        self.hear(host, partition, message);
    }

    /// Notes what a queue pair is to be set to; the number by which the agent knows the
    /// host's queue pair. iWARP has neither.
    fn agree(&self, comm: CommId, host: IpAddr, own: Option<u32>, agreed: &Agreement) -> u32 {
        let (qpn, agreement) = match agreed.remote_qpn {
            0 => (comm.0 & 0xff_ffff, None),
            qpn => (qpn, Some(*agreed)),
        };
        self.agreed.insert(comm, (host, qpn), own, agreement);
        qpn
    }

    fn resolve_route(&mut self, comm: CommId, id: u32) {
        if self.manager.resolve_route(id).is_err() {
            self.lost(comm);
        }
    }

    /// The way is known: connects, when it is its turn.
    fn connect(&mut self, comm: CommId, id: u32) {
        if let Some(talk) = self.talks.get_mut(&comm) {
            talk.state = State::Calling;
            self.turns.wish(talk.partition, id, Job::Connect(comm));
            self.begin_calls();
        }
    }

    /// The call to connect has failed.
    pub(super) fn not_connected(&mut self, id: u32, error: &io::Error) {
        let Some(&comm) = self.by_id.get(&id) else {
            return;
        };
        match self.talks.get_mut(&comm) {
            // Nothing is under way any more.
            Some(talk) if talk.state == State::Calling => talk.state = State::Asking,
            _ => return,
        }
        tracing::debug!(%error, "the host's connection manager does not connect");
        match error.raw_os_error() {
            // iWARP hears at once that nobody listens.
            Some(libc::ECONNREFUSED) => {
                let reason = i32::from(masq_cm::Reason::INVALID_SERVICE_ID.0);
                self.refused(comm, reason, &Parameters::default());
            }
            _ => self.lost(comm),
        }
    }

    /// The host accepted a connection.
    fn accepted(&mut self, now: Instant, comm: CommId, told: &Told) {
        let Ok(agreed) = self.manager.agreement(told.id) else {
            return self.lost(comm);
        };
        let Some(talk) = self.talks.get(&comm) else {
            return;
        };
        let own = match &talk.said {
            Some(Message::Req(req)) => Some(req.qpn),
            _ => None,
        };
        let qpn = self.agree(comm, talk.host, own, &agreed);
        // iWARP has confirmed already.
        let state = match told.event {
            Event::Established => State::Established,
            _ => State::Answered,
        };
        if let Some(talk) = self.talks.get_mut(&comm) {
            talk.remote_qpn = qpn;
        }
        self.go_on(now, comm, state, None);
        if state == State::Established {
            self.established(comm);
        }
        self.tell(comm, |names| names.rep(&told.parameters, &agreed, qpn));
    }

    /// Who has the queue pair hears of it.
    fn established(&self, comm: CommId) {
        if let Some(talk) = self.talks.get(&comm) {
            self.agreed.established(comm, talk.host, talk.remote_qpn);
        }
    }

    /// A datagram service was named, or refused; there is no more to it.
    fn named(&mut self, comm: CommId, status: SidrStatus, told: &Parameters) {
        self.tell(comm, |names| names.sidr_rep(status, told));
        self.end(comm);
    }

    pub(super) fn refused(&mut self, comm: CommId, status: i32, told: &Parameters) {
        // Who has not answered is not known by name yet, and hears it when it does.
        self.tell(comm, |names| names.rej(status, told));
        self.end(comm);
    }

    /// The host does not answer.
    pub(super) fn lost(&mut self, comm: CommId) {
        let Some(mut talk) = self.talks.remove(&comm) else {
            return;
        };
        if let Some(said) = talk.said.take() {
            self.unreachable(&talk, &said);
        }
        self.talks.insert(comm, talk);
        self.end(comm);
    }

    /// The host ended a connection.
    pub(super) fn left(&mut self, now: Instant, comm: CommId) {
        let Some(talk) = self.talks.get(&comm) else {
            return;
        };
        match talk.state {
            State::Left => return,
            State::Asked => return self.end(comm),
            _ => {}
        }
        let own = match &talk.said {
            Some(Message::Req(req)) => req.qpn,
            Some(Message::Rep(rep)) => rep.qpn,
            _ => 0,
        };
        self.go_on(now, comm, State::Left, Some(FAREWELL));
        self.tell(comm, |names| {
            Message::Dreq(masq_cm::Dreq {
                local_comm: names.local,
                remote_comm: names.remote,
                remote_qpn: own,
                private: Private::EMPTY,
            })
        });
    }
}
