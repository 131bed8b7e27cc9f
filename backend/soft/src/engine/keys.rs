//! The key table: memory regions and windows by the upper 24 bits of their key,
//! which are random; the lower 8 belong to the consumer (IBA 10.6.3.3).

use masq_device::Handle;
use masq_memory::{Piece, Region};
use masq_spec::queue::Sge;
use masq_spec::verbs::{Access, MwType};
use masq_transport::{KeyFacts, KeyFault, KeyScope, Need, check_key};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A protection domain: session of the engine and handle.
pub(crate) type PdKey = (usize, Handle);

/// An entry of the table.
pub(crate) struct KeyEntry {
    pub(crate) facts: KeyFacts<PdKey>,
    /// The bytes; none for a window that is not bound.
    pub(crate) region: Option<Arc<Region>>,
    /// Where the facts' base lies in the region.
    pub(crate) offset: u64,
    pub(crate) kind: KeyKind,
}

/// What an entry is.
pub(crate) enum KeyKind {
    /// A region, with the number of windows bound to it.
    Region { windows: u32 },
    /// A window, with its kind and the region it is bound to.
    Window {
        mw_type: MwType,
        parent: Option<u32>,
    },
}

#[derive(Default)]
pub(crate) struct KeyTable {
    entries: FxHashMap<u32, KeyEntry>,
}

impl KeyTable {
    /// An unused, random key.
    pub(crate) fn fresh(&self) -> Option<u32> {
        // 24 bits are taken up by at most a few million entries.
        for _ in 0..64 {
            let key = getrandom::u32().ok()?;
            if key >> 8 != 0 && !self.entries.contains_key(&(key >> 8)) {
                return Some(key);
            }
        }
        None
    }

    pub(crate) fn insert(&mut self, entry: KeyEntry) {
        self.entries.insert(entry.facts.key >> 8, entry);
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<KeyEntry> {
        self.entries.remove(&index)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, index: u32) -> Option<&KeyEntry> {
        self.entries.get(&index)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut KeyEntry> {
        self.entries.get_mut(&index)
    }

    /// Checks an access and appends its pieces to `out`.
    #[inline]
    #[allow(clippy::too_many_arguments)] // the facts of one access
    pub(crate) fn resolve(
        &self,
        pd: PdKey,
        qpn: u32,
        key: u32,
        addr: u64,
        len: u64,
        need: Need,
        out: &mut Vec<Piece>,
    ) -> Result<(), KeyFault> {
        let entry = self.entries.get(&(key >> 8)).ok_or(KeyFault::Invalid)?;
        let offset = check_key(&entry.facts, &pd, qpn, key, addr, len, need)?;
        let region = entry.region.as_ref().ok_or(KeyFault::Invalid)?;
        let session = entry.facts.pd.0 as u32;
        if region.pieces(session, entry.offset + offset, len, out) {
            Ok(())
        } else {
            Err(KeyFault::OutOfBounds)
        }
    }

    /// Checks a scatter or gather list up to `len` bytes and appends its
    /// pieces. Elements beyond are not looked at.
    #[inline]
    pub(crate) fn resolve_list(
        &self,
        pd: PdKey,
        qpn: u32,
        sges: &[Sge],
        mut len: u64,
        need: Need,
        out: &mut Vec<Piece>,
    ) -> Result<(), KeyFault> {
        for sge in sges {
            if len == 0 {
                break;
            }
            let take = sge_len(sge).min(len);
            if take > 0 {
                self.resolve(pd, qpn, sge.lkey, sge.addr, take, need, out)?;
            }
            len -= take;
        }
        Ok(())
    }
}

/// Bytes of an element (SPEC clause 6.4: zero is a length like any other).
pub(crate) fn sge_len(sge: &Sge) -> u64 {
    u64::from(sge.length)
}

/// Rights that a window may take from a region (IBA 10.6.7.2.1).
pub(crate) fn window_rights_ok(region: Access, window: Access) -> bool {
    let writes = window.intersects(Access::REMOTE_WRITE | Access::REMOTE_ATOMIC);
    region.contains(Access::MW_BIND) && (!writes || region.contains(Access::LOCAL_WRITE))
}

impl KeyEntry {
    pub(crate) fn invalidate(&mut self) {
        self.facts.scope = KeyScope::Invalid;
        self.region = None;
    }
}
