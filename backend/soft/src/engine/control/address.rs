//! Address handles and multicast groups.

use super::NO_OBJECT;
use crate::engine::Engine;
use crate::engine::objects::Ah;
use masq_device::{AhSpec, DeviceError, DomainKey, EndpointKey, Handle, Result};
use masq_spec::verbs::{Gid, QpType};

impl Engine {
    pub(crate) fn create_ah(&mut self, s: usize, ah: AhSpec) -> Result<()> {
        let entry = Ah {
            pd: ah.pd,
            destination: ah.destination,
            attr: ah.attr,
        };
        self.session(s)?.ahs.insert(ah.handle, entry);
        Ok(())
    }

    pub(crate) fn destroy_ah(&mut self, s: usize, handle: Handle) -> Result<()> {
        self.session(s)?
            .ahs
            .remove(&handle)
            .map(drop)
            .ok_or(NO_OBJECT)
    }

    pub(crate) fn set_multicast_reach(
        &mut self,
        s: usize,
        mut allowed: Vec<EndpointKey>,
    ) -> Result<()> {
        allowed.sort_unstable();
        self.session(s)?.multicast_reach = allowed;
        Ok(())
    }

    pub(crate) fn attach_multicast(&mut self, s: usize, handle: Handle, group: Gid) -> Result<()> {
        let q = self.qp_index(s, handle)?;
        let qp = self.qps.get(q).ok_or(NO_OBJECT)?;
        if qp.qp_type != QpType::Ud {
            return Err(DeviceError::Invalid("only UD queue pairs join groups"));
        }
        if !qp.joined.contains(&group) {
            self.groups.entry((qp.domain, group)).or_default().push(q);
            if let Some(qp) = self.qps.get_mut(q) {
                qp.joined.push(group);
            }
        }
        Ok(())
    }

    pub(crate) fn detach_multicast(&mut self, s: usize, handle: Handle, group: Gid) -> Result<()> {
        let q = self.qp_index(s, handle)?;
        let qp = self.qps.get_mut(q).ok_or(NO_OBJECT)?;
        let at = qp.joined.iter().position(|joined| *joined == group);
        qp.joined.swap_remove(at.ok_or(NO_OBJECT)?);
        let domain = qp.domain;
        self.leave_group(q, domain, group);
        Ok(())
    }

    pub(super) fn leave_group(&mut self, q: usize, domain: DomainKey, group: Gid) {
        let Some(members) = self.groups.get_mut(&(domain, group)) else {
            return;
        };
        // In order: datagrams on their way through the group keep their place.
        members.retain(|index| *index != q);
        if members.is_empty() {
            self.groups.remove(&(domain, group));
        }
    }
}
