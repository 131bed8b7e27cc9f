//! "Whose is this queue pair?": what one masq asks another, so that a receiver of
//! datagrams sees its sender's virtual address.
//!
//! A management datagram of the vendor's range with an OUI (IBA 13.4.2, 16.5):
//!
//! ```text
//!   0: base version 1 | class 0x3b | class version 1 | method: 1 Get, 0x81 GetResp
//!   4: status, 0: known; 12 (unsupported attribute value): unknown
//!  16: attribute 0x4d51
//!  24: RMPP, zeros
//!  37: OUI 02-6d-71 (locally administered)
//!  40: queue pair number (24 bits in 4 bytes) | GID
//! ```

use masq_device::MAD_LEN;
use masq_spec::verbs::Gid;
use masq_wire::Qpn;
use zerocopy::byteorder::{BE, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const CLASS: u8 = 0x3b;
const GET: u8 = 0x01;
const GET_RESPONSE: u8 = 0x81;
const ATTRIBUTE: u16 = 0x4d51;
const OUI: [u8; 3] = [0x02, 0x6d, 0x71];
const UNKNOWN: u16 = 12;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    base_version: u8,
    class: u8,
    class_version: u8,
    method: u8,
    status: U16<BE>,
    class_specific: [u8; 2],
    transaction: U64<BE>,
    attribute: U16<BE>,
    reserved0: [u8; 2],
    modifier: U32<BE>,
    rmpp: [u8; 12],
    reserved1: u8,
    oui: [u8; 3],
    qpn: U32<BE>,
    gid: Gid,
    rest: [u8; 196],
}
const _: () = assert!(size_of::<Layout>() == MAD_LEN);

/// A question or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of the queue pair with this number.
    Question(Qpn),
    /// It belongs to the endpoint with this GID, or to nobody.
    Answer(Qpn, Option<Gid>),
}

impl Whose {
    pub(super) fn encode(self) -> [u8; MAD_LEN] {
        let mut mad = Layout::new_zeroed();
        (mad.base_version, mad.class, mad.class_version) = (1, CLASS, 1);
        mad.attribute = U16::new(ATTRIBUTE);
        mad.oui = OUI;
        let (method, qpn) = match self {
            Self::Question(qpn) => (GET, qpn),
            Self::Answer(qpn, gid) => {
                mad.status = U16::new(if gid.is_some() { 0 } else { UNKNOWN });
                mad.gid = gid.unwrap_or_default();
                (GET_RESPONSE, qpn)
            }
        };
        mad.method = method;
        mad.qpn = U32::new(qpn.get());
        mad.transaction = U64::new(u64::from(qpn.get()));
        zerocopy::transmute!(mad)
    }

    pub(super) fn decode(bytes: &[u8; MAD_LEN]) -> Option<Self> {
        let mad = Layout::ref_from_bytes(bytes).ok()?;
        let is_ours = (mad.base_version, mad.class, mad.class_version) == (1, CLASS, 1)
            && mad.attribute.get() == ATTRIBUTE
            && mad.oui == OUI;
        let qpn = mad.qpn.get();
        if !is_ours || qpn > 0xff_ffff {
            return None;
        }
        let qpn = Qpn::new(qpn);
        match mad.method {
            GET => Some(Self::Question(qpn)),
            GET_RESPONSE => Some(Self::Answer(
                qpn,
                (mad.status.get() == 0).then_some(mad.gid),
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_and_answers_come_through() {
        let qpn = Qpn::new(0x12_3456);
        for whose in [
            Whose::Question(qpn),
            Whose::Answer(qpn, Some([7; 16])),
            Whose::Answer(qpn, None),
        ] {
            assert_eq!(Whose::decode(&whose.encode()), Some(whose));
        }
        let mut foreign = Whose::Question(qpn).encode();
        foreign[37] ^= 1;
        assert_eq!(Whose::decode(&foreign), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_more_than_they_say(bytes: Vec<u8>) {
            let mut mad = [0; MAD_LEN];
            for (to, from) in mad.iter_mut().zip(bytes) {
                *to = from;
            }
            prop_assert!(Whose::decode(&mad).is_none());
        }
    }
}
