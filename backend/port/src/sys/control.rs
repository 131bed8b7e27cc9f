//! Control messages as the kernel lays them out (cmsg(3)).

/// Length, level and type.
const HEADER: usize = size_of::<usize>() + 8;
const WORD: usize = size_of::<usize>();

/// Control messages of one datagram.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Control {
    bytes: [u8; Self::LEN],
    len: usize,
}

impl Control {
    /// Enough for four messages of up to 8 bytes.
    pub(crate) const LEN: usize = 4 * (HEADER + 8);

    pub(crate) const EMPTY: Self = Self {
        bytes: [0; Self::LEN],
        len: 0,
    };

    /// Bytes that count.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.bytes
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; Self::LEN] {
        &mut self.bytes
    }

    /// How much the kernel wrote.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len.min(Self::LEN);
    }

    /// Adds a message; one that does not fit is left out.
    pub(crate) fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
        let space = HEADER + value.len().next_multiple_of(WORD);
        let Some(to) = self.bytes.get_mut(self.len..self.len + space) else {
            debug_assert!(false, "control messages fit their buffer");
            return;
        };
        let length = (HEADER + value.len()).to_ne_bytes();
        let (level, kind) = (level.to_ne_bytes(), kind.to_ne_bytes());
        let parts = [&length[..], &level, &kind, value];
        to.fill(0);
        for (to, from) in to.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        self.len += space;
    }

    /// Level, type and value of each message.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let mut rest = self.bytes.get(..self.len).unwrap_or(&[]);
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk::<WORD>()?;
            let (level, after) = after.split_first_chunk::<4>()?;
            let (kind, after) = after.split_first_chunk::<4>()?;
            let len = usize::from_ne_bytes(*len).checked_sub(HEADER)?;
            let value = after.get(..len)?;
            rest = after.get(len.next_multiple_of(WORD)..).unwrap_or(&[]);
            let (level, kind) = (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind));
            Some((level, kind, value))
        })
    }
}

/// A value of one, two or four bytes, as the kernel has all of them.
pub(crate) fn number(value: &[u8]) -> Option<i32> {
    match *value {
        [byte] => Some(i32::from(byte)),
        [a, b] => Some(i32::from(u16::from_ne_bytes([a, b]))),
        [a, b, c, d, ..] => Some(i32::from_ne_bytes([a, b, c, d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_read_again() {
        let mut control = Control::EMPTY;
        control.push(1, 2, &[7]);
        control.push(3, 4, &0x1234u16.to_ne_bytes());
        control.push(5, 6, &(-9i32).to_ne_bytes());
        assert_eq!(control.len(), 72);
        let read: Vec<_> = control
            .messages()
            .map(|(level, kind, value)| (level, kind, number(value).unwrap()))
            .collect();
        assert_eq!(read, [(1, 2, 7), (3, 4, 0x1234), (5, 6, -9)]);
    }

    #[test]
    fn lengths_that_lie_end_the_list() {
        let mut control = Control::EMPTY;
        control.push(1, 2, &[7]);
        for len in [0usize, 15, 200, usize::MAX] {
            control.bytes_mut()[..8].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(control.messages().count(), 0);
        }
    }
}
