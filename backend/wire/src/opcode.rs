//! Opcodes: transport service in the high three bits, operation in the low
//! five, and one table of what follows from each (IBA 9.2.1, table 35).

/// The transport service of an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Reliable connection.
    Rc,
    /// Unreliable connection.
    Uc,
    /// Unreliable datagram.
    Ud,
    /// RoCEv2's congestion notification (A17.9).
    Cnp,
}

/// What a packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Part of a SEND; the extended headers tell of immediate or invalidate.
    Send,
    /// Part of an RDMA WRITE.
    Write,
    /// An RDMA READ request.
    ReadRequest,
    /// Part of the answer to a READ.
    ReadResponse,
    /// ACK or NAK.
    Acknowledge,
    /// The answer to an atomic.
    AtomicAcknowledge,
    /// An atomic compare and swap.
    CompareSwap,
    /// An atomic fetch and add.
    FetchAdd,
    /// A congestion notification.
    Congestion,
}

/// Where a packet stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// The first of several.
    First,
    /// Neither first nor last.
    Middle,
    /// The last of several.
    Last,
    /// The whole message.
    Only,
}

impl Position {
    /// Whether a message begins here.
    pub const fn begins(self) -> bool {
        matches!(self, Self::First | Self::Only)
    }

    /// Whether a message ends here.
    pub const fn ends(self) -> bool {
        matches!(self, Self::Last | Self::Only)
    }
}

/// The extended headers that follow the BTH, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// None.
    Plain,
    /// ImmDt.
    Imm,
    /// IETH.
    Inv,
    /// RETH.
    Reth,
    /// RETH, ImmDt.
    RethImm,
    /// AETH.
    Aeth,
    /// AETH, AtomicAckETH.
    AtomicAck,
    /// AtomicETH.
    Atomic,
    /// DETH.
    Deth,
    /// DETH, ImmDt.
    DethImm,
    /// Sixteen reserved bytes of a CNP.
    Cnp,
}

impl Layout {
    /// Bytes.
    pub const fn len(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Imm | Self::Inv | Self::Aeth => 4,
            Self::Deth => 8,
            Self::AtomicAck | Self::DethImm => 12,
            Self::Reth | Self::Cnp => 16,
            Self::RethImm => 20,
            Self::Atomic => 28,
        }
    }

    /// Whether nothing follows the BTH.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::Plain)
    }
}

/// What an opcode means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Whose packets they are.
    pub service: Service,
    /// What it does.
    pub operation: Operation,
    /// Its place in a message.
    pub position: Position,
    /// What follows the BTH.
    pub layout: Layout,
    /// Whether a payload may follow.
    pub payload: bool,
}

macro_rules! opcodes {
    ($($name:ident = $code:literal: $service:ident $operation:ident $position:ident $layout:ident $payload:literal;)*) => {
        /// An opcode of RC, UC, UD or CNP that this crate knows.
        #[allow(missing_docs, reason = "the names are the specification's")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Opcode {
            $($name = $code,)*
        }

        impl Opcode {
            /// All of them, by code.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }

        static TABLE: [Option<(Opcode, Traits)>; 256] = {
            let mut table = [None; 256];
            $(table[$code] = Some((Opcode::$name, Traits {
                service: Service::$service,
                operation: Operation::$operation,
                position: Position::$position,
                layout: Layout::$layout,
                payload: $payload,
            }));)*
            table
        };
    };
}

opcodes! {
    RcSendFirst = 0x00: Rc Send First Plain true;
    RcSendMiddle = 0x01: Rc Send Middle Plain true;
    RcSendLast = 0x02: Rc Send Last Plain true;
    RcSendLastImm = 0x03: Rc Send Last Imm true;
    RcSendOnly = 0x04: Rc Send Only Plain true;
    RcSendOnlyImm = 0x05: Rc Send Only Imm true;
    RcWriteFirst = 0x06: Rc Write First Reth true;
    RcWriteMiddle = 0x07: Rc Write Middle Plain true;
    RcWriteLast = 0x08: Rc Write Last Plain true;
    RcWriteLastImm = 0x09: Rc Write Last Imm true;
    RcWriteOnly = 0x0a: Rc Write Only Reth true;
    RcWriteOnlyImm = 0x0b: Rc Write Only RethImm true;
    RcReadRequest = 0x0c: Rc ReadRequest Only Reth false;
    RcReadResponseFirst = 0x0d: Rc ReadResponse First Aeth true;
    RcReadResponseMiddle = 0x0e: Rc ReadResponse Middle Plain true;
    RcReadResponseLast = 0x0f: Rc ReadResponse Last Aeth true;
    RcReadResponseOnly = 0x10: Rc ReadResponse Only Aeth true;
    RcAcknowledge = 0x11: Rc Acknowledge Only Aeth false;
    RcAtomicAcknowledge = 0x12: Rc AtomicAcknowledge Only AtomicAck false;
    RcCompareSwap = 0x13: Rc CompareSwap Only Atomic false;
    RcFetchAdd = 0x14: Rc FetchAdd Only Atomic false;
    RcSendLastInv = 0x16: Rc Send Last Inv true;
    RcSendOnlyInv = 0x17: Rc Send Only Inv true;
    UcSendFirst = 0x20: Uc Send First Plain true;
    UcSendMiddle = 0x21: Uc Send Middle Plain true;
    UcSendLast = 0x22: Uc Send Last Plain true;
    UcSendLastImm = 0x23: Uc Send Last Imm true;
    UcSendOnly = 0x24: Uc Send Only Plain true;
    UcSendOnlyImm = 0x25: Uc Send Only Imm true;
    UcWriteFirst = 0x26: Uc Write First Reth true;
    UcWriteMiddle = 0x27: Uc Write Middle Plain true;
    UcWriteLast = 0x28: Uc Write Last Plain true;
    UcWriteLastImm = 0x29: Uc Write Last Imm true;
    UcWriteOnly = 0x2a: Uc Write Only Reth true;
    UcWriteOnlyImm = 0x2b: Uc Write Only RethImm true;
    UdSendOnly = 0x64: Ud Send Only Deth true;
    UdSendOnlyImm = 0x65: Ud Send Only DethImm true;
    Cnp = 0x81: Cnp Congestion Only Cnp false;
}

impl Opcode {
    /// The opcode of a code; none for what this crate does not know, RD and
    /// XRC among them.
    pub const fn from_code(code: u8) -> Option<Self> {
        match TABLE[code as usize] {
            Some((opcode, _)) => Some(opcode),
            None => None,
        }
    }

    /// Its code.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means.
    pub const fn traits(self) -> Traits {
        match TABLE[self as usize] {
            Some((_, traits)) => traits,
            // The macro fills an entry for each variant.
            None => unreachable!(),
        }
    }

    /// Whether a requester sends it, a responder takes it.
    pub const fn is_request(self) -> bool {
        matches!(
            self.traits().operation,
            Operation::Send
                | Operation::Write
                | Operation::ReadRequest
                | Operation::CompareSwap
                | Operation::FetchAdd
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_has_its_own_entry() {
        for opcode in Opcode::ALL {
            assert_eq!(Opcode::from_code(opcode.code()), Some(*opcode));
            let _ = opcode.traits();
        }
        let known = (0..=255).filter(|code| Opcode::from_code(*code).is_some());
        assert_eq!(known.count(), Opcode::ALL.len());
    }

    #[test]
    fn the_service_is_in_the_high_bits() {
        for opcode in Opcode::ALL {
            let high = match opcode.traits().service {
                Service::Rc => 0,
                Service::Uc => 1,
                Service::Ud => 3,
                Service::Cnp => 4,
            };
            assert_eq!(opcode.code() >> 5, high);
        }
    }

    #[test]
    fn uc_has_the_sends_and_writes_of_rc_at_the_same_places() {
        for code in 0..=0x0b {
            let rc = Opcode::from_code(code).map(Opcode::traits);
            let uc = Opcode::from_code(0x20 | code).map(Opcode::traits);
            let moved = uc.map(|traits| Traits {
                service: Service::Rc,
                ..traits
            });
            assert_eq!(rc, moved);
        }
    }

    #[test]
    fn only_what_may_end_a_message_carries_immediate_or_invalidate() {
        for opcode in Opcode::ALL {
            let traits = opcode.traits();
            if matches!(
                traits.layout,
                Layout::Imm | Layout::Inv | Layout::RethImm | Layout::DethImm
            ) {
                assert!(traits.position.ends(), "{opcode:?}");
            }
        }
    }
}
