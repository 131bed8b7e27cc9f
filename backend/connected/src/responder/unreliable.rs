//! UC (IBA 9.8.2.2): a message arrives whole or not at all, and nobody is told.

use super::{Arrival, Executes, Refusal, Responder};
use crate::{Fate, Memory};
use masq_wire::Headers;

/// A packet that is less far behind repeats an older one; one that is farther
/// comes after a long gap.
const BEHIND: u64 = 1 << 16;

impl Responder {
    pub(super) fn unreliable(
        &mut self,
        headers: &Headers,
        payload: usize,
        memory: &mut impl Memory,
    ) -> Arrival {
        let seq = self.expected.nearest(headers.bth.psn);
        if seq < self.expected && self.expected.since(seq) <= BEHIND {
            return Fate::Duplicate.into();
        }
        // A gap, or a beginning where none was due, ends the message that was
        // arriving; its receive is kept for the next.
        let begins = headers.bth.opcode.traits().position.begins();
        let gap = seq != self.expected;
        if gap || begins {
            self.message = None;
        }
        self.expected = seq.plus(1);
        if self.message.is_none() && !begins {
            return match gap {
                true => Fate::OutOfOrder.into(),
                false => Fate::Dropped.into(),
            };
        }
        match self.execute(headers, payload, memory) {
            Ok(Executes { delivery, .. }) => self.taken(delivery),
            Err(Refusal::NotReady) => {
                self.message = None;
                Fate::NotReady.into()
            }
            Err(Refusal::Fault(fault)) => self.fault(fault),
        }
    }
}
