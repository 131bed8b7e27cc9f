//! Faults of a responder: what the requester is told, what happens to the
//! responder (IBA 9.9.3, table 58), and what the requester makes of it (IBA
//! 9.9.2).

use masq_spec::event::AsyncEvent;
use masq_spec::queue::WcStatus;
use masq_spec::verbs::QpType;

/// A negative answer of a reliable responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nak {
    /// No receive is posted; try again after the delay with this code.
    ReceiverNotReady(u8),
    /// The request is malformed or does not fit.
    InvalidRequest,
    /// Key, right or range.
    RemoteAccess,
    /// The responder failed locally.
    RemoteOperation,
}

impl Nak {
    /// The status with which the request completes, unless it is retried.
    pub const fn status(self) -> WcStatus {
        match self {
            Self::ReceiverNotReady(_) => WcStatus::RnrRetryExcErr,
            Self::InvalidRequest => WcStatus::RemInvReqErr,
            Self::RemoteAccess => WcStatus::RemAccessErr,
            Self::RemoteOperation => WcStatus::RemOpErr,
        }
    }
}

/// What went wrong at a responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponderFault {
    /// The message is longer than the receive that it landed in.
    ReceiveTooShort,
    /// The receive names memory that may not be written.
    ReceiveProtection,
    /// The request's key, right or range.
    Access,
    /// An operation that this QP does not take, a misaligned atomic, a key
    /// that cannot be invalidated, more READs than agreed.
    Malformed,
    /// Memory of the responder did not answer.
    Memory,
}

/// What follows from a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponderOutcome {
    /// The answer; none means that the request is dropped in silence.
    pub nak: Option<Nak>,
    /// The receive that was taken completes with this status.
    pub receive: Option<WcStatus>,
    /// The responder goes to ERROR.
    pub to_error: bool,
    /// And this event is raised.
    pub event: Option<AsyncEvent>,
}

impl ResponderFault {
    /// What follows, for a responder of this type.
    pub const fn outcome(self, qp_type: QpType) -> ResponderOutcome {
        let nak = match self {
            Self::ReceiveTooShort | Self::Malformed => Nak::InvalidRequest,
            Self::Access => Nak::RemoteAccess,
            Self::ReceiveProtection | Self::Memory => Nak::RemoteOperation,
        };
        let receive = match self {
            Self::ReceiveTooShort => Some(WcStatus::LocLenErr),
            Self::ReceiveProtection => Some(WcStatus::LocProtErr),
            Self::Memory => Some(WcStatus::LocQpOpErr),
            Self::Access => Some(WcStatus::LocAccessErr),
            Self::Malformed => Some(WcStatus::RemInvReqErr),
        };
        match qp_type {
            QpType::Rc => ResponderOutcome {
                nak: Some(nak),
                receive,
                to_error: true,
                event: match self {
                    Self::Access => Some(AsyncEvent::QpAccessErr),
                    Self::Malformed => Some(AsyncEvent::QpReqErr),
                    _ => None,
                },
            },
            // Unreliable services: what the peer did wrong is dropped; what the
            // local program posted wrong ends its queue pair.
            QpType::Uc | QpType::Ud => {
                let local = matches!(self, Self::ReceiveProtection | Self::Memory);
                ResponderOutcome {
                    nak: None,
                    receive: if local { receive } else { None },
                    to_error: local,
                    event: None,
                }
            }
        }
    }
}
