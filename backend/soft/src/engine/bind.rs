//! Requests that act on keys: BIND_MW and LOCAL_INV (IBA 10.6.7.2).

use super::keys::{KeyKind, window_rights_ok};
use super::objects::Current;
use super::{Engine, Step};
use masq_spec::queue::{SendOpcode, WcStatus};
use masq_spec::verbs::{Access, MwType};
use masq_transport::KeyScope;

impl Engine {
    /// Carries out a request without a message.
    pub(super) fn local(&mut self, q: usize, cur: Box<Current>) -> Step {
        let status = self.carry_out(q, &cur);
        self.complete(q, cur, status)
    }

    /// Its outcome.
    pub(super) fn carry_out(&mut self, q: usize, cur: &Current) -> WcStatus {
        let Some(qp) = self.qps.get(q) else {
            return WcStatus::FatalErr;
        };
        let (pd, qpn) = (qp.pd, qp.qpn);
        match SendOpcode::from_raw(cur.wqe.opcode) {
            Some(SendOpcode::LocalInv) => match self.invalidate(pd, qpn, cur.wqe.imm_data) {
                Ok(()) => WcStatus::Success,
                Err(()) => WcStatus::LocQpOpErr,
            },
            Some(SendOpcode::BindMw) => match self.bind(q, cur) {
                Some(()) => WcStatus::Success,
                None => WcStatus::MwBindErr,
            },
            _ => WcStatus::LocQpOpErr,
        }
    }

    /// Binds a window, or with length 0 unbinds it. None: a rule is broken.
    fn bind(&mut self, q: usize, cur: &Current) -> Option<()> {
        let qp = self.qps.get(q)?;
        let (pd, qpn) = (qp.pd, qp.qpn);
        let grants = self.sessions.get(qp.session)?.grants;
        let wqe = &cur.wqe;
        let (addr, len, lkey) = (wqe.remote_addr, wqe.compare_add, wqe.ah);
        let new_key = wqe.imm_data;
        let window = self.keys.get(wqe.rkey >> 8)?;
        let KeyKind::Window {
            mw_type,
            parent: old_parent,
        } = window.kind
        else {
            return None;
        };
        let rebinding = matches!(window.facts.scope, KeyScope::WindowOfQp(_));
        if window.facts.pd != pd || window.facts.key != wqe.rkey || new_key >> 8 != wqe.rkey >> 8 {
            return None;
        }
        // A type-2 window is invalidated before it is bound again, and is
        // never bound to nothing.
        if mw_type == MwType::Type2 && (rebinding || len == 0) {
            return None;
        }
        let mut bound = None;
        if len > 0 {
            let access = Access::from_bits(u32::try_from(wqe.swap).ok()?)?;
            let region = self.keys.get(lkey >> 8)?;
            let KeyKind::Region { .. } = region.kind else {
                return None;
            };
            let mapped = region.region.clone()?;
            let offset = addr.checked_sub(region.facts.base)?;
            let inside = offset
                .checked_add(len)
                .is_some_and(|end| end <= region.facts.len);
            if region.facts.pd != pd
                || region.facts.key != lkey
                || !inside
                || !window_rights_ok(region.facts.access, access)
                || !grants.allows_window(access)
            {
                return None;
            }
            bound = Some((mapped, offset, access));
            if let Some(KeyKind::Region { windows }) =
                self.keys.get_mut(lkey >> 8).map(|e| &mut e.kind)
            {
                *windows += 1;
            }
        }
        self.unbound(old_parent);
        let window = self.keys.get_mut(wqe.rkey >> 8)?;
        window.facts.key = new_key;
        window.invalidate();
        window.kind = KeyKind::Window {
            mw_type,
            parent: None,
        };
        if let Some((region, offset, access)) = bound {
            window.region = Some(region);
            window.offset = offset;
            window.facts.base = if access.contains(Access::ZERO_BASED) {
                0
            } else {
                addr
            };
            window.facts.len = len;
            window.facts.access = access;
            window.facts.scope = match mw_type {
                MwType::Type1 => KeyScope::Window,
                MwType::Type2 => KeyScope::WindowOfQp(qpn),
            };
            window.kind = KeyKind::Window {
                mw_type,
                parent: Some(lkey >> 8),
            };
            if mw_type == MwType::Type2
                && let Some(qp) = self.qps.get_mut(q)
            {
                qp.bound.insert(new_key >> 8);
            }
        }
        Some(())
    }

    /// A window is no longer bound to the region with this key.
    pub(super) fn unbound(&mut self, parent: Option<u32>) {
        if let Some(KeyKind::Region { windows }) = parent
            .and_then(|key| self.keys.get_mut(key))
            .map(|entry| &mut entry.kind)
        {
            *windows = windows.saturating_sub(1);
        }
    }
}
