//! States of a queue pair and the changes that are allowed (IBA 10.3.1,
//! 11.2.4.2), as data.

use masq_spec::verbs::{QpMask, QpType, State};

/// One allowed transition.
struct Row {
    from: State,
    to: State,
    /// Attributes that must come with it, and that may, for RC, UC and UD.
    rc: (QpMask, QpMask),
    uc: (QpMask, QpMask),
    ud: (QpMask, QpMask),
}

const fn mask(parts: &[QpMask]) -> QpMask {
    let mut bits = 0;
    let mut i = 0;
    while i < parts.len() {
        bits |= parts[i].bits();
        i += 1;
    }
    QpMask::from_bits_retain(bits)
}

const NONE: QpMask = QpMask::empty();
const INIT_C: QpMask = mask(&[QpMask::PKEY_INDEX, QpMask::PORT, QpMask::ACCESS_FLAGS]);
const INIT_D: QpMask = mask(&[QpMask::PKEY_INDEX, QpMask::PORT, QpMask::QKEY]);
const RTR_UC: QpMask = mask(&[
    QpMask::AV,
    QpMask::PATH_MTU,
    QpMask::DEST_QPN,
    QpMask::RQ_PSN,
]);
const RTR_RC: QpMask = mask(&[RTR_UC, QpMask::MAX_DEST_RD_ATOMIC, QpMask::MIN_RNR_TIMER]);
const RTR_OPT: QpMask = mask(&[QpMask::ALT_PATH, QpMask::ACCESS_FLAGS, QpMask::PKEY_INDEX]);
const RTS_RC: QpMask = mask(&[
    QpMask::TIMEOUT,
    QpMask::RETRY_CNT,
    QpMask::RNR_RETRY,
    QpMask::SQ_PSN,
    QpMask::MAX_QP_RD_ATOMIC,
]);
const RTS_UC_OPT: QpMask = mask(&[
    QpMask::CUR_STATE,
    QpMask::ALT_PATH,
    QpMask::ACCESS_FLAGS,
    QpMask::PATH_MIG_STATE,
]);
const RTS_RC_OPT: QpMask = mask(&[RTS_UC_OPT, QpMask::MIN_RNR_TIMER]);
const RTS_UD_OPT: QpMask = mask(&[QpMask::CUR_STATE, QpMask::QKEY]);
const SQD_UC_OPT: QpMask = mask(&[RTR_OPT, QpMask::AV, QpMask::PATH_MIG_STATE]);
const SQD_RC_OPT: QpMask = mask(&[
    SQD_UC_OPT,
    QpMask::PORT,
    QpMask::TIMEOUT,
    QpMask::RETRY_CNT,
    QpMask::RNR_RETRY,
    QpMask::MAX_QP_RD_ATOMIC,
    QpMask::MAX_DEST_RD_ATOMIC,
    QpMask::MIN_RNR_TIMER,
]);
const SQE_OPT: QpMask = mask(&[QpMask::CUR_STATE, QpMask::ACCESS_FLAGS]);

const TABLE: &[Row] = &[
    Row {
        from: State::Reset,
        to: State::Init,
        rc: (INIT_C, NONE),
        uc: (INIT_C, NONE),
        ud: (INIT_D, NONE),
    },
    Row {
        from: State::Init,
        to: State::Init,
        rc: (NONE, INIT_C),
        uc: (NONE, INIT_C),
        ud: (NONE, INIT_D),
    },
    Row {
        from: State::Init,
        to: State::Rtr,
        rc: (RTR_RC, RTR_OPT),
        uc: (RTR_UC, RTR_OPT),
        ud: (NONE, mask(&[QpMask::PKEY_INDEX, QpMask::QKEY])),
    },
    Row {
        from: State::Rtr,
        to: State::Rts,
        rc: (RTS_RC, RTS_RC_OPT),
        uc: (QpMask::SQ_PSN, RTS_UC_OPT),
        ud: (QpMask::SQ_PSN, RTS_UD_OPT),
    },
    Row {
        from: State::Rts,
        to: State::Rts,
        rc: (NONE, RTS_RC_OPT),
        uc: (NONE, RTS_UC_OPT),
        ud: (NONE, RTS_UD_OPT),
    },
    Row {
        from: State::Rts,
        to: State::Sqd,
        rc: (NONE, QpMask::EN_SQD_ASYNC_NOTIFY),
        uc: (NONE, QpMask::EN_SQD_ASYNC_NOTIFY),
        ud: (NONE, QpMask::EN_SQD_ASYNC_NOTIFY),
    },
    Row {
        from: State::Sqd,
        to: State::Rts,
        rc: (NONE, RTS_RC_OPT),
        uc: (NONE, RTS_UC_OPT),
        ud: (NONE, RTS_UD_OPT),
    },
    Row {
        from: State::Sqd,
        to: State::Sqd,
        rc: (NONE, SQD_RC_OPT),
        uc: (NONE, SQD_UC_OPT),
        ud: (NONE, mask(&[QpMask::PKEY_INDEX, QpMask::QKEY])),
    },
    Row {
        from: State::Sqe,
        to: State::Rts,
        rc: (NONE, NONE),
        uc: (NONE, SQE_OPT),
        ud: (NONE, RTS_UD_OPT),
    },
];

/// Why a transition is refused; the program gets EINVAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// There is no such edge between the states.
    #[error("no transition from {from:?} to {to:?}")]
    NoEdge {
        /// Present state.
        from: State,
        /// Wanted state.
        to: State,
    },
    /// Attributes are missing.
    #[error("the transition needs attributes {0:?}")]
    Missing(QpMask),
    /// Attributes are not allowed with it.
    #[error("the transition does not take attributes {0:?}")]
    Surplus(QpMask),
}

/// Checks that a QP of `qp_type` in `from` may go to `to` with the attributes
/// of `mask` (STATE and the state it names left out of account).
///
/// # Errors
/// [`TransitionError`] says which rule it breaks.
pub fn check_transition(
    qp_type: QpType,
    from: State,
    to: State,
    mask: QpMask,
) -> Result<(), TransitionError> {
    let mask = mask - QpMask::STATE;
    let (required, optional) = if matches!(to, State::Reset | State::Err) {
        (NONE, NONE)
    } else {
        let row = TABLE
            .iter()
            .find(|row| row.from == from && row.to == to)
            .filter(|_| !(qp_type == QpType::Rc && from == State::Sqe))
            .ok_or(TransitionError::NoEdge { from, to })?;
        match qp_type {
            QpType::Rc => row.rc,
            QpType::Uc => row.uc,
            QpType::Ud => row.ud,
        }
    };
    let missing = required - mask;
    if !missing.is_empty() {
        return Err(TransitionError::Missing(missing));
    }
    let surplus = mask - required - optional;
    // RESET and ERR take anything and look at nothing, as drivers do.
    if !surplus.is_empty() && !matches!(to, State::Reset | State::Err) {
        return Err(TransitionError::Surplus(surplus));
    }
    Ok(())
}

/// Whether the send queue is served in this state (IBA 10.3.1).
pub const fn can_send(state: State) -> bool {
    matches!(state, State::Rts | State::Sqd)
}

/// Whether arriving messages are served in this state.
pub const fn can_receive(state: State) -> bool {
    matches!(state, State::Rtr | State::Rts | State::Sqd | State::Sqe)
}

/// Bytes of the MTU with this `ibv_mtu` number.
pub const fn mtu_bytes(code: u32) -> Option<u32> {
    match code {
        1..=5 => Some(128 << code),
        _ => None,
    }
}
