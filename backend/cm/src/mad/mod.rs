//! Messages as management datagrams: 256 bytes on QP 1 (IBA 13.4, 12.6, 12.11).
//!
//! Each message is described once, as a list of fields at their places; the same
//! list reads and writes. Reserved bits are written as zeros and not read.

mod fields;
mod layout;

use crate::message::Message;
use fields::{Reader, Writer};

/// Bytes of a MAD.
pub const MAD: usize = 256;
/// Bytes of its header.
const HEADER: usize = 24;
/// Bytes behind it.
const BODY: usize = MAD - HEADER;

/// Version of MADs, class of communication management, its version, method Send.
const START: [u8; 4] = [1, 0x07, 2, 0x03];
const METHOD_SEND: u8 = 0x03;

/// Why bytes are no message of communication management.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MadError {
    /// Not 256 bytes.
    #[error("a MAD has {MAD} bytes")]
    Length,
    /// Another class, version or method.
    #[error("not communication management")]
    Class,
    /// An attribute that this connection manager does not speak, such as the
    /// loading of alternate paths.
    #[error("unknown attribute {0:#06x}")]
    Attribute(u16),
}

/// A message and the transaction that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mad {
    /// Chosen by who begins the exchange, kept by its answers.
    pub transaction: u64,
    /// The message.
    pub message: Message,
}

impl Mad {
    /// The MAD as it travels.
    pub fn encode(&self) -> [u8; MAD] {
        let mut message = self.message.clone();
        let mut writer = Writer::default();
        let (attribute, modifier) = layout::describe(&mut message, &mut writer);
        let mut out = [0; MAD];
        let head = START
            .into_iter()
            .chain([0; 4])
            .chain(self.transaction.to_be_bytes())
            .chain(attribute.to_be_bytes())
            .chain([0; 2])
            .chain(modifier.to_be_bytes());
        for (to, from) in out.iter_mut().zip(head.chain(writer.into_bytes())) {
            *to = from;
        }
        out
    }

    /// Reads a MAD.
    ///
    /// # Errors
    /// Says why it is no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, MadError> {
        let bytes: &[u8; MAD] = bytes.try_into().map_err(|_| MadError::Length)?;
        let head = Reader::new(bytes);
        let [version, class, class_version, method] = head.array(0);
        // Bit 7 of the method is the response bit, of no meaning here.
        if [version, class, class_version, method & 0x7f] != [1, 0x07, 2, METHOD_SEND] {
            return Err(MadError::Class);
        }
        let attribute = u16::from_be_bytes(head.array(16));
        let mut message = layout::empty(attribute).ok_or(MadError::Attribute(attribute))?;
        let mut body = Reader::new(bytes.get(HEADER..).unwrap_or_default());
        layout::describe(&mut message, &mut body);
        layout::set_modifier(&mut message, u32::from_be_bytes(head.array(20)));
        Ok(Self {
            transaction: u64::from_be_bytes(head.array(8)),
            message,
        })
    }
}

#[cfg(test)]
mod tests;
