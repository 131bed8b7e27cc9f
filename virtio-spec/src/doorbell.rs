//! The doorbell page (SPEC clause 5): device memory, mapped into the driver.
//!
//! The driver sets the bit of a send queue after publishing work on it; the
//! device swaps words to zero as it serves them. A set bit is a hint: the
//! device looks at the queue and believes only what it finds there.

/// Bytes of the page.
pub const PAGE_LEN: usize = 4096;

/// Offset of the u32 *armed* word, written by the device: 1 while it sleeps.
/// A driver that set a doorbell bit and then reads 1 writes the kick eventfd of
/// the asynchronous-event queue, which has no other use for it
/// (clause 5.3 gives the order of the accesses).
pub const ARMED: usize = 0;

/// Offset of the four u64 *summary* words, written by both sides: bit `w % 64`
/// of word `w / 64` says that bitmap word `w` may be nonzero.
pub const SUMMARY: usize = 64;
/// Number of summary words.
pub const SUMMARY_WORDS: usize = 4;

/// Offset of the u64 *bitmap* words, written by both sides: bit `s % 64` of
/// word `s / 64` is doorbell slot `s`.
pub const BITMAP: usize = 128;
/// Number of bitmap words.
pub const BITMAP_WORDS: usize = 256;

/// Doorbell slots of one session.
pub const MAX_SLOTS: u32 = (BITMAP_WORDS * 64) as u32;

const _: () = assert!(BITMAP + BITMAP_WORDS * 8 <= PAGE_LEN);
