//! Where a card believes memory to be. siw takes no address for a region but the one
//! where it is mapped while it is registered (it has no iova). A tenant's own address
//! may be masqd's own as well, so one bit of it is inverted: that leads to where no
//! process has anything, on any host with so many bits of address.

use crate::host::{self, Pd, refused};
use crate::session::Mapped;
use masq_device::{DeviceError, Result};
use masq_memory::{MemoryError, Region, Span};
use std::sync::{Arc, Mutex, PoisonError};

/// What siw says it is (`vendor_id`).
const SIW: u32 = 0x62_6d74;
/// The bits, of 47 and of 39 bits of address.
const BITS: [u8; 2] = [45, 37];

/// The bit of addresses that is inverted; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement(pub(crate) u8);

impl Placement {
    /// How a card of this vendor places memory, on this host.
    pub(crate) fn of(vendor_id: u32) -> Self {
        let is_there = |bit: &u8| Span::is_address(1 << bit);
        match vendor_id {
            SIW => Self(BITS.into_iter().find(is_there).unwrap_or_default()),
            _ => Self(0),
        }
    }

    /// What is inverted of an address.
    pub(crate) fn mask(self) -> u64 {
        match self.0 {
            0 => 0,
            bit => 1 << bit,
        }
    }

    /// Registers a region so that the card finds it where its owner does, but for the
    /// inverted bit. The card holds the pages: they are mapped there for the moment
    /// alone.
    #[allow(unsafe_code)] // registers mapped memory
    pub(crate) fn register(
        self,
        pd: &Arc<Pd>,
        region: Region,
        iova: u64,
        access: u32,
    ) -> Result<host::Mr<Mapped>> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let (len, mask) = (region.len(), self.mask());
        let last = iova.checked_add(len.saturating_sub(1));
        let elsewhere = DeviceError::Unsupported("memory at such addresses over this card");
        let at = iova ^ mask;
        match last {
            Some(last) if (last ^ mask) == at.saturating_add(len.saturating_sub(1)) => {}
            _ => return Err(elsewhere),
        }
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let span = Span::at(&region, at).map_err(|error| match error {
            MemoryError::Scattered => {
                DeviceError::Unsupported("memory of which a part cannot be shared with the card")
            }
            _ => elsewhere,
        })?;
        let first = span.first();
        // SAFETY: the bytes are mapped during the call; afterwards the card holds
        // their pages and goes by these, whatever is mapped there.
        let mr = unsafe { host::Mr::new(pd, first, len, at, access, Mapped::of(region)) };
        mr.map_err(|e| refused("a memory region", &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_siw_has_memory_placed_elsewhere() {
        assert_eq!(Placement::of(0x8086).mask(), 0);
        assert_ne!(Placement::of(SIW).mask(), 0);
    }
}
