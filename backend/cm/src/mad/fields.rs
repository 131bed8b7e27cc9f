//! Fields at their places: one description reads and writes.

use super::BODY;
use crate::message::Private;

/// Reads or writes fields of a body. Offsets are in bytes, and in bits from the
/// most significant one, as IBA counts.
pub(super) trait Fields {
    /// A field of `width` bits, `bit` bits behind the start of byte `at`; at most
    /// 64 bits, and with `bit` at most 72.
    fn bits(&mut self, at: usize, bit: u32, width: u32, value: &mut u64);
    /// `field` bytes.
    fn bytes(&mut self, at: usize, value: &mut [u8]);
    /// `len` bytes of private data.
    fn private(&mut self, at: usize, len: usize, value: &mut Private);

    /// An integer of `width` bits.
    fn int<T>(&mut self, at: usize, bit: u32, width: u32, value: &mut T)
    where
        T: Copy + Into<u64> + TryFrom<u64>,
    {
        let mut wide = (*value).into();
        self.bits(at, bit, width, &mut wide);
        if let Ok(narrow) = T::try_from(wide) {
            *value = narrow;
        }
    }

    /// One bit.
    fn flag(&mut self, at: usize, bit: u32, value: &mut bool) {
        let mut wide = u64::from(*value);
        self.bits(at, bit, 1, &mut wide);
        *value = wide != 0;
    }
}

/// Reads a body; what lies behind its end is zero.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(self.0.iter().skip(at)) {
            *to = *from;
        }
        out
    }
}

impl Fields for Reader<'_> {
    fn bits(&mut self, at: usize, bit: u32, width: u32, value: &mut u64) {
        let window = u128::from_be_bytes(self.array(at));
        *value = (window << bit >> (128 - width)) as u64;
    }

    fn bytes(&mut self, at: usize, value: &mut [u8]) {
        for (to, from) in value.iter_mut().zip(self.0.iter().skip(at)) {
            *to = *from;
        }
    }

    fn private(&mut self, at: usize, len: usize, value: &mut Private) {
        *value = Private::new(self.0.get(at..at + len).unwrap_or_default());
    }
}

/// Writes a body.
pub(super) struct Writer([u8; BODY]);

impl Default for Writer {
    fn default() -> Self {
        Self([0; BODY])
    }
}

impl Writer {
    pub(super) const fn into_bytes(self) -> [u8; BODY] {
        self.0
    }
}

impl Fields for Writer {
    fn bits(&mut self, at: usize, bit: u32, width: u32, value: &mut u64) {
        let mask = u128::MAX >> (128 - width);
        let window = (u128::from(*value) & mask) << (128 - width - bit);
        for (to, from) in self.0.iter_mut().skip(at).zip(window.to_be_bytes()) {
            *to |= from;
        }
    }

    fn bytes(&mut self, at: usize, value: &mut [u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(value.iter()) {
            *to = *from;
        }
    }

    fn private(&mut self, at: usize, len: usize, value: &mut Private) {
        for (to, from) in self.0.iter_mut().skip(at).take(len).zip(value.bytes()) {
            *to = *from;
        }
    }
}
