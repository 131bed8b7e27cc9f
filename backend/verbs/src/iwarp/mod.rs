//! Queue pairs of iWARP cards. Verbs alone cannot connect them: only the kernel's
//! connection manager can (RFC 5044, MPA over TCP). So masqd keeps what a program set
//! by RTR and RTS, and has the kernel connect the card's queue pair to the one of the
//! peer's masqd; work requests wait until it has (docs/adr/0021).

mod address;
mod connector;
mod modify;
mod place;
mod table;
mod words;

pub(crate) use address::own_address;
pub(crate) use connector::Connector;
pub(crate) use place::{Placement, has_iova, reserve};
