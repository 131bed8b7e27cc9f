//! What each opcode means (IBA 9.3.3, table 35 seen from the work request).

use masq_spec::queue::{SendOpcode, WcOpcode};
use masq_spec::verbs::QpType;

/// Which way an opcode moves data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Into a receive of the peer.
    Send,
    /// Into the peer's memory.
    Write,
    /// From the peer's memory.
    Read,
    /// A 64-bit read-modify-write in the peer's memory.
    Atomic,
    /// No message: acts on keys of this queue pair.
    Local,
}

/// The traits of an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpcodeRules {
    /// Direction.
    pub kind: Kind,
    /// Consumes a receive at the peer.
    pub takes_receive: bool,
    /// Carries immediate data.
    pub immediate: bool,
    /// Invalidates a key of the peer.
    pub invalidate: bool,
    /// May carry its data in the slot.
    pub inline: bool,
    /// What its completion is called.
    pub completion: WcOpcode,
}

/// The traits of `opcode`.
pub const fn rules(opcode: SendOpcode) -> OpcodeRules {
    let none = OpcodeRules {
        kind: Kind::Local,
        takes_receive: false,
        immediate: false,
        invalidate: false,
        inline: false,
        completion: WcOpcode::Send,
    };
    let send = OpcodeRules {
        kind: Kind::Send,
        takes_receive: true,
        inline: true,
        ..none
    };
    let write = OpcodeRules {
        kind: Kind::Write,
        inline: true,
        completion: WcOpcode::RdmaWrite,
        ..none
    };
    match opcode {
        SendOpcode::Send => send,
        SendOpcode::SendWithImm => OpcodeRules {
            immediate: true,
            ..send
        },
        SendOpcode::SendWithInv => OpcodeRules {
            invalidate: true,
            ..send
        },
        SendOpcode::RdmaWrite => write,
        SendOpcode::RdmaWriteWithImm => OpcodeRules {
            takes_receive: true,
            immediate: true,
            ..write
        },
        SendOpcode::RdmaRead => OpcodeRules {
            kind: Kind::Read,
            completion: WcOpcode::RdmaRead,
            ..none
        },
        SendOpcode::CompareSwap => OpcodeRules {
            kind: Kind::Atomic,
            completion: WcOpcode::CompSwap,
            ..none
        },
        SendOpcode::FetchAdd => OpcodeRules {
            kind: Kind::Atomic,
            completion: WcOpcode::FetchAdd,
            ..none
        },
        SendOpcode::LocalInv => OpcodeRules {
            completion: WcOpcode::LocalInv,
            ..none
        },
        SendOpcode::BindMw => OpcodeRules {
            completion: WcOpcode::BindMw,
            ..none
        },
    }
}

/// Whether a queue pair of this type may send this opcode (IBA 10.7.2.2,
/// table 60). Others complete with LOC_QP_OP_ERR.
pub const fn opcode_allowed(qp_type: QpType, opcode: SendOpcode) -> bool {
    match qp_type {
        QpType::Rc => true,
        QpType::Uc => !matches!(
            opcode,
            SendOpcode::RdmaRead | SendOpcode::CompareSwap | SendOpcode::FetchAdd
        ),
        QpType::Ud => matches!(opcode, SendOpcode::Send | SendOpcode::SendWithImm),
    }
}
