//! Tables of typed handles, one a session and kind.

use masq_device::Handle;
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// Objects of one kind by handle. Handles are never 0 and are not used again
/// before 2^32 others were.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    objects: BTreeMap<Handle, T>,
    last: Handle,
    kind: PhantomData<T>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            last: 0,
            kind: PhantomData,
        }
    }
}

impl<T> Handles<T> {
    /// A handle that is free.
    pub(crate) fn reserve(&mut self) -> Handle {
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            if !self.objects.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    pub(crate) fn insert(&mut self, handle: Handle, object: T) {
        self.objects.insert(handle, object);
    }

    pub(crate) fn get(&self, handle: Handle) -> Option<&T> {
        self.objects.get(&handle)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        self.objects.get_mut(&handle)
    }

    pub(crate) fn remove(&mut self, handle: Handle) -> Option<T> {
        self.objects.remove(&handle)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.objects
            .iter()
            .map(|(handle, object)| (*handle, object))
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }
}
