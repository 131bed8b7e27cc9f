//! Tests of the engine under virtual time, by drivers written from the layouts
//! of the specification.

#![allow(clippy::duplicate_mod)] // one suite, two networks

use crate::harness;

mod allocation;
mod capture;
mod control;
mod datagram;
mod hostile;
mod lifecycle;
mod model;
mod multicast;
mod retry;
mod wire;

/// There is one rule book: these hold whether the peer is on this host …
#[path = "tests"]
mod same_host {
    use crate::harness::{self, World};

    const WIRED: bool = false;

    fn world() -> World {
        World::pair_of_processes()
    }

    mod completions;
    mod connected;
    mod faults;
    mod remote;
    mod srq;
    mod windows;
}

/// … or on another.
#[path = "tests"]
mod two_hosts {
    use crate::harness::{self, World};

    const WIRED: bool = true;

    fn world() -> World {
        World::pair_over_the_wire()
    }

    mod completions;
    mod connected;
    mod faults;
    mod remote;
    mod srq;
    mod windows;
}
