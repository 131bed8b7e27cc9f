//! Memory regions and windows.

use super::NO_OBJECT;
use crate::engine::Engine;
use crate::engine::keys::{KeyEntry, KeyKind};
use masq_device::{DeviceError, Handle, MrSpec, MwSpec, Result};
use masq_memory::Region;
use masq_spec::verbs::Access;
use masq_transport::{KeyFacts, KeyScope};
use std::sync::Arc;

impl Engine {
    pub(crate) fn register(&mut self, s: usize, mr: MrSpec) -> Result<u32> {
        let key = self.keys.fresh().ok_or(DeviceError::Exhausted("keys"))?;
        let session = self.session(s)?;
        session.mrs.insert(mr.handle, key >> 8);
        let zero_based = mr.access.contains(Access::ZERO_BASED);
        self.keys.insert(KeyEntry {
            facts: KeyFacts {
                key,
                pd: (s, mr.pd),
                scope: KeyScope::Region,
                access: mr.access,
                base: if zero_based { 0 } else { mr.iova },
                len: mr.region.len(),
            },
            region: Some(Arc::new(mr.region)),
            offset: 0,
            kind: KeyKind::Region { windows: 0 },
        });
        Ok(key)
    }

    pub(crate) fn deregister(&mut self, s: usize, handle: Handle) -> Result<Arc<Region>> {
        let latest_job = self.timers.serial();
        let session = self.session(s)?;
        if let Some((_, upto)) = session.leaving.get(&handle) {
            if session.helper.is_busy(*upto) {
                return Err(DeviceError::Again);
            }
            let left = session.leaving.remove(&handle);
            return left.map(|(region, _)| region).ok_or(NO_OBJECT);
        }
        let key = *session.mrs.get(&handle).ok_or(NO_OBJECT)?;
        let entry = self.keys.get(key).ok_or(NO_OBJECT)?;
        if matches!(entry.kind, KeyKind::Region { windows } if windows > 0) {
            return Err(DeviceError::Busy("a memory window"));
        }
        let region = self.keys.remove(key).and_then(|entry| entry.region);
        let region = region.ok_or(NO_OBJECT)?;
        let session = self.session(s)?;
        session.mrs.remove(&handle);
        if region.has_remote() && session.helper.is_busy(latest_job) {
            session.leaving.insert(handle, (region, latest_job));
            return Err(DeviceError::Again);
        }
        Ok(region)
    }

    /// Changes a region in place; its key stays.
    pub(crate) fn change_mr(
        &mut self,
        s: usize,
        handle: Handle,
        pd: Handle,
        access: Access,
    ) -> Result<u32> {
        let session = self.session(s)?;
        let key = *session.mrs.get(&handle).ok_or(NO_OBJECT)?;
        let entry = self.keys.get_mut(key).ok_or(NO_OBJECT)?;
        if matches!(entry.kind, KeyKind::Region { windows } if windows > 0) {
            return Err(DeviceError::Busy("a memory window"));
        }
        entry.facts.pd = (s, pd);
        entry.facts.access = access;
        Ok(entry.facts.key)
    }

    pub(crate) fn alloc_mw(&mut self, s: usize, mw: &MwSpec) -> Result<u32> {
        let key = self.keys.fresh().ok_or(DeviceError::Exhausted("keys"))?;
        self.session(s)?.mws.insert(mw.handle, key >> 8);
        self.keys.insert(KeyEntry {
            facts: KeyFacts {
                key,
                pd: (s, mw.pd),
                scope: KeyScope::Invalid,
                access: Access::empty(),
                base: 0,
                len: 0,
            },
            region: None,
            offset: 0,
            kind: KeyKind::Window {
                mw_type: mw.mw_type,
                parent: None,
            },
        });
        Ok(key)
    }

    pub(crate) fn dealloc_mw(&mut self, s: usize, handle: Handle) -> Result<()> {
        let key = self.session(s)?.mws.remove(&handle).ok_or(NO_OBJECT)?;
        if let Some(entry) = self.keys.remove(key)
            && let KeyKind::Window { parent, .. } = entry.kind
        {
            self.unbound(parent);
        }
        Ok(())
    }
}
