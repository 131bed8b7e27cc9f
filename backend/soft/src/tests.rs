//! Tests of the engine under virtual time, by drivers written from the layouts
//! of the specification.

use crate::harness;

mod allocation;
mod completions;
mod connected;
mod control;
mod datagram;
mod faults;
mod hostile;
mod lifecycle;
mod model;
mod multicast;
mod remote;
mod retry;
mod srq;
mod windows;
