//! Address handles and multicast (SPEC clause 9.8).

use super::qp::Asked;
use super::{Reply, Session, created, device_error, no_handle};
use crate::ledger::Kind;
use crate::refusal::Refused;
use crate::world::World;
use masq_device::{AhSpec, Destination, DeviceError, Handle};
use masq_policy::{Endpoint, Request, Service, VirtualAddress};
use masq_spec::verbs::{CreateAh, Multicast, QpType};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// An address handle.
#[derive(Debug)]
pub(super) struct Ah {
    pd: Handle,
    to: IpAddr,
    asked: Asked,
}

impl Session {
    pub(super) fn create_ah(&mut self, world: &mut World, request: &CreateAh) -> Reply {
        self.pd(request.pd)?;
        // An address handle serves UD queue pairs only.
        let to = self.path_end(world, &request.attr)?;
        let (asked, only) = self.reached_by(world, to);
        let (destination, _) = self.resolve(world, to, &request.attr, QpType::Ud, &asked)?;
        if matches!(destination, Destination::Multicast(_)) && !self.sends_to_groups {
            self.set_reach(world)?;
        }
        self.charge(world, Kind::Ahs, 1)?;
        let handle = self.ahs.reserve();
        let spec = AhSpec {
            handle,
            pd: request.pd,
            destination,
            attr: request.attr,
            only,
        };
        if let Err(error) = self.device.create_ah(spec) {
            self.refund(world, Kind::Ahs, 1);
            return Err(device_error(error));
        }
        self.pd(request.pd)?.users += 1;
        self.ahs.insert(
            handle,
            Ah {
                pd: request.pd,
                to,
                asked,
            },
        );
        Ok(created(handle))
    }

    /// What a datagram path is judged by: plain verbs, or else the datagram
    /// services that the two sides agreed on, and then the queue pairs of these
    /// only. A service's own side may answer: whoever asks does not say from
    /// which queue pair it will send.
    fn reached_by(&self, world: &World, to: IpAddr) -> (Asked, Option<Box<[u32]>>) {
        let itself = self.by_itself(to);
        if itself.decide(world, QpType::Ud).is_ok() {
            return (itself, None);
        }
        // Thousands of ids may use one service: the policy is asked once for each.
        let mut services = HashMap::new();
        let (mut reached, mut only) = (None, BTreeSet::new());
        for view in world.fabric.datagram_services(&self.endpoint, to) {
            let service = (view.initiator, view.port_space, view.port);
            let asked = services.entry(service).or_insert_with(|| {
                let asked = self.by_service(world, to, &view)?;
                asked.decide(world, QpType::Ud).is_ok().then_some(asked)
            });
            let Some(asked) = asked else { continue };
            if !view.initiator {
                return (asked.clone(), None);
            }
            only.insert(view.remote_qpn);
            reached.get_or_insert_with(|| asked.clone());
        }
        match reached {
            Some(asked) => (asked, Some(only.into_iter().collect())),
            None => (itself, None),
        }
    }

    pub(super) fn destroy_ah(&mut self, world: &mut World, handle: Handle) -> Reply {
        self.ahs
            .get(handle)
            .ok_or_else(|| no_handle("address handle"))?;
        // A handle that the policy revoked is gone from the device already.
        if matches!(self.device.destroy_ah(handle), Err(DeviceError::Again)) {
            return Err(Refused::again());
        }
        if let Some(ah) = self.ahs.remove(handle) {
            self.leave_pd(ah.pd);
            self.refund(world, Kind::Ahs, 1);
        }
        Ok(Vec::new())
    }

    /// Tells the device which members of a group the policy lets this session
    /// reach.
    fn set_reach(&mut self, world: &mut World) -> Result<(), Refused> {
        let policy = Arc::clone(&world.policy);
        let tenant = policy.tenant(self.endpoint.tenant().as_str());
        let reach = |to| Request::Connect {
            from: &self.endpoint,
            to,
            qp_type: masq_policy::QpType::Ud,
            service: Service::Verbs,
        };
        let allowed = tenant
            .into_iter()
            .flat_map(|t| t.endpoints())
            .filter(|endpoint| {
                // Groups are each host's own.
                let is_here = world.host_of(endpoint).is_none();
                let address = endpoint.address().filter(|_| is_here);
                address.is_some_and(|address| policy.decide(&reach(address)).allowed)
            })
            .map(Endpoint::id)
            .collect::<Vec<_>>();
        let allowed = allowed.into_iter().map(|id| world.endpoint_key(id));
        self.device.set_multicast_reach(allowed.collect())?;
        self.sends_to_groups = true;
        Ok(())
    }

    /// The same after the policy changed.
    pub(super) fn recheck_reach(&mut self, world: &mut World) {
        if self.sends_to_groups
            && let Err(refused) = self.set_reach(world)
        {
            let reason = refused.reason;
            tracing::error!(
                session = self.id,
                reason,
                "the reach of datagrams was not set"
            );
        }
    }

    /// Takes address handles that the policy no longer allows from the device.
    pub(super) fn recheck_ahs(&mut self, world: &mut World) -> u64 {
        let refused: Vec<(Handle, Refused)> = self
            .ahs
            .iter()
            .filter_map(|(handle, ah)| {
                let refused = ah.asked.decide(world, QpType::Ud).err()?;
                if world.is_only_left(&self.endpoint, ah.to, &refused) {
                    return None;
                }
                Some((handle, refused.about(format!("ah {handle} -> {}", ah.to))))
            })
            .collect();
        let mut cut = 0;
        for (handle, refused) in refused {
            if self.device.destroy_ah(handle).is_ok() {
                cut += 1;
                world
                    .refusals
                    .record(&self.endpoint, self.id, "address_handle", &refused);
            }
        }
        cut
    }

    pub(super) fn attach_mcast(&mut self, world: &mut World, request: &Multicast) -> Reply {
        let qp = self
            .qps
            .get(request.qp)
            .ok_or_else(|| no_handle("queue pair"))?;
        if qp.qp_type != QpType::Ud {
            return Err(Refused::invalid("only UD queue pairs join groups"));
        }
        let group = VirtualAddress::from_gid(request.gid).ip();
        let about = format!("group {group}");
        if !request.gid.starts_with(&[0xff]) && !group.is_multicast() {
            return Err(Refused::invalid("not a multicast group").about(about));
        }
        self.may(world, masq_policy::Verb::Multicast)?;
        let asked = Request::JoinMulticast {
            endpoint: &self.endpoint,
            group,
        };
        let _ = world.decide(&asked).map_err(|r| r.about(about))?;
        if self.groups.contains(&(request.qp, request.gid)) {
            return Ok(Vec::new());
        }
        self.charge(world, Kind::Multicast, 1)?;
        if let Err(error) = self.device.attach_multicast(request.qp, request.gid) {
            self.refund(world, Kind::Multicast, 1);
            return Err(error.into());
        }
        self.groups.push((request.qp, request.gid));
        Ok(Vec::new())
    }

    pub(super) fn detach_mcast(&mut self, world: &mut World, request: &Multicast) -> Reply {
        let member = (request.qp, request.gid);
        let at = self
            .groups
            .iter()
            .position(|m| *m == member)
            .ok_or_else(|| Refused::invalid("the queue pair is not in this group"))?;
        self.device.detach_multicast(request.qp, request.gid)?;
        self.groups.swap_remove(at);
        self.refund(world, Kind::Multicast, 1);
        Ok(Vec::new())
    }
}
