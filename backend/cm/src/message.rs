//! The messages of IBA 12.6 and 12.11, in typed fields. How they lie in a MAD
//! is `mad`'s business.

use crate::reject::{Answered, Reason, SidrStatus};
use masq_spec::verbs::Gid;

/// Identifies a conversation at the side that chose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommId(pub u32);

/// Bytes of private data; trailing zeros are left out, since on the wire they
/// cannot be told from padding.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Private(Option<Box<[u8]>>);

impl Private {
    /// No bytes.
    pub const EMPTY: Self = Self(None);

    /// A copy of `bytes` without trailing zeros.
    pub fn new(bytes: &[u8]) -> Self {
        let len = bytes.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
        Self(bytes.get(..len).filter(|b| !b.is_empty()).map(Box::from))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Fills a field with the bytes and zeros; what does not fit is left out.
    pub fn fill(&self, field: &mut [u8]) {
        field.fill(0);
        for (to, from) in field.iter_mut().zip(self.bytes()) {
            *to = *from;
        }
    }
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes().len())
    }
}

/// Bytes of private data that a REQ carries, the IP header included.
pub const REQ_PRIVATE: usize = 92;
/// Bytes of private data that a REP carries.
pub const REP_PRIVATE: usize = 196;
/// Bytes of private data that a REJ carries.
pub const REJ_PRIVATE: usize = 148;
/// Bytes of private data that an MRA carries.
pub const MRA_PRIVATE: usize = 222;
/// Bytes of private data that an RTU or a DREP carries.
pub const RTU_PRIVATE: usize = 224;
/// Bytes of private data that a DREQ carries.
pub const DREQ_PRIVATE: usize = 220;
/// Bytes of private data that a SIDR_REQ carries, the IP header included.
pub const SIDR_REQ_PRIVATE: usize = 216;
/// Bytes of private data that a SIDR_REP carries.
pub const SIDR_REP_PRIVATE: usize = 136;
/// Bytes of additional information in a REJ or a SIDR_REP.
pub const ADDITIONAL_INFO: usize = 72;

/// A path as a REQ tells it (IBA 12.6.5: primary or alternate).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// LID of the sender's port.
    pub local_lid: u16,
    /// LID of the receiver's port.
    pub remote_lid: u16,
    /// GID of the sender's port.
    pub local_gid: Gid,
    /// GID of the receiver's port.
    pub remote_gid: Gid,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// `ibv_rate`, 6 bits.
    pub packet_rate: u8,
    /// Traffic class.
    pub traffic_class: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Service level, 4 bits.
    pub sl: u8,
    /// Whether both ports are in one subnet.
    pub subnet_local: bool,
    /// Code of the local ACK timeout, 5 bits.
    pub ack_timeout: u8,
}

/// Asks for a connection (IBA 12.6.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Req {
    /// The sender's.
    pub local_comm: CommId,
    /// Vendor of enhanced connection establishment, 24 bits.
    pub ece_vendor: u32,
    /// Options of enhanced connection establishment (the attribute modifier).
    pub ece_options: u32,
    /// Service asked for.
    pub service_id: u64,
    /// GUID of the sender's device.
    pub ca_guid: u64,
    /// Q_Key.
    pub qkey: u32,
    /// The sender's queue pair.
    pub qpn: u32,
    /// READs and atomics that the sender serves at a time.
    pub responder_resources: u8,
    /// The sender's EE context (reliable datagrams; 0).
    pub local_eecn: u32,
    /// READs and atomics that the sender will have outstanding.
    pub initiator_depth: u8,
    /// The receiver's EE context (0).
    pub remote_eecn: u32,
    /// Code of the time in which the receiver is to answer, 5 bits.
    pub remote_response_timeout: u8,
    /// 0 RC, 1 UC, 2 RD, 3 see `extended_transport`.
    pub transport: u8,
    /// End-to-end flow control.
    pub flow_control: bool,
    /// First PSN that the receiver is to send.
    pub psn: u32,
    /// Code of the time in which the sender answers, 5 bits.
    pub local_response_timeout: u8,
    /// Retries after a timeout, 3 bits.
    pub retry_count: u8,
    /// Partition key.
    pub pkey: u16,
    /// `ibv_mtu`, 4 bits.
    pub mtu: u8,
    /// Reliable datagrams: the RDC exists.
    pub rdc_exists: bool,
    /// Retries after RNR, 3 bits.
    pub rnr_retry_count: u8,
    /// How often a message of this conversation may be repeated, 4 bits.
    pub max_cm_retries: u8,
    /// The sender's queue pair uses an SRQ.
    pub srq: bool,
    /// 1: XRC.
    pub extended_transport: u8,
    /// Primary path.
    pub primary: Path,
    /// Alternate path; zeros: none.
    pub alternate: Path,
    /// IP header (Annex A11), then the program's bytes.
    pub private: Private,
}

/// Accepts a REQ (IBA 12.6.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rep {
    /// The sender's.
    pub local_comm: CommId,
    /// The receiver's.
    pub remote_comm: CommId,
    /// Q_Key.
    pub qkey: u32,
    /// The sender's queue pair.
    pub qpn: u32,
    /// Vendor of enhanced connection establishment, 24 bits.
    pub ece_vendor: u32,
    /// Options of enhanced connection establishment (the attribute modifier).
    pub ece_options: u32,
    /// The sender's EE context (0).
    pub local_eecn: u32,
    /// First PSN that the receiver is to send.
    pub psn: u32,
    /// READs and atomics that the sender serves at a time.
    pub responder_resources: u8,
    /// READs and atomics that the sender will have outstanding.
    pub initiator_depth: u8,
    /// Code of the sender's delay before it acknowledges, 5 bits.
    pub target_ack_delay: u8,
    /// Whether the alternate path was taken, 2 bits.
    pub failover: u8,
    /// End-to-end flow control.
    pub flow_control: bool,
    /// Retries after RNR, 3 bits.
    pub rnr_retry_count: u8,
    /// The sender's queue pair uses an SRQ.
    pub srq: bool,
    /// GUID of the sender's device.
    pub ca_guid: u64,
    /// The program's bytes.
    pub private: Private,
}

/// Refuses a message (IBA 12.6.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rej {
    /// The sender's, 0 if it has none.
    pub local_comm: CommId,
    /// The receiver's, 0 if the sender does not know it.
    pub remote_comm: CommId,
    /// What is refused.
    pub answered: Answered,
    /// Why.
    pub reason: Reason,
    /// Additional information, at most [`ADDITIONAL_INFO`] bytes.
    pub info: Private,
    /// Bytes of `info` that count, 7 bits.
    pub info_len: u8,
    /// The program's bytes.
    pub private: Private,
}

/// Asks for patience (IBA 12.6.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mra {
    /// The sender's.
    pub local_comm: CommId,
    /// The receiver's.
    pub remote_comm: CommId,
    /// What was received, 2 bits.
    pub answered: Answered,
    /// Code of the time that it may take, 5 bits.
    pub service_timeout: u8,
    /// The program's bytes.
    pub private: Private,
}

/// Confirms a REP (IBA 12.6.9); a [`Message::Drep`] has the same fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rtu {
    /// The sender's.
    pub local_comm: CommId,
    /// The receiver's.
    pub remote_comm: CommId,
    /// The program's bytes.
    pub private: Private,
}

/// Ends a connection (IBA 12.6.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dreq {
    /// The sender's.
    pub local_comm: CommId,
    /// The receiver's.
    pub remote_comm: CommId,
    /// The receiver's queue pair.
    pub remote_qpn: u32,
    /// The program's bytes.
    pub private: Private,
}

/// Asks for the queue pair of a datagram service (IBA 12.11.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidrReq {
    /// The sender's name for the request.
    pub request: CommId,
    /// Partition key.
    pub pkey: u16,
    /// Service asked for.
    pub service_id: u64,
    /// IP header (Annex A11), then the program's bytes.
    pub private: Private,
}

/// Names the queue pair of a datagram service (IBA 12.11.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidrRep {
    /// The request that it answers.
    pub request: CommId,
    /// Success, or why not.
    pub status: SidrStatus,
    /// Queue pair.
    pub qpn: u32,
    /// Service asked for.
    pub service_id: u64,
    /// Q_Key.
    pub qkey: u32,
    /// Additional information, at most [`ADDITIONAL_INFO`] bytes.
    pub info: Private,
    /// Bytes of `info` that count.
    pub info_len: u8,
    /// Vendor of enhanced connection establishment, 24 bits.
    pub ece_vendor: u32,
    /// Options of enhanced connection establishment (the attribute modifier).
    pub ece_options: u32,
    /// The program's bytes.
    pub private: Private,
}

/// A message between two agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Request for a connection; boxed, since it is by far the largest.
    Req(Box<Req>),
    /// Message receipt acknowledged.
    Mra(Mra),
    /// Rejection.
    Rej(Rej),
    /// Reply to a request.
    Rep(Rep),
    /// Ready to use.
    Rtu(Rtu),
    /// Request to disconnect.
    Dreq(Dreq),
    /// Reply to a request to disconnect.
    Drep(Rtu),
    /// Request of a datagram service.
    SidrReq(SidrReq),
    /// Reply to it.
    SidrRep(SidrRep),
}
