//! No directory but the policy: what it does not place lives on this host.

use crate::{Change, Claim, Directory, State};
use masq_policy::EndpointId;
use std::os::fd::BorrowedFd;

/// The directory of a masqd that asks nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Embedded;

impl Directory for Embedded {
    fn hears_others(&self) -> bool {
        false
    }

    fn announce(&self, _: Claim) {}

    fn withdraw(&self, _: &EndpointId) {}

    fn changes(&self) -> Vec<Change> {
        Vec::new()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn state(&self) -> State {
        State {
            kind: "embedded",
            ..State::default()
        }
    }
}
