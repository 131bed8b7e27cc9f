//! What agents say to plain hosts.

use super::super::translate::{Names, of_acceptance, of_service};
use super::{Desk, FAREWELL, MOST, Manager, PATIENCE, State, Talk, drep};
use crate::host::Parameters;
use masq_cm::{Asked, CommId, Message, SidrStatus};
use masq_spec::verbs::QpType;
use masq_wire::PKey;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Instant;

impl<M: Manager> Desk<M> {
    /// An agent says something to a plain host.
    pub(in crate::bridge) fn say(
        &mut self,
        now: Instant,
        host: IpAddr,
        partition: PKey,
        message: Message,
    ) {
        match message {
            Message::Rej(rej) if rej.remote_comm == CommId(0) => {
                // It gave up before it heard an answer.
                if let Some(&comm) = self.by_agent.get(&(host, rej.local_comm, false)) {
                    self.end(comm);
                }
            }
            // So a refusal calls itself whose request reached no agent.
            Message::Rej(_) => self.reply(now, host, partition, message),
            // No agent calls a conversation so.
            message if message.sender_comm() == Some(CommId(0)) => {}
            Message::Req(_) | Message::SidrReq(_) => self.ask(now, host, partition, message),
            Message::Mra(_) => {}
            Message::Dreq(dreq) => {
                let names = Names {
                    local: dreq.remote_comm,
                    remote: dreq.local_comm,
                };
                self.leave(now, host, partition, names);
            }
            message => self.reply(now, host, partition, message),
        }
    }

    /// What an agent says in a conversation, if there is such a one.
    fn reply(&mut self, now: Instant, host: IpAddr, partition: PKey, message: Message) {
        let Some(comm) = message.receiver_comm() else {
            return;
        };
        let agent = message.sender_comm();
        let known = self.talks.get(&comm).is_some_and(|talk| {
            let same = agent.is_none_or(|a| talk.agent == CommId(0) || talk.agent == a);
            talk.host == host && talk.partition == partition && same
        });
        match (known, &message) {
            (true, _) => self.answer(now, comm, message),
            // The host withdrew its request.
            (false, Message::Rep(rep)) => {
                let names = Names {
                    local: comm,
                    remote: rep.local_comm,
                };
                self.hear(host, partition, names.rej_unknown());
            }
            (false, _) => {}
        }
    }

    /// A request of an agent, for the first time or again.
    fn ask(&mut self, now: Instant, host: IpAddr, partition: PKey, message: Message) {
        let datagram = matches!(message, Message::SidrReq(_));
        let Some(agent) = message.sender_comm() else {
            return;
        };
        if let Some(&comm) = self.by_agent.get(&(host, agent, datagram)) {
            return self.tell_again(comm);
        }
        let pair = match &message {
            Message::Req(req) => self.agreed.pairs.get(req.qpn),
            _ => None,
        };
        let talk = Talk {
            id: 0,
            host,
            partition,
            agent,
            datagram,
            state: State::Asking,
            remote_qpn: 0,
            pair,
            said: None,
            told: None,
            deadline: Some(now + PATIENCE),
        };
        // The kernel's port spaces have no unreliable connections.
        let served = |asked: &Asked| asked.qp_type != QpType::Uc && self.talks.len() < MOST;
        let Some(asked) = message.asked().filter(served) else {
            self.counters.not_asked.fetch_add(1, Ordering::Relaxed);
            return self.unreachable(&talk, &message);
        };
        match self.begin(host, &asked) {
            Ok(id) => {
                let said = Some(message);
                self.insert(Talk { id, said, ..talk });
            }
            Err(error) => {
                tracing::debug!(%error, %host, "the host's connection manager refuses");
                self.unreachable(&talk, &message);
            }
        }
    }

    fn begin(&mut self, host: IpAddr, asked: &Asked) -> io::Result<u32> {
        let id = self.manager.create(asked.port_space, asked.port)?;
        let to = SocketAddr::new(host, asked.port);
        let resolves = self.manager.resolve_address(id, self.host, to);
        resolves.inspect_err(|_| self.manager.destroy(id))?;
        Ok(id)
    }

    /// What an agent says in a conversation.
    fn answer(&mut self, now: Instant, comm: CommId, message: Message) {
        let Some(talk) = self.talks.get_mut(&comm) else {
            return;
        };
        let (id, state) = (talk.id, talk.state);
        match (message, state) {
            (Message::Rep(rep), State::Asked) if !talk.datagram => {
                let parameters = of_acceptance(&rep);
                talk.agent = rep.local_comm;
                let (host, remote) = (talk.host, talk.remote_qpn);
                self.agreed.name(comm, host, remote, rep.qpn);
                talk.said = Some(Message::Rep(rep));
                let agent = (talk.host, talk.agent, false);
                self.by_agent.insert(agent, comm);
                self.go_on(now, comm, State::Accepted, Some(PATIENCE));
                if let Err(error) = self.manager.accept(id, Some(&parameters)) {
                    tracing::debug!(%error, "an acceptance was refused");
                    self.refused(comm, 0, &Parameters::default());
                }
            }
            (Message::Rep(_), State::Established) => self.tell_again(comm),
            (Message::Rtu(_), State::Answered) => {
                self.go_on(now, comm, State::Established, None);
                if let Err(error) = self.manager.accept(id, None) {
                    // The host gave up meanwhile.
                    tracing::debug!(%error, "a confirmation was refused");
                    self.left(now, comm);
                }
            }
            (Message::Rej(rej), _) => {
                if matches!(state, State::Asked | State::Accepted | State::Answered) {
                    let _ = self.manager.reject(id, rej.private.bytes());
                }
                self.end(comm);
            }
            (Message::SidrRep(rep), State::Asked) if talk.datagram => {
                let done = match rep.status {
                    SidrStatus::VALID => self.manager.accept(id, Some(&of_service(&rep))),
                    _ => self.manager.reject(id, rep.private.bytes()),
                };
                if let Err(error) = done {
                    tracing::debug!(%error, "an answer of a datagram service was refused");
                }
                self.end(comm);
            }
            (Message::Drep(_), State::Left) => {
                // Agrees; an error means that there is nothing left to agree to.
                let _ = self.manager.disconnect(id);
                self.end(comm);
            }
            _ => {}
        }
    }

    /// An agent wants to end a conversation. `names`: as this side says them.
    fn leave(&mut self, now: Instant, host: IpAddr, partition: PKey, names: Names) {
        let comm = names.local;
        let talk = self.talks.get(&comm);
        let known = talk.filter(|t| t.host == host && t.agent == names.remote);
        let state = known.map(|talk| (talk.id, talk.state));
        match state {
            Some((id, State::Answered | State::Accepted | State::Established)) => {
                if self.manager.disconnect(id).is_ok() {
                    return self.go_on(now, comm, State::Leaving, Some(FAREWELL));
                }
            }
            // It says so again.
            Some((_, State::Leaving)) => return,
            Some((id, State::Left)) => {
                let _ = self.manager.disconnect(id);
            }
            Some(_) | None => {}
        }
        self.hear(host, partition, drep(names));
        if state.is_some() {
            self.end(comm);
        }
    }
}
