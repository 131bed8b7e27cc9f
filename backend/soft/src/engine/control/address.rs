//! Address handles and multicast groups.

use super::NO_OBJECT;
use crate::engine::Engine;
use crate::engine::objects::{Ah, Qp};
use masq_datapath::Engine as _;
use masq_device::{AhSpec, DeviceError, DomainKey, EndpointKey, Handle, Result};
use masq_spec::verbs::{Gid, QpType};

/// Turns for datagrams that are about to lose their queue pair or address handle.
const LAST_TURNS: u32 = 4;
/// How often they may keep a command waiting: 2 ms each.
const MOST_FAREWELLS: u32 = 50;

impl Engine {
    pub(crate) fn create_ah(&mut self, s: usize, ah: AhSpec) -> Result<()> {
        let entry = Ah {
            pd: ah.pd,
            destination: ah.destination,
            attr: ah.attr,
        };
        let session = self.session(s)?;
        session.ahs.insert(ah.handle, entry);
        if let Some(only) = ah.only {
            session.ah_only.insert(ah.handle, only);
        }
        Ok(())
    }

    /// Sends what was published, before something goes that datagrams need:
    /// programs post, do not wait, and end; a card has sent it by then. `Again`
    /// while datagrams of `only` (or of any queue pair of the session) wait for
    /// memory, so many times.
    pub(crate) fn finish_datagrams(&mut self, s: usize, only: Option<Handle>) -> Result<()> {
        let only = only.map(|handle| self.qp_index(s, handle)).transpose()?;
        let is_ud = |q| self.qps.get(q).is_some_and(|qp| qp.qp_type == QpType::Ud);
        if only.is_some_and(|q| !is_ud(q)) {
            return Ok(());
        }
        for _ in 0..LAST_TURNS {
            if !self.turn() {
                break;
            }
        }
        let pending = |qp: &Qp| qp.qp_type == QpType::Ud && (qp.queued || qp.current.is_some());
        let waits = match only {
            Some(q) => self.qps.get(q).is_some_and(pending),
            None => {
                let session = self.session(s)?;
                let of_session: Vec<usize> = session.qps.values().copied().collect();
                let mut found = of_session.iter().filter_map(|q| self.qps.get(*q));
                found.any(pending)
            }
        };
        let session = self.session(s)?;
        if waits && session.farewells < MOST_FAREWELLS {
            session.farewells += 1;
            return Err(DeviceError::Again);
        }
        session.farewells = 0;
        Ok(())
    }

    pub(crate) fn destroy_ah(&mut self, s: usize, handle: Handle) -> Result<()> {
        let session = self.session(s)?;
        session.ah_only.remove(&handle);
        session.ahs.remove(&handle).map(drop).ok_or(NO_OBJECT)
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
            let domain = qp.domain;
            let members = self.groups.entry((domain, group)).or_default();
            members.push(q);
            if members.len() == 1 {
                self.group_begun(domain, group);
            }
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
            self.group_ended(domain, group);
        }
    }
}
