//! What the standard library and rustix do not reach of Linux's sockets. All
//! unsafe code of the ports is below; what it offers is safe.

mod batch;
mod options;
mod ring;

pub(crate) mod address;
pub(crate) mod control;

pub(crate) use batch::{Arrival, Outgoing, ReceiveBatch, send_batch, send_one};
pub(crate) use options::{
    Filter, Instruction, attach_filter, attach_steering, dropped, interface_mtu, packet_drops, set,
};
pub(crate) use ring::{Frame, OFFLOAD_LEN, Offload, Ring};
