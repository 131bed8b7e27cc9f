//! Where the card finds a tenant's memory.

use masq_device::{DeviceError, Result};
use masq_memory::{MemoryError, Mirror, Mirrored, Piece, Region, Span, Target};
use std::ptr::NonNull;

const SCATTERED: DeviceError =
    DeviceError::Unsupported("memory of which a part cannot be shared with the card");

/// A region, and the mapping of it that the card has.
pub(crate) struct Mapped {
    /// If the region itself is not in one piece.
    span: Option<Span>,
    /// If peers may reach it on a card that goes by where memory is mapped.
    mirrored: Option<Mirrored>,
    pub(crate) region: Region,
}

impl Mapped {
    /// Has the whole region in one piece.
    pub(crate) fn of(region: Region) -> Result<Self> {
        let span = match whole(&region) {
            Some(_) => None,
            None => Some(Span::of(&region).map_err(|error| match error {
                MemoryError::Host { .. } => DeviceError::Exhausted("mappings"),
                _ => SCATTERED,
            })?),
        };
        Ok(Self {
            span,
            mirrored: None,
            region,
        })
    }

    /// Maps a region at `at`, where peers' masqds take it to be.
    pub(crate) fn mirrored(mirror: Option<&mut Mirror>, region: Region, at: u64) -> Result<Self> {
        let mirror = mirror.ok_or(DeviceError::Exhausted("addresses for this card"))?;
        let mirrored = mirror.map(&region, at).map_err(|error| match error {
            MemoryError::Scattered => SCATTERED,
            MemoryError::Host { .. } => DeviceError::Exhausted("mappings"),
            _ => DeviceError::Exhausted("room at such addresses for this card"),
        })?;
        Ok(Self {
            span: None,
            mirrored: Some(mirrored),
            region,
        })
    }

    /// Where it begins.
    pub(crate) fn first(&self) -> Option<NonNull<u8>> {
        let mirrored = self.mirrored.as_ref().map(Mirrored::first);
        let span = self.span.as_ref().map(Span::first);
        mirrored.or(span).or_else(|| whole(&self.region))
    }
}

/// Where a region begins that is in one piece.
fn whole(region: &Region) -> Option<NonNull<u8>> {
    let mut pieces = Vec::with_capacity(1);
    let is_whole = region.pieces(0, 0, region.len(), &mut pieces);
    match pieces.as_slice() {
        [
            Piece {
                target: Target::Mapped(at),
                ..
            },
        ] if is_whole => Some(*at),
        _ => None,
    }
}
