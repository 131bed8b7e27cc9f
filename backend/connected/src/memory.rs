//! How the state machines reach bytes. They never see any: whoever implements
//! these traits holds the payload of the packet that is being handled.

use masq_spec::queue::WcStatus;
use masq_transport::{AtomicOp, Need, ResponderFault};
use masq_wire::RKey;

/// The responder's memory and receives.
pub trait Memory {
    /// Takes the next receive and tells how many bytes it holds; none if none
    /// is posted. It is held until [`Arrival::delivery`](crate::Arrival) or
    /// [`Arrival::failure`](crate::Arrival) says that it ended.
    fn take_receive(&mut self) -> Option<u64>;

    /// Copies the payload into the receive that was taken, `offset` bytes from
    /// its start.
    ///
    /// # Errors
    /// [`ResponderFault::ReceiveProtection`] or [`ResponderFault::Memory`].
    fn place_receive(&mut self, offset: u64, len: u32) -> Result<(), ResponderFault>;

    /// Checks a whole request before anything of it is carried out, by
    /// [`check_key`](masq_transport::check_key).
    ///
    /// # Errors
    /// [`ResponderFault::Access`].
    fn check(&mut self, need: Need, key: RKey, addr: u64, len: u32) -> Result<(), ResponderFault>;

    /// Copies the payload to `addr`, checking the key once more: it may have
    /// been revoked in mid-message.
    ///
    /// # Errors
    /// [`ResponderFault::Access`] or [`ResponderFault::Memory`].
    fn place(&mut self, key: RKey, addr: u64, len: u32) -> Result<(), ResponderFault>;

    /// Carries out an atomic and returns the value before it. None says that
    /// it was begun and that its value will be told by
    /// [`Responder::atomic_done`](crate::Responder::atomic_done), in order.
    ///
    /// # Errors
    /// [`ResponderFault::Access`] or [`ResponderFault::Memory`].
    fn atomic(&mut self, key: RKey, addr: u64, op: AtomicOp)
    -> Result<Option<u64>, ResponderFault>;

    /// Invalidates a key for the peer (SEND with invalidate).
    ///
    /// # Errors
    /// [`ResponderFault::Access`].
    fn invalidate(&mut self, key: RKey) -> Result<(), ResponderFault>;

    /// Receives that are posted, if the peer is to be told (IBA 9.7.7.2);
    /// shared receive queues tell nothing.
    fn credits(&self) -> Option<u32> {
        None
    }
}

/// The requester's own pieces, for what answers carry.
pub trait Landing {
    /// Copies the payload to the pieces of request `id`, `offset` bytes from
    /// their start.
    ///
    /// # Errors
    /// The status with which the request completes.
    fn place(&mut self, id: u64, offset: u32, len: u32) -> Result<(), WcStatus>;

    /// Stores the value that an atomic found.
    ///
    /// # Errors
    /// The status with which the request completes.
    fn place_atomic(&mut self, id: u64, original: u64) -> Result<(), WcStatus>;
}
