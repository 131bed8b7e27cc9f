//! GIDs, address handles and multicast (SPEC clauses 9.3 and 9.8).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 128-bit global identifier, in network order.
pub type Gid = [u8; 16];

/// Start of the answer to QUERY_GID_TABLE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GidTable {
    /// Entries that follow; empty indexes are left out.
    pub count: u32,
    /// Length of the table, empty indexes included.
    pub len: u32,
}

/// RoCE versions: the numbers of `enum ibv_gid_type`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GidType {
    /// RoCE v1 (shown for the order of the table; not usable).
    RoceV1 = 1,
    /// RoCE v2.
    RoceV2 = 2,
}

/// One entry of the GID table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GidEntry {
    /// The identifier.
    pub gid: Gid,
    /// Its index.
    pub index: u32,
    /// A [`GidType`].
    pub gid_type: u32,
}
const _: () = assert!(size_of::<GidEntry>() == 24);

/// Address of a peer, `ibv_ah_attr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct AhAttr {
    /// Destination.
    pub dgid: Gid,
    /// Flow label of the GRH.
    pub flow_label: u32,
    /// Destination LID (unused on Ethernet).
    pub dlid: u16,
    /// Index in the GID table of the source.
    pub sgid_index: u8,
    /// Hop limit of the GRH.
    pub hop_limit: u8,
    /// Traffic class of the GRH.
    pub traffic_class: u8,
    /// Service level.
    pub sl: u8,
    /// Source path bits.
    pub src_path_bits: u8,
    /// `ibv_rate` number.
    pub static_rate: u8,
    /// 1: the GRH fields are valid (needed on RoCE).
    pub is_global: u8,
    /// Port of this device.
    pub port_num: u8,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<AhAttr>() == 32);

/// Creates an address handle.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreateAh {
    /// Protection domain.
    pub pd: u32,
    /// Zero.
    pub reserved: u32,
    /// Where it leads.
    pub attr: AhAttr,
}

/// Joins or leaves a multicast group.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Multicast {
    /// UD queue pair.
    pub qp: u32,
    /// Multicast LID (unused on Ethernet).
    pub lid: u32,
    /// Group.
    pub gid: Gid,
}
