//! A session's memory as the device sees it, by file reads and writes: no mapping.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The shared file, and the process for what lies outside of it.
pub(crate) struct Memory {
    pub(crate) shared: File,
    pub(crate) process: File,
}

impl Memory {
    pub(crate) fn get<T: FromBytes + IntoBytes>(&self, addr: u64) -> T {
        let mut value = T::new_zeroed();
        self.shared
            .read_exact_at(value.as_mut_bytes(), addr)
            .unwrap();
        value
    }

    pub(crate) fn put<T: IntoBytes + Immutable + ?Sized>(&self, addr: u64, value: &T) {
        self.shared.write_all_at(value.as_bytes(), addr).unwrap();
    }

    pub(crate) fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.shared.read_exact_at(&mut bytes, addr).unwrap();
        bytes
    }
}
