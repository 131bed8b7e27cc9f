//! Device, port, GID table and protection domains (SPEC clauses 9.2, 9.3).

use super::{Pd, Reply, Session, created, no_handle};
use crate::gid::TABLE_LEN;
use crate::ledger::Kind;
use crate::refusal::Refused;
use crate::world::World;
use masq_device::Handle;
use masq_spec::verbs::{DeviceAttr, GidTable, PortAttr, QueryPort};
use zerocopy::IntoBytes;

/// `IBV_PORT_ACTIVE` and the physical state LinkUp.
const ACTIVE: u32 = 4;
const LINK_UP: u32 = 5;
/// `IBV_MTU_4096`.
const MTU_4096: u32 = 5;
/// CM supported, IP-based GIDs: what RoCE ports show.
const PORT_CAPS: u32 = 1 << 16 | 1 << 26;
/// 4X at 25 Gbit/s a lane: what the tools print as 100 Gbit/s.
const WIDTH_4X: u32 = 2;
const SPEED_EDR: u32 = 32;

impl Session {
    pub(super) fn query_device(&self, world: &World) -> Reply {
        let device = self.carrier(world).attributes();
        let quotas = world.policy.quotas(&self.endpoint);
        let least = |attr: u32, quota: u64| u64::from(attr).min(quota) as u32;
        let attr = DeviceAttr {
            max_mr_size: device.max_mr_size.min(quotas.pinned_bytes),
            max_qp: least(device.max_qp, quotas.qps),
            max_qp_wr: least(device.max_qp_wr, quotas.qp_depth),
            max_cq: least(device.max_cq, quotas.cqs),
            max_cqe: least(device.max_cqe, quotas.cq_depth),
            max_mr: least(device.max_mr, quotas.mrs),
            max_pd: least(device.max_pd, quotas.pds),
            max_mw: least(device.max_mw, quotas.mws),
            max_ah: least(device.max_ah, quotas.ahs),
            max_srq: least(device.max_srq, quotas.srqs),
            max_srq_wr: least(device.max_srq_wr, quotas.srq_depth),
            max_mcast_grp: least(device.max_mcast_grp, quotas.multicast),
            ..device
        };
        Ok(attr.as_bytes().to_vec())
    }

    pub(super) fn query_port(&self, world: &World, query: &QueryPort) -> Reply {
        if query.port != 1 {
            return Err(Refused::invalid("there is only port 1"));
        }
        let attr = PortAttr {
            state: ACTIVE,
            max_mtu: MTU_4096,
            active_mtu: u32::from(self.carrier(world).mtu().code()),
            gid_tbl_len: TABLE_LEN,
            port_cap_flags: PORT_CAPS,
            max_msg_sz: 1 << 31,
            pkey_tbl_len: 1,
            active_width: WIDTH_4X,
            active_speed: SPEED_EDR,
            phys_state: LINK_UP,
        };
        Ok(attr.as_bytes().to_vec())
    }

    pub(super) fn query_gid_table(&self, world: &World) -> Reply {
        let entries = world.gids(&self.endpoint).map(|gids| gids.entries());
        let entries = entries.as_ref().map_or(&[][..], |entries| &entries[..]);
        let table = GidTable {
            count: entries.len() as u32,
            len: TABLE_LEN,
        };
        let mut out = table.as_bytes().to_vec();
        for entry in entries {
            out.extend_from_slice(entry.as_bytes());
        }
        Ok(out)
    }

    pub(super) fn alloc_pd(&mut self, world: &mut World) -> Reply {
        self.charge(world, Kind::Pds, 1)?;
        let handle = self.pds.reserve();
        self.pds.insert(handle, Pd::default());
        Ok(created(handle))
    }

    pub(super) fn dealloc_pd(&mut self, world: &mut World, handle: Handle) -> Reply {
        let pd = self
            .pds
            .get(handle)
            .ok_or_else(|| no_handle("protection domain"))?;
        if pd.users > 0 {
            return Err(
                masq_device::DeviceError::Busy("an object of the protection domain").into(),
            );
        }
        self.pds.remove(handle);
        self.refund(world, Kind::Pds, 1);
        Ok(Vec::new())
    }
}
