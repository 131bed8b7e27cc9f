//! The other extended transport headers (IBA 5.2, 9.3), and the enum of those
//! that may stand together.

use zerocopy::byteorder::{BE, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Aeth, AethBytes, Layout, QKey, Qpn, RKey};

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
        )]
        #[repr(C)]
        pub struct $name { $($field: $type),* }
    };
}

/// RDMA extended transport header: which memory a WRITE or READ is about (IBA
/// 9.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reth {
    /// Virtual address at the responder.
    pub address: u64,
    /// Its key.
    pub rkey: RKey,
    /// Bytes of the whole message.
    pub length: u32,
}

layout! {
    /// A RETH in a packet.
    RethBytes { address: U64<BE>, rkey: U32<BE>, length: U32<BE> }
}

impl RethBytes {
    /// Virtual address at the responder.
    pub fn address(&self) -> u64 {
        self.address.get()
    }

    /// Remote key.
    pub fn rkey(&self) -> RKey {
        RKey(self.rkey.get())
    }

    /// Bytes of the whole message ("DMA length").
    pub fn length(&self) -> u32 {
        self.length.get()
    }
}

impl From<Reth> for RethBytes {
    fn from(reth: Reth) -> Self {
        Self {
            address: reth.address.into(),
            rkey: reth.rkey.0.into(),
            length: reth.length.into(),
        }
    }
}

impl From<&RethBytes> for Reth {
    fn from(bytes: &RethBytes) -> Self {
        Self {
            address: bytes.address(),
            rkey: bytes.rkey(),
            length: bytes.length(),
        }
    }
}

/// Atomic extended transport header (IBA 9.3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtomicEth {
    /// Virtual address at the responder, a multiple of 8.
    pub address: u64,
    /// Its key.
    pub rkey: RKey,
    /// What is stored by a compare and swap, or added.
    pub swap_add: u64,
    /// What is compared; of no meaning when adding.
    pub compare: u64,
}

layout! {
    /// An AtomicETH in a packet.
    AtomicEthBytes { address: U64<BE>, rkey: U32<BE>, swap_add: U64<BE>, compare: U64<BE> }
}

impl AtomicEthBytes {
    /// Virtual address at the responder.
    pub fn address(&self) -> u64 {
        self.address.get()
    }

    /// Remote key.
    pub fn rkey(&self) -> RKey {
        RKey(self.rkey.get())
    }

    /// What is swapped in or added.
    pub fn swap_add(&self) -> u64 {
        self.swap_add.get()
    }

    /// What is compared.
    pub fn compare(&self) -> u64 {
        self.compare.get()
    }
}

impl From<AtomicEth> for AtomicEthBytes {
    fn from(atomic: AtomicEth) -> Self {
        Self {
            address: atomic.address.into(),
            rkey: atomic.rkey.0.into(),
            swap_add: atomic.swap_add.into(),
            compare: atomic.compare.into(),
        }
    }
}

impl From<&AtomicEthBytes> for AtomicEth {
    fn from(bytes: &AtomicEthBytes) -> Self {
        Self {
            address: bytes.address(),
            rkey: bytes.rkey(),
            swap_add: bytes.swap_add(),
            compare: bytes.compare(),
        }
    }
}

/// Atomic acknowledge extended transport header: what was there before (IBA
/// 9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtomicAckEth {
    /// The value before the operation.
    pub original: u64,
}

layout! {
    /// An AtomicAckETH in a packet.
    AtomicAckEthBytes { original: U64<BE> }
}

impl AtomicAckEthBytes {
    /// The value before the operation.
    pub fn original(&self) -> u64 {
        self.original.get()
    }
}

/// Datagram extended transport header (IBA 9.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deth {
    /// Must be the receiver's.
    pub qkey: QKey,
    /// Who sends.
    pub src_qpn: Qpn,
}

layout! {
    /// A DETH in a packet.
    DethBytes { qkey: U32<BE>, reserved: u8, src_qpn: [u8; 3] }
}

impl DethBytes {
    /// Queue key.
    pub fn qkey(&self) -> QKey {
        QKey(self.qkey.get())
    }

    /// The sending queue pair.
    pub const fn src_qpn(&self) -> Qpn {
        Qpn::from_be(self.src_qpn)
    }
}

impl From<Deth> for DethBytes {
    fn from(deth: Deth) -> Self {
        Self {
            qkey: deth.qkey.0.into(),
            reserved: 0,
            src_qpn: deth.src_qpn.to_be(),
        }
    }
}

impl From<&DethBytes> for Deth {
    fn from(bytes: &DethBytes) -> Self {
        Self {
            qkey: bytes.qkey(),
            src_qpn: bytes.src_qpn(),
        }
    }
}

/// Immediate data, in the byte order in which programs gave it (IBA 9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImmDt(pub [u8; 4]);

layout! {
    /// An ImmDt in a packet.
    ImmDtBytes { data: [u8; 4] }
}

impl ImmDtBytes {
    /// The four bytes.
    pub const fn data(&self) -> [u8; 4] {
        self.data
    }
}

/// Invalidate extended transport header (IBA 9.3, annex A9): the receiver's
/// key that goes with the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ieth {
    /// The key.
    pub rkey: RKey,
}

layout! {
    /// An IETH in a packet.
    IethBytes { rkey: U32<BE> }
}

impl IethBytes {
    /// The key to invalidate.
    pub fn rkey(&self) -> RKey {
        RKey(self.rkey.get())
    }
}

/// The extended headers of one packet: what may stand together, and nothing
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// None.
    Plain,
    /// Immediate data.
    Imm(ImmDt),
    /// A key to invalidate.
    Inv(Ieth),
    /// A WRITE or READ begins.
    Reth(Reth),
    /// A WRITE with immediate data, in one packet.
    RethImm(Reth, ImmDt),
    /// An answer.
    Aeth(Aeth),
    /// The answer to an atomic.
    AtomicAck(Aeth, AtomicAckEth),
    /// An atomic.
    Atomic(AtomicEth),
    /// A datagram.
    Deth(Deth),
    /// A datagram with immediate data.
    DethImm(Deth, ImmDt),
    /// The reserved bytes of a CNP.
    Cnp,
}

impl Extended {
    /// Which headers they are.
    pub const fn layout(&self) -> Layout {
        match self {
            Self::Plain => Layout::Plain,
            Self::Imm(_) => Layout::Imm,
            Self::Inv(_) => Layout::Inv,
            Self::Reth(_) => Layout::Reth,
            Self::RethImm(..) => Layout::RethImm,
            Self::Aeth(_) => Layout::Aeth,
            Self::AtomicAck(..) => Layout::AtomicAck,
            Self::Atomic(_) => Layout::Atomic,
            Self::Deth(_) => Layout::Deth,
            Self::DethImm(..) => Layout::DethImm,
            Self::Cnp => Layout::Cnp,
        }
    }

    /// Reads the headers of a layout; none if there are too few bytes.
    pub fn read(layout: Layout, bytes: &[u8]) -> Option<Self> {
        Some(match layout {
            Layout::Plain => Self::Plain,
            Layout::Imm => Self::Imm(imm(bytes)?),
            Layout::Inv => Self::Inv(Ieth {
                rkey: first::<IethBytes>(bytes)?.rkey(),
            }),
            Layout::Reth => Self::Reth(first::<RethBytes>(bytes)?.into()),
            Layout::RethImm => {
                let (reth, rest) = RethBytes::ref_from_prefix(bytes).ok()?;
                Self::RethImm(reth.into(), imm(rest)?)
            }
            Layout::Aeth => Self::Aeth(first::<AethBytes>(bytes)?.into()),
            Layout::AtomicAck => {
                let (aeth, rest) = AethBytes::ref_from_prefix(bytes).ok()?;
                let original = first::<AtomicAckEthBytes>(rest)?.original();
                Self::AtomicAck(aeth.into(), AtomicAckEth { original })
            }
            Layout::Atomic => Self::Atomic(first::<AtomicEthBytes>(bytes)?.into()),
            Layout::Deth => Self::Deth(first::<DethBytes>(bytes)?.into()),
            Layout::DethImm => {
                let (deth, rest) = DethBytes::ref_from_prefix(bytes).ok()?;
                Self::DethImm(deth.into(), imm(rest)?)
            }
            Layout::Cnp => {
                bytes.get(..Layout::Cnp.len())?;
                Self::Cnp
            }
        })
    }

    /// Writes the headers to the front of `out`; none, and nothing of use
    /// written, if they do not fit.
    pub(crate) fn write(&self, out: &mut [u8]) -> Option<()> {
        match *self {
            Self::Plain => Some(()),
            Self::Imm(ImmDt(data)) => put(data, out),
            Self::Inv(Ieth { rkey }) => put(rkey.0.to_be_bytes(), out),
            Self::Reth(reth) => put(RethBytes::from(reth), out),
            Self::RethImm(reth, imm) => {
                put(RethBytes::from(reth), out)?;
                put(imm.0, out.get_mut(16..)?)
            }
            Self::Aeth(aeth) => put(AethBytes::from(aeth), out),
            Self::AtomicAck(aeth, ack) => {
                put(AethBytes::from(aeth), out)?;
                put(ack.original.to_be_bytes(), out.get_mut(4..)?)
            }
            Self::Atomic(atomic) => put(AtomicEthBytes::from(atomic), out),
            Self::Deth(deth) => put(DethBytes::from(deth), out),
            Self::DethImm(deth, imm) => {
                put(DethBytes::from(deth), out)?;
                put(imm.0, out.get_mut(8..)?)
            }
            Self::Cnp => put([0u8; 16], out),
        }
    }
}

fn first<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> Option<&T> {
    T::ref_from_prefix(bytes).ok().map(|(header, _)| header)
}

fn imm(bytes: &[u8]) -> Option<ImmDt> {
    Some(ImmDt(first::<ImmDtBytes>(bytes)?.data()))
}

fn put(header: impl IntoBytes + Immutable, out: &mut [u8]) -> Option<()> {
    header.write_to_prefix(out).ok()
}
