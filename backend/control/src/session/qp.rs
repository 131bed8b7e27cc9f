//! Queue pairs: creation, RConnrename at RTR, RConntrack for their life (SPEC
//! clause 9.7).

use super::completion::{receive_fits, receive_len};
use super::{Reply, Session, device_error, map_ring, no_handle};
use crate::fabric::service;
use crate::ledger::Kind;
use crate::refusal::Refused;
use crate::rights::only_granted;
use crate::world::World;
use masq_cm::View;
use masq_device::{Destination, Handle, QpChange, QpSpec};
use masq_policy::{EndpointId, RemoteAccess, Request, Service, Verdict};
use masq_spec::command::Status;
use masq_spec::queue::{SEND_DATA, Sge};
use masq_spec::verbs::{
    Access, AhAttr, CreateQp, ModifyQp, NO_HANDLE, QpCaps, QpCreated, QpMask, QpState, QpType,
    State,
};
use std::net::IpAddr;
use std::time::Instant;
use zerocopy::IntoBytes;

/// A queue pair.
#[derive(Debug)]
pub(super) struct Qp {
    pd: Handle,
    pub(super) qp_type: QpType,
    pub(super) qpn: u32,
    pub(super) connection: Option<Connection>,
}

/// A connection that the policy allowed.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// Virtual address of the peer.
    pub(crate) to: IpAddr,
    pub(crate) qpn: u32,
    /// The rule that allowed it.
    pub(crate) rule: String,
    /// What the policy was asked, and is asked again.
    asked: Asked,
}

/// What a connection is judged by: who asks for it, of whom, for what. Of a
/// connection by rdma_cm that the peer asked for, the peer does.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    from: EndpointId,
    to: IpAddr,
    pub(super) service: Service,
}

impl Asked {
    pub(super) fn decide(&self, world: &World, qp_type: QpType) -> Result<Verdict, Refused> {
        world.decide(&Request::Connect {
            from: &self.from,
            to: self.to,
            qp_type: policy_type(qp_type),
            service: self.service,
        })
    }
}

/// Bytes of a send slot.
fn send_len(caps: &QpCaps) -> u64 {
    let elements = u64::from(caps.max_send_sge) * size_of::<Sge>() as u64;
    SEND_DATA as u64 + elements.max(u64::from(caps.max_inline_data))
}

/// The policy's word for a type.
pub(crate) fn policy_type(qp_type: QpType) -> masq_policy::QpType {
    match qp_type {
        QpType::Rc => masq_policy::QpType::Rc,
        QpType::Uc => masq_policy::QpType::Uc,
        QpType::Ud => masq_policy::QpType::Ud,
    }
}

impl Session {
    pub(super) fn create_qp(&mut self, world: &mut World, request: &CreateQp) -> Reply {
        let qp_type = QpType::from_raw(request.qp_type)
            .ok_or_else(|| Refused::unsupported("this type of queue pair"))?;
        let asked = Request::CreateQp {
            endpoint: &self.endpoint,
            qp_type: policy_type(qp_type),
        };
        let _ = world
            .decide(&asked)
            .map_err(|r| r.about(format!("{qp_type:?} queue pair")))?;
        self.check_caps(world, request)?;
        self.pd(request.pd)?;
        for cq in [request.send_cq, request.recv_cq] {
            self.cqs
                .get(cq)
                .ok_or_else(|| no_handle("completion queue"))?;
        }
        let srq = (request.srq != NO_HANDLE).then_some(request.srq);
        if let Some(srq) = srq {
            self.srqs
                .get(srq)
                .ok_or_else(|| no_handle("shared receive queue"))?;
        }
        self.charge(world, Kind::Qps, 1)
            .map_err(|r| r.about(format!("{qp_type:?} queue pair")))?;
        let handle = self.qps.reserve();
        let made = self.make_qp(handle, qp_type, srq, request);
        let (qpn, doorbell) = made.inspect_err(|_| self.refund(world, Kind::Qps, 1))?;
        self.pd(request.pd)?.users += 1;
        world.owners.begin((self.on, qpn), &self.endpoint);
        self.qps.insert(
            handle,
            Qp {
                pd: request.pd,
                qp_type,
                qpn,
                connection: None,
            },
        );
        Ok(QpCreated {
            handle,
            qpn,
            doorbell,
            reserved: 0,
        }
        .as_bytes()
        .to_vec())
    }

    fn make_qp(
        &mut self,
        handle: Handle,
        qp_type: QpType,
        srq: Option<Handle>,
        request: &CreateQp,
    ) -> Result<(u32, u32), Refused> {
        let caps = &request.caps;
        let slot = send_len(caps);
        let sq = map_ring(&self.memory, request.sq, caps.max_send_wr, slot)?;
        let rq = match srq {
            None if request.rq.slots > 0 => {
                let slot = receive_len(caps.max_recv_sge);
                let rq = map_ring(&self.memory, request.rq, caps.max_recv_wr, slot)?;
                Some(rq)
            }
            _ => None,
        };
        Ok(self.device.create_qp(QpSpec {
            handle,
            pd: request.pd,
            qp_type,
            send_cq: request.send_cq,
            recv_cq: request.recv_cq,
            srq,
            sq_sig_all: request.sq_sig_all != 0,
            caps: request.caps,
            sq,
            rq,
        })?)
    }

    /// The device's and the tenant's limits, and whether the rings hold what
    /// the capacities promise.
    fn check_caps(&self, world: &World, request: &CreateQp) -> Result<(), Refused> {
        let device = self.carrier(world).attributes();
        let depth = world
            .policy
            .quotas(&self.endpoint)
            .qp_depth
            .min(u64::from(device.max_qp_wr));
        let caps = &request.caps;
        let too_many = u64::from(caps.max_send_wr) > depth
            || u64::from(caps.max_recv_wr) > depth
            || caps.max_send_sge > device.max_sge
            || caps.max_recv_sge > device.max_sge
            || caps.max_inline_data > device.max_inline_data;
        if too_many {
            return Err(Refused::invalid("capacities above the device's"));
        }
        let sends_fit =
            request.sq.slots >= caps.max_send_wr && u64::from(request.sq.stride) >= send_len(caps);
        let receives_fit = request.srq != NO_HANDLE
            || caps.max_recv_wr == 0
            || (request.rq.slots >= caps.max_recv_wr
                && receive_fits(&request.rq, caps.max_recv_sge));
        if !sends_fit || !receives_fit {
            return Err(Refused::invalid("the rings do not hold the capacities"));
        }
        Ok(())
    }

    pub(super) fn modify_qp(&mut self, world: &mut World, request: &ModifyQp) -> Reply {
        let qp = self
            .qps
            .get(request.handle)
            .ok_or_else(|| no_handle("queue pair"))?;
        let (qp_type, qpn) = (qp.qp_type, qp.qpn);
        let known = QpMask::from_bits(request.mask);
        let mask = known.ok_or_else(|| Refused::invalid("unknown attribute mask"))?;
        let unsupported = QpMask::CAP | QpMask::RATE_LIMIT;
        if mask.intersects(unsupported) {
            return Err(Refused::unsupported("resizing or pacing a queue pair"));
        }
        let mut attr = request.attr;
        if mask.contains(QpMask::ACCESS_FLAGS) {
            attr.qp_access_flags = self.allowed_access(world, attr.qp_access_flags);
        }
        let mut connection = None;
        let mut destination = None;
        if mask.contains(QpMask::AV) {
            let to = self.path_end(world, &attr.ah)?;
            let asked = self.judged_by(world, to, qpn, attr.dest_qp_num);
            let resolved = self.resolve(world, to, &attr.ah, qp_type, &asked);
            let (target, rule) = resolved.map_err(|r| {
                if r.object.is_empty() {
                    r.about(format!("qp {qpn:#x}"))
                } else {
                    r
                }
            })?;
            if let (Destination::Host(host), true) = (target, mask.contains(QpMask::DEST_QPN)) {
                self.check_peers_qp(world, to, host, attr.dest_qp_num)
                    .map_err(|r| r.about(format!("qp {qpn:#x}")))?;
            }
            destination = Some(target);
            connection = Some(Connection {
                to,
                qpn: attr.dest_qp_num,
                rule,
                asked,
            });
        }
        let change = QpChange {
            mask,
            attr,
            destination,
        };
        let state = self
            .device
            .modify_qp(request.handle, change)
            .map_err(|e| device_error(e).about(format!("qp {qpn:#x}")))?;
        if let Some(qp) = self.qps.get_mut(request.handle) {
            match state {
                State::Reset => qp.connection = None,
                _ if connection.is_some() => qp.connection = connection,
                _ => {}
            }
        }
        Ok(QpState {
            state: state as u32,
            reserved: 0,
        }
        .as_bytes()
        .to_vec())
    }

    /// Whether a queue pair number of another host is one of the endpoint at `to`.
    fn check_peers_qp(
        &self,
        world: &mut World,
        to: IpAddr,
        host: IpAddr,
        qpn: u32,
    ) -> Result<(), Refused> {
        let Some((peer, _)) = world.peer_at(&self.endpoint, to) else {
            return Err(Refused::invalid("no endpoint has this address"));
        };
        match world.is_peers(&self.endpoint, &peer, host, qpn) {
            Some(true) => Ok(()),
            Some(false) => {
                let reason = format!("{qpn:#x} on {host} is no queue pair of {peer}");
                Err(Refused::new(Status::Denied, "isolation", reason))
            }
            None if !self.has_waited() => Err(Refused::again()),
            None => {
                let reason = format!("masqd on {host} does not say whose {qpn:#x} is");
                Err(Refused::new(Status::Unreachable, "isolation", reason))
            }
        }
    }

    /// Remote rights that the tenant may grant; programs set them freely.
    fn allowed_access(&self, world: &World, raw: u32) -> u32 {
        let granted = world
            .policy
            .endpoint(&self.endpoint)
            .map_or(RemoteAccess::NONE, |e| e.remote_access());
        only_granted(Access::from_bits_truncate(raw), granted).bits()
    }

    /// The virtual address that a path leads to.
    pub(super) fn path_end(&self, world: &World, ah: &AhAttr) -> Result<IpAddr, Refused> {
        if ah.is_global == 0 {
            return Err(Refused::invalid("RoCE needs a global route (is_global)"));
        }
        if ah.port_num > 1 {
            return Err(Refused::invalid("there is only port 1"));
        }
        let gids = world.gids(&self.endpoint);
        if !gids.is_some_and(|gids| gids.is_usable(ah.sgid_index)) {
            return Err(Refused::invalid("no GID at sgid_index"));
        }
        Ok(world.address_of(&self.endpoint, ah.dgid))
    }

    /// What a path is judged by when the program made the connection itself.
    pub(super) fn by_itself(&self, to: IpAddr) -> Asked {
        Asked {
            from: self.endpoint.clone(),
            to,
            service: Service::Verbs,
        }
    }

    /// What a path is judged by when the connection manager made the connection.
    pub(super) fn by_service(&self, world: &World, to: IpAddr, view: &View) -> Option<Asked> {
        let service = service(view.port_space, view.port);
        if view.initiator {
            return Some(Asked {
                service,
                ..self.by_itself(to)
            });
        }
        let (from, _) = world.peer_at(&self.endpoint, to)?;
        Some(Asked {
            from,
            to: world.policy.endpoint(&self.endpoint)?.address()?,
            service,
        })
    }

    fn judged_by(&self, world: &World, to: IpAddr, qpn: u32, peer_qpn: u32) -> Asked {
        let view = world.fabric.by_qpn(&self.endpoint, qpn, to, peer_qpn);
        view.and_then(|view| self.by_service(world, to, &view))
            .unwrap_or_else(|| self.by_itself(to))
    }

    /// RConnrename: where a path leads, if the policy lets it lead there.
    pub(super) fn resolve(
        &self,
        world: &mut World,
        to: IpAddr,
        ah: &AhAttr,
        qp_type: QpType,
        asked: &Asked,
    ) -> Result<(Destination, String), Refused> {
        self.await_somebody(world, to)?;
        let verdict = asked
            .decide(world, qp_type)
            .map_err(|r| r.about(format!("-> {to} ({qp_type:?}, {})", asked.service)))?;
        let rule = verdict.rule.to_string();
        if to.is_multicast() && qp_type != QpType::Ud {
            return Err(Refused::invalid("only datagrams go to groups"));
        }
        if to.is_multicast() {
            self.may(world, masq_policy::Verb::Multicast)?;
            return Ok((Destination::Multicast(ah.dgid), rule));
        }
        let tenant = world.policy.tenant(self.endpoint.tenant().as_str());
        let peer = tenant
            .and_then(|t| t.endpoint_at(to))
            .map(|e| e.id().clone());
        let peer = peer.ok_or_else(|| Refused::invalid("no endpoint has this address"))?;
        let about = || format!("-> {to}");
        match world.destination(&peer).map_err(|r| r.about(about()))? {
            Some(destination) => Ok((destination, rule)),
            None => {
                self.await_news(world, to)?;
                let reason = format!("{peer} is registered on no host");
                let refused = Refused::new(Status::Unreachable, "directory", reason);
                Err(refused.about(about()))
            }
        }
    }

    pub(super) fn query_qp(&mut self, handle: Handle) -> Reply {
        self.qps
            .get(handle)
            .ok_or_else(|| no_handle("queue pair"))?;
        Ok(self.device.query_qp(handle)?.attr.as_bytes().to_vec())
    }

    pub(super) fn destroy_qp(&mut self, world: &mut World, handle: Handle) -> Reply {
        self.qps
            .get(handle)
            .ok_or_else(|| no_handle("queue pair"))?;
        self.device.destroy_qp(handle).map_err(device_error)?;
        let joined = self.groups.iter().filter(|(qp, _)| *qp == handle).count() as u64;
        self.groups.retain(|(qp, _)| *qp != handle);
        self.refund(world, Kind::Multicast, joined);
        if let Some(qp) = self.qps.remove(handle) {
            world.owners.end((self.on, qp.qpn), Instant::now());
            self.leave_pd(qp.pd);
            self.refund(world, Kind::Qps, 1);
        }
        Ok(Vec::new())
    }

    /// RConntrack: connections that the policy no longer allows go to ERROR.
    /// Returns how many.
    pub(crate) fn recheck(&mut self, world: &mut World) -> u64 {
        self.recheck_grants(world);
        let mut cut = Vec::new();
        for (handle, qp) in self.qps.iter() {
            let Some(connection) = &qp.connection else {
                continue;
            };
            if let Err(refused) = connection.asked.decide(world, qp.qp_type)
                && !world.is_only_left(&self.endpoint, connection.to, &refused)
            {
                cut.push((
                    handle,
                    refused.about(format!("qp {:#x} -> {}", qp.qpn, connection.to)),
                ));
            }
        }
        let count = cut.len() as u64;
        for (handle, refused) in cut {
            world
                .refusals
                .record(&self.endpoint, self.id, "connection", &refused);
            if let Err(error) = self.device.fail_qp(handle) {
                tracing::error!(session = self.id, %error, "a connection was not cut");
            }
            if let Some(qp) = self.qps.get_mut(handle) {
                qp.connection = None;
            }
        }
        self.recheck_reach(world);
        count + self.recheck_ahs(world)
    }
}
