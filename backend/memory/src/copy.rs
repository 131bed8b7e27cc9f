//! Copies between pieces of tenant memory.
#![allow(unsafe_code)] // copies through raw pointers that race with tenants

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering, fence};

/// Where a piece of a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// In a window. Valid while the region that it came from is registered.
    Mapped(NonNull<u8>),
    /// Only in the process: session number of the device, address.
    Remote {
        /// Session whose helper reaches it.
        session: u32,
        /// Address in that process.
        addr: u64,
    },
}

/// A contiguous piece of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where.
    pub target: Target,
    /// Bytes.
    pub len: u64,
}

// SAFETY: a piece is an address; whoever uses it proves that it is mapped.
unsafe impl Send for Piece {}

/// Copies tenant bytes at `from` into private memory.
///
/// # Safety
/// `out.len()` bytes from `from` are mapped.
#[inline]
pub unsafe fn load_bytes(from: NonNull<u8>, out: &mut [u8]) {
    // SAFETY: mapped by contract; private and tenant memory do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), out.as_mut_ptr(), out.len()) };
    // The copy is the only read: what follows judges the copy.
    fence(Ordering::Acquire);
}

/// Copies private bytes to tenant memory at `to`.
///
/// # Safety
/// `data.len()` bytes from `to` are mapped.
#[inline]
pub unsafe fn store_bytes(to: NonNull<u8>, data: &[u8]) {
    // SAFETY: mapped by contract; private and tenant memory do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to.as_ptr(), data.len()) };
}

/// Stores the byte that programs poll on: after all that was stored before.
///
/// # Safety
/// One byte at `to` is mapped.
#[inline]
pub unsafe fn store_last_byte(to: NonNull<u8>, value: u8) {
    // SAFETY: mapped by contract; a byte is always aligned.
    unsafe { AtomicU8::from_ptr(to.as_ptr()) }.store(value, Ordering::Release);
}

/// Copies `len` bytes, the last one after all others: programs poll on it.
///
/// # Safety
/// `len` bytes from `from` and from `to` are mapped; they may overlap.
#[inline]
unsafe fn copy_last_byte_last(from: NonNull<u8>, to: NonNull<u8>, len: usize) {
    let Some(body) = len.checked_sub(1) else {
        return;
    };
    // SAFETY: mapped by contract. The last byte is read first, since an
    // overlapping copy may overwrite it.
    unsafe {
        let last = from.add(body).as_ptr().read_volatile();
        std::ptr::copy(from.as_ptr(), to.as_ptr(), body);
        AtomicU8::from_ptr(to.add(body).as_ptr()).store(last, Ordering::Release);
    }
}

/// A place in a list of pieces.
struct Cursor<'a> {
    pieces: std::slice::Iter<'a, Piece>,
    now: Option<Piece>,
}

impl<'a> Cursor<'a> {
    fn new(pieces: &'a [Piece], mut skip: u64) -> Self {
        let mut pieces = pieces.iter();
        let mut now = pieces.next().copied();
        while let Some(piece) = now {
            if skip < piece.len {
                break;
            }
            skip -= piece.len;
            now = pieces.next().copied();
        }
        let mut cursor = Self { pieces, now };
        cursor.advance(skip);
        cursor
    }

    fn advance(&mut self, by: u64) {
        if let Some(piece) = &mut self.now {
            piece.len -= by.min(piece.len);
            match &mut piece.target {
                // SAFETY: stays within the piece, whose bytes are mapped.
                Target::Mapped(ptr) => *ptr = unsafe { ptr.add(by as usize) },
                Target::Remote { addr, .. } => *addr = addr.wrapping_add(by),
            }
            while let Some(piece) = &self.now {
                if piece.len > 0 {
                    break;
                }
                self.now = self.pieces.next().copied();
            }
        }
    }
}

/// Copies bytes `[offset, offset + max)` of a message from its gather list to
/// its scatter list and returns how many there were. The last byte of the
/// message is stored after all others.
///
/// Stops early, returning fewer bytes, at a piece that is not mapped.
///
/// # Safety
/// Every mapped piece is mapped for its whole length.
pub unsafe fn copy_pieces(from: &[Piece], to: &[Piece], offset: u64, max: u64, total: u64) -> u64 {
    let mut src = Cursor::new(from, offset);
    let mut dst = Cursor::new(to, offset);
    let end = total.min(offset.saturating_add(max));
    let mut at = offset;
    while at < end {
        let (Some(s), Some(d)) = (src.now, dst.now) else {
            break;
        };
        let (Target::Mapped(from), Target::Mapped(to)) = (s.target, d.target) else {
            break;
        };
        let len = s.len.min(d.len).min(end - at);
        if at + len == total {
            // SAFETY: within both pieces, mapped by contract.
            unsafe { copy_last_byte_last(from, to, len as usize) };
        } else {
            // SAFETY: within both pieces, mapped by contract.
            unsafe { std::ptr::copy(from.as_ptr(), to.as_ptr(), len as usize) };
        }
        at += len;
        src.advance(len);
        dst.advance(len);
    }
    at - offset
}
