//! Base transport header (IBA 5.2, 9.2).
//!
//! ```text
//!  0: opcode | SE M Pad(2) TVer(4) | P_Key
//!  4: resv8a: F B resv6            | destination QP (24)
//!  8: A resv7                      | PSN (24)
//! ```

use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Opcode, PKey, Psn, Qpn};

const SOLICITED: u8 = 0x80;
const MIG_REQ: u8 = 0x40;
const PAD: u8 = 0x30;
const TVER: u8 = 0x0f;
const FECN: u8 = 0x80;
const BECN: u8 = 0x40;
const ACK_REQUEST: u8 = 0x80;

/// The header's fields. The pad count is not among them: it follows from the
/// payload. The transport version is always 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bth {
    /// What the packet is.
    pub opcode: Opcode,
    /// The receiver raises an event for it, if its CQ is armed for solicited
    /// ones (IBA 9.2.3).
    pub solicited: bool,
    /// The migration state: set says migrated (IBA 9.2.4).
    pub mig_req: bool,
    /// Partition.
    pub pkey: PKey,
    /// Congestion was met on the way; unused in RoCEv2, which has ECN in the
    /// IP header.
    pub fecn: bool,
    /// Congestion is reported back; set in a CNP.
    pub becn: bool,
    /// The receiving queue pair.
    pub dest_qpn: Qpn,
    /// The requester asks for an ACK of this packet (IBA 9.2.9).
    pub ack_request: bool,
    /// The packet's number.
    pub psn: Psn,
}

impl Bth {
    /// A header with no flag set, in the default partition.
    pub const fn new(opcode: Opcode, dest_qpn: Qpn, psn: Psn) -> Self {
        Self {
            opcode,
            solicited: false,
            mig_req: false,
            pkey: PKey::DEFAULT,
            fecn: false,
            becn: false,
            dest_qpn,
            ack_request: false,
            psn,
        }
    }

    /// The header's bytes in front of a payload of `payload` bytes.
    pub fn to_bytes(&self, payload: usize) -> BthBytes {
        let flag = |set, bit| if set { bit } else { 0 };
        // Below 4, so that it fits its two bits.
        let pad = (crate::pad_count(payload) as u8) << 4;
        BthBytes {
            opcode: self.opcode.code(),
            flags: flag(self.solicited, SOLICITED) | flag(self.mig_req, MIG_REQ) | pad,
            pkey: self.pkey.0.into(),
            resv8a: flag(self.fecn, FECN) | flag(self.becn, BECN),
            dest_qpn: self.dest_qpn.to_be(),
            ack: flag(self.ack_request, ACK_REQUEST),
            psn: self.psn.to_be(),
        }
    }
}

/// The header as it lies in a packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct BthBytes {
    opcode: u8,
    flags: u8,
    pkey: U16<BE>,
    resv8a: u8,
    dest_qpn: [u8; 3],
    ack: u8,
    psn: [u8; 3],
}

impl BthBytes {
    /// The code of the opcode, known or not.
    pub const fn code(&self) -> u8 {
        self.opcode
    }

    /// The opcode, if it is known.
    pub const fn opcode(&self) -> Option<Opcode> {
        Opcode::from_code(self.opcode)
    }

    /// Solicited event.
    pub const fn solicited(&self) -> bool {
        self.flags & SOLICITED != 0
    }

    /// Migration state.
    pub const fn mig_req(&self) -> bool {
        self.flags & MIG_REQ != 0
    }

    /// Pad count, 0 to 3.
    pub const fn pad(&self) -> u8 {
        (self.flags & PAD) >> 4
    }

    /// Transport header version.
    pub const fn tver(&self) -> u8 {
        self.flags & TVER
    }

    /// Partition key.
    pub fn pkey(&self) -> PKey {
        PKey(self.pkey.get())
    }

    /// Forward congestion notification.
    pub const fn fecn(&self) -> bool {
        self.resv8a & FECN != 0
    }

    /// Backward congestion notification.
    pub const fn becn(&self) -> bool {
        self.resv8a & BECN != 0
    }

    /// Destination queue pair.
    pub const fn dest_qpn(&self) -> Qpn {
        Qpn::from_be(self.dest_qpn)
    }

    /// Acknowledge request.
    pub const fn ack_request(&self) -> bool {
        self.ack & ACK_REQUEST != 0
    }

    /// Packet sequence number.
    pub const fn psn(&self) -> Psn {
        Psn::from_be(self.psn)
    }

    /// The fields as a plain struct; none if the opcode is unknown.
    pub fn to_bth(&self) -> Option<Bth> {
        Some(Bth {
            opcode: self.opcode()?,
            solicited: self.solicited(),
            mig_req: self.mig_req(),
            pkey: self.pkey(),
            fecn: self.fecn(),
            becn: self.becn(),
            dest_qpn: self.dest_qpn(),
            ack_request: self.ack_request(),
            psn: self.psn(),
        })
    }

    /// As the invariant CRC sees it: `resv8a` may change on the way (A17).
    pub(crate) fn masked(&self) -> Self {
        Self {
            resv8a: 0xff,
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_one_bit_of_the_header() {
        let plain = Bth::new(Opcode::RcSendOnly, Qpn::new(0x12_3456), Psn::new(0xab_cdef));
        let bytes = |bth: Bth| bth.to_bytes(0).as_bytes().to_vec();
        assert_eq!(
            bytes(plain),
            [4, 0, 0xff, 0xff, 0, 0x12, 0x34, 0x56, 0, 0xab, 0xcd, 0xef]
        );
        let differs = |bth: Bth| {
            let at: Vec<_> = (0..12)
                .filter(|i| bytes(bth)[*i] != bytes(plain)[*i])
                .collect();
            (at[0], bytes(bth)[at[0]], at.len())
        };
        let with = |set: fn(&mut Bth)| {
            let mut bth = plain;
            set(&mut bth);
            differs(bth)
        };
        assert_eq!(with(|bth| bth.solicited = true), (1, 0x80, 1));
        assert_eq!(with(|bth| bth.mig_req = true), (1, 0x40, 1));
        assert_eq!(with(|bth| bth.fecn = true), (4, 0x80, 1));
        assert_eq!(with(|bth| bth.becn = true), (4, 0x40, 1));
        assert_eq!(with(|bth| bth.ack_request = true), (8, 0x80, 1));
        assert_eq!(plain.to_bytes(5).as_bytes()[1], 0x30);
    }
}
