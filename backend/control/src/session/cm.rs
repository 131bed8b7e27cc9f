//! Connection management (SPEC clause 9.9): the programs' side of the fabric.

use super::{Reply, Session, created, parse};
use crate::fabric::{MOST_ENDED, service};
use crate::refusal::Refused;
use crate::world::World;
use masq_cm::{Agent, Channel, CmError, PortSpace, Target};
use masq_policy::{Request, Verb};
use masq_spec::verbs::{
    CM_NO_EVENT, CmAccept, CmAddress, CmBind, CmConnect, CmCreateId, CmEvent, CmJoin, CmNumber,
    CmOption, CmParam, CmQpAttrs, CmRaised, CmReject, CmResolve, CmTarget, MAX_OPTION, QpType,
    State,
};
use std::net::IpAddr;
use std::time::Instant;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

impl From<CmError> for Refused {
    fn from(error: CmError) -> Self {
        Self::new(error.status(), "interface", error.to_string())
    }
}

impl Session {
    /// A channel of this session.
    fn channel(&self, queue: u32) -> Channel {
        Channel {
            owner: self.id,
            queue,
        }
    }

    fn target(&self, target: CmTarget) -> Target {
        Target {
            channel: self.channel(target.channel),
            id: target.id,
        }
    }

    /// Calls the endpoint's connection manager about one of this session's ids.
    fn cm<R>(
        &self,
        world: &mut World,
        target: CmTarget,
        call: impl FnOnce(&mut Agent, Instant, Target) -> Result<R, CmError>,
    ) -> Result<R, Refused> {
        let target = self.target(target);
        let result = world.with_agent(&self.endpoint, |agent, now| call(agent, now, target))?;
        result.map_err(|error| Refused::from(error).about(format!("id {}", target.id)))
    }

    /// The same for a command that answers nothing but the events it raised.
    fn cm_raising(
        &self,
        world: &mut World,
        target: CmTarget,
        call: impl FnOnce(&mut Agent, Instant, Target) -> Result<(), CmError>,
    ) -> Reply {
        let target = self.target(target);
        let (result, events) =
            world.with_channel(&self.endpoint, target.channel, |agent, now| {
                call(agent, now, target)
            })?;
        if let Err(error) = result {
            for _ in 0..events {
                self.notifier.connection(target.channel.queue, target.id);
            }
            return Err(Refused::from(error).about(format!("id {}", target.id)));
        }
        let raised = CmRaised {
            events,
            reserved: 0,
        };
        Ok(raised.as_bytes().to_vec())
    }

    pub(super) fn cm_create_id(&mut self, world: &mut World, request: &CmCreateId) -> Reply {
        let space = PortSpace::from_raw(request.port_space)
            .ok_or_else(|| Refused::invalid("no such port space"))?;
        let qp_type = QpType::from_raw(request.qp_type.into())
            .ok_or_else(|| Refused::unsupported("connections of this type of queue pair"))?;
        if !self.notifier.has_queue(request.channel) {
            return Err(Refused::invalid("the event queue is not set up"));
        }
        world.charge_cm_id(&self.endpoint)?;
        world.fabric.enter(self.id, &self.notifier);
        let (channel, uid) = (self.channel(request.channel), request.uid);
        let made = world.with_agent(&self.endpoint, |agent, _| {
            agent.create_id(channel, space, qp_type, uid)
        })?;
        Ok(created(made?))
    }

    pub(super) fn cm_destroy_id(&mut self, world: &mut World, target: CmTarget) -> Reply {
        let ended = self.cm(world, target, |agent, now, id| agent.destroy_id(now, id))?;
        Ok(ended.as_bytes().to_vec())
    }

    pub(super) fn cm_bind(&mut self, world: &mut World, request: &CmBind) -> Reply {
        let address = request.address;
        self.cm_raising(world, request.target, |agent, _, id| {
            agent.bind(id, address)
        })
    }

    pub(super) fn cm_resolve_addr(&mut self, world: &mut World, request: &CmResolve) -> Reply {
        let source = (request.source.family != 0).then_some(request.source);
        let destination = request.destination;
        // Asked before the agent is: it cannot look into the policy. A loopback
        // address stands for the own one.
        let own = world
            .policy
            .endpoint(&self.endpoint)
            .and_then(|e| e.address());
        if let Some(to) = ip(&destination) {
            self.await_somebody(world, to)?;
        }
        let known = [ip(&destination), own].map(|to| {
            let (_, peer) = world.peer_at(&self.endpoint, to?)?;
            Some((to?, peer))
        });
        self.cm_raising(world, request.target, |agent, _, id| {
            let peer_at = |to| {
                let mut known = known.iter().flatten();
                known.find(|(at, _)| *at == to).map(|(_, peer)| *peer)
            };
            agent.resolve_addr(id, source, destination, peer_at)
        })
    }

    pub(super) fn cm_resolve_route(&mut self, world: &mut World, request: &CmNumber) -> Reply {
        self.cm_raising(world, request.target, |agent, _, id| {
            agent.resolve_route(id)
        })
    }

    pub(super) fn cm_query(&mut self, world: &mut World, target: CmTarget) -> Reply {
        let route = self.cm(world, target, |agent, _, id| agent.query(id))?;
        Ok(route.as_bytes().to_vec())
    }

    /// A connection that the policy forbids is rejected by an event, as a peer
    /// would reject it.
    pub(super) fn cm_connect(&mut self, world: &mut World, request: &CmConnect) -> Reply {
        let (space, qp_type, to) =
            self.cm(world, request.target, |agent, _, id| agent.destination(id))?;
        let peer = world.canonical(&self.endpoint, to.ip());
        let asked = Request::Connect {
            from: &self.endpoint,
            to: peer,
            qp_type: super::policy_type(qp_type),
            service: service(space, to.port()),
        };
        let mut may = world.decide(&asked).map(drop);
        if may.is_ok()
            && let Some((id, _)) = world.peer_at(&self.endpoint, peer)
        {
            // Its message would go nowhere.
            may = world.destination(&id).map(drop);
        }
        if let Err(refused) = may {
            let text = format!("masq: {}: {}", refused.rule, refused.reason);
            let refused = refused.about(format!("-> {to} ({})", service(space, to.port())));
            world
                .refusals
                .record(&self.endpoint, self.id, "cm_connect", &refused);
            return self.cm_raising(world, request.target, |agent, _, id| {
                agent.forbid(id, &text)
            });
        }
        self.await_news(world, peer)?;
        self.check_owner(world, &request.param)?;
        self.cm_raising(world, request.target, |agent, now, id| {
            agent.connect(now, id, &request.param)
        })
    }

    /// A card's kernel may connect the queue pair that a program names, whoever has it.
    fn check_owner(&self, world: &World, param: &CmParam) -> Result<(), Refused> {
        let is_checked = world.devices.get(self.on).separates_hosts();
        let is_own = || world.owners.of((self.on, param.qpn)) == Some(&self.endpoint);
        match is_checked || param.qpn == 0 || is_own() {
            true => Ok(()),
            false => Err(Refused::invalid("the queue pair is not this endpoint's")),
        }
    }

    pub(super) fn cm_listen(&mut self, world: &mut World, request: &CmNumber) -> Reply {
        let backlog = request.number;
        self.cm_raising(world, request.target, |agent, _, id| {
            agent.listen(id, backlog)
        })
    }

    pub(super) fn cm_accept(&mut self, world: &mut World, request: &CmAccept) -> Reply {
        let param = (request.has_param != 0).then_some(&request.param);
        param.map_or(Ok(()), |param| self.check_owner(world, param))?;
        self.cm_raising(world, request.target, |agent, now, id| {
            agent.accept(now, id, request.uid, param)
        })
    }

    pub(super) fn cm_reject(&mut self, world: &mut World, request: &CmReject) -> Reply {
        let private = request
            .private_data
            .get(..usize::from(request.private_len))
            .unwrap_or_default();
        self.cm_raising(world, request.target, |agent, now, id| {
            agent.reject(now, id, request.reason, private)
        })
    }

    pub(super) fn cm_disconnect(&mut self, world: &mut World, target: CmTarget) -> Reply {
        self.cm_raising(world, target, |agent, now, id| agent.disconnect(now, id))
    }

    pub(super) fn cm_qp_attr(&mut self, world: &mut World, request: &CmNumber) -> Reply {
        let state = State::from_raw(request.number)
            .ok_or_else(|| Refused::invalid("no such state of a queue pair"))?;
        let attrs = self.cm(world, request.target, |agent, _, id| {
            agent.qp_attr(id, state)?;
            let mut attrs = CmQpAttrs::default();
            let states = [State::Init, State::Rtr, State::Rts];
            for (to, state) in attrs.states.iter_mut().zip(states) {
                if let Ok(attr) = agent.qp_attr(id, state) {
                    (*to, attrs.known) = (attr, attrs.known | 1 << state as u32);
                }
            }
            Ok(attrs)
        })?;
        Ok(attrs.as_bytes().to_vec())
    }

    pub(super) fn cm_get_event(&mut self, world: &mut World, target: CmTarget) -> Reply {
        let channel = self.channel(target.channel);
        let event = world.with_agent(&self.endpoint, |agent, _| agent.next_event(channel))?;
        let event = event.unwrap_or_else(|| CmEvent {
            event: CM_NO_EVENT,
            ..CmEvent::new_zeroed()
        });
        Ok(event.as_bytes().to_vec())
    }

    pub(super) fn cm_set_option(&mut self, world: &mut World, body: &[u8]) -> Reply {
        let wrong = || Refused::invalid("the body has the wrong length");
        let (option, value) = CmOption::read_from_prefix(body).map_err(|_| wrong())?;
        if option.len as usize > MAX_OPTION || option.len as usize != value.len() {
            return Err(wrong());
        }
        self.cm_raising(world, option.target, |agent, _, id| {
            agent.set_option(id, option.level, option.name, value)
        })
    }

    pub(super) fn cm_notify(&mut self, world: &mut World, request: &CmNumber) -> Reply {
        self.cm_raising(world, request.target, |agent, now, id| {
            agent.notify(now, id, request.number)
        })
    }

    pub(super) fn cm_join(&mut self, world: &mut World, request: &CmJoin) -> Reply {
        let group = ip(&request.group).ok_or_else(|| Refused::invalid("no address"))?;
        let about = format!("group {group}");
        let denied = |r: Refused| r.about(about.clone());
        self.may(world, Verb::Multicast).map_err(denied)?;
        let asked = Request::JoinMulticast {
            endpoint: &self.endpoint,
            group,
        };
        let _ = world.decide(&asked).map_err(denied)?;
        let member = self.cm(world, request.target, |agent, _, id| {
            agent.join(id, request.uid, request.group, request.flags)
        })?;
        Ok(created(member))
    }

    pub(super) fn cm_leave(&mut self, world: &mut World, target: CmTarget) -> Reply {
        let left = self.cm(world, target, |agent, _, member| {
            agent.leave(member.channel, member.id)
        })?;
        Ok(left.as_bytes().to_vec())
    }

    pub(super) fn cm_migrate(&mut self, world: &mut World, request: &CmNumber) -> Reply {
        if !self.notifier.has_queue(request.number) {
            return Err(Refused::invalid("the event queue is not set up"));
        }
        let to = self.channel(request.number);
        let moved = self.cm(world, request.target, |agent, _, id| agent.migrate(id, to))?;
        Ok(moved.as_bytes().to_vec())
    }

    pub(super) fn cm_close_channel(&mut self, world: &mut World, target: CmTarget) -> Reply {
        let channel = self.channel(target.channel);
        let all = world.with_agent(&self.endpoint, |agent, now| {
            agent.close_channel(now, channel, MOST_ENDED)
        })?;
        // The command goes on a moment later, after those of others.
        all.then(Vec::new).ok_or_else(Refused::again)
    }

    /// One command of clause 9.9.
    pub(super) fn cm_command(
        &mut self,
        world: &mut World,
        opcode: masq_spec::command::Opcode,
        body: &[u8],
    ) -> Reply {
        use masq_spec::command::Opcode;
        match opcode {
            Opcode::CmCreateId => self.cm_create_id(world, &parse(body)?),
            Opcode::CmDestroyId => self.cm_destroy_id(world, parse(body)?),
            Opcode::CmBind => self.cm_bind(world, &parse(body)?),
            Opcode::CmResolveAddr => self.cm_resolve_addr(world, &parse(body)?),
            Opcode::CmResolveRoute => self.cm_resolve_route(world, &parse(body)?),
            Opcode::CmQuery => self.cm_query(world, parse(body)?),
            Opcode::CmConnect => self.cm_connect(world, &parse(body)?),
            Opcode::CmListen => self.cm_listen(world, &parse(body)?),
            Opcode::CmAccept => self.cm_accept(world, &parse(body)?),
            Opcode::CmReject => self.cm_reject(world, &parse(body)?),
            Opcode::CmDisconnect => self.cm_disconnect(world, parse(body)?),
            Opcode::CmQpAttr => self.cm_qp_attr(world, &parse(body)?),
            Opcode::CmGetEvent => self.cm_get_event(world, parse(body)?),
            Opcode::CmSetOption => self.cm_set_option(world, body),
            Opcode::CmNotify => self.cm_notify(world, &parse(body)?),
            Opcode::CmJoin => self.cm_join(world, &parse(body)?),
            Opcode::CmLeave => self.cm_leave(world, parse(body)?),
            Opcode::CmMigrate => self.cm_migrate(world, &parse(body)?),
            Opcode::CmCloseChannel => self.cm_close_channel(world, parse(body)?),
            _ => Err(Refused::unsupported("unknown command")),
        }
    }
}

/// The address without its port, if there is one.
fn ip(address: &CmAddress) -> Option<IpAddr> {
    Some(address.socket()?.ip().to_canonical())
}
