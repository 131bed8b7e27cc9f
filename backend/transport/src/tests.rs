use crate::*;
use masq_spec::queue::{SendOpcode, WcStatus};
use masq_spec::verbs::{Access, QpMask, QpType, State};
use proptest::prelude::*;

const STATES: [State; 7] = [
    State::Reset,
    State::Init,
    State::Rtr,
    State::Rts,
    State::Sqd,
    State::Sqe,
    State::Err,
];
const TYPES: [QpType; 3] = [QpType::Rc, QpType::Uc, QpType::Ud];

/// Every edge that exists for each type, with all attributes it may take.
#[test]
fn transition_table_snapshot() {
    let mut lines = String::new();
    for qp_type in TYPES {
        for from in STATES {
            let to: Vec<_> = STATES
                .into_iter()
                .filter(|to| {
                    !matches!(
                        check_transition(qp_type, from, *to, QpMask::empty()),
                        Err(TransitionError::NoEdge { .. })
                    )
                })
                .map(|to| format!("{to:?}"))
                .collect();
            lines += &format!("{qp_type:?} {from:?}: {}\n", to.join(" "));
        }
    }
    let connected = "Reset: Reset Init Err\nX Init: Reset Init Rtr Err\nX Rtr: Reset Rts Err\n\
        X Rts: Reset Rts Sqd Err\nX Sqd: Reset Rts Sqd Err\nX Sqe: Reset Rts Err\nX Err: Reset Err\n";
    let expected = |name: &str, rc: bool| {
        let text = format!("X {connected}").replace('X', name);
        if rc {
            text.replace("Sqe: Reset Rts Err", "Sqe: Reset Err")
        } else {
            text
        }
    };
    assert_eq!(
        lines,
        expected("Rc", true) + &expected("Uc", false) + &expected("Ud", false)
    );
}

#[test]
fn the_attribute_masks_of_stock_programs_are_accepted() {
    let mask = QpMask::from_bits_retain;
    let rc = |from, to, bits| check_transition(QpType::Rc, from, to, mask(bits));
    assert_eq!(rc(State::Reset, State::Init, 0x39), Ok(()));
    assert_eq!(rc(State::Init, State::Rtr, 0x129181), Ok(()));
    assert_eq!(rc(State::Rtr, State::Rts, 0x12e01), Ok(()));
    assert_eq!(rc(State::Rts, State::Err, 1), Ok(()));
    assert_eq!(
        rc(State::Init, State::Rtr, 0x129181 & !0x80),
        Err(TransitionError::Missing(QpMask::AV))
    );
    assert_eq!(
        rc(State::Reset, State::Init, 0x39 | 0x40),
        Err(TransitionError::Surplus(QpMask::QKEY))
    );
}

#[test]
fn only_reliable_queue_pairs_read_and_only_connected_ones_write() {
    assert!(opcode_allowed(QpType::Rc, SendOpcode::RdmaRead));
    assert!(!opcode_allowed(QpType::Uc, SendOpcode::RdmaRead));
    assert!(opcode_allowed(QpType::Uc, SendOpcode::RdmaWriteWithImm));
    assert!(!opcode_allowed(QpType::Ud, SendOpcode::RdmaWrite));
    assert!(opcode_allowed(QpType::Ud, SendOpcode::SendWithImm));
}

#[test]
fn the_protection_domain_is_the_first_check() {
    let facts = KeyFacts {
        key: 0x1234_5600,
        pd: 1,
        scope: KeyScope::Region,
        access: Access::LOCAL_WRITE,
        base: 0x1000,
        len: 16,
    };
    // Everything is wrong with this access, and the domain is what is told.
    let got = check_key(&facts, &2, 0, 0x1234_5601, 0, 99, Need::RemoteRead);
    assert_eq!(got, Err(KeyFault::OtherDomain));
    let got = check_key(&facts, &1, 0, 0x1234_5601, 0, 99, Need::RemoteRead);
    assert_eq!(got, Err(KeyFault::Invalid));
    let got = check_key(&facts, &1, 0, 0x1234_5600, 0, 99, Need::RemoteRead);
    assert_eq!(got, Err(KeyFault::NoRight));
    let got = check_key(&facts, &1, 0, 0x1234_5600, 0x1001, 16, Need::LocalWrite);
    assert_eq!(got, Err(KeyFault::OutOfBounds));
    let got = check_key(&facts, &1, 0, 0x1234_5600, 0x1001, 15, Need::LocalWrite);
    assert_eq!(got, Ok(1));
}

#[test]
fn a_window_of_a_queue_pair_serves_that_queue_pair_only() {
    let facts = KeyFacts {
        key: 7,
        pd: (),
        scope: KeyScope::WindowOfQp(5),
        access: Access::REMOTE_WRITE,
        base: 0,
        len: 8,
    };
    assert_eq!(check_key(&facts, &(), 5, 7, 0, 8, Need::RemoteWrite), Ok(0));
    assert_eq!(
        check_key(&facts, &(), 6, 7, 0, 8, Need::RemoteWrite),
        Err(KeyFault::Invalid)
    );
    let local = check_key(&facts, &(), 5, 7, 0, 8, Need::LocalRead);
    assert_eq!(local, Err(KeyFault::Invalid), "a window is no lkey");
}

#[test]
fn an_rnr_is_retried_as_often_as_agreed_and_seven_means_for_ever() {
    let nak = Nak::ReceiverNotReady(1);
    let mut retry = Retry::new(14, 7, 2);
    assert_eq!(retry.refused(nak, 100), Verdict::RetryAt(10_100));
    assert_eq!(retry.refused(nak, 100), Verdict::RetryAt(10_100));
    assert_eq!(
        retry.refused(nak, 100),
        Verdict::Fail(WcStatus::RnrRetryExcErr)
    );
    let mut zero = Retry::new(14, 7, 0);
    assert_eq!(
        zero.refused(nak, 0),
        Verdict::Fail(WcStatus::RnrRetryExcErr)
    );
    let mut endless = Retry::new(14, 7, 7);
    for _ in 0..1000 {
        assert_eq!(endless.refused(nak, 0), Verdict::RetryAt(10_000));
    }
}

#[test]
fn silence_is_retried_then_fails() {
    let mut retry = Retry::new(1, 2, 7);
    for _ in 0..3 {
        assert_eq!(retry.unanswered(0), Verdict::RetryAt(8192));
    }
    assert_eq!(retry.unanswered(0), Verdict::Fail(WcStatus::RetryExcErr));
    retry.progress();
    assert_eq!(retry.unanswered(0), Verdict::RetryAt(8192));
    assert_eq!(Retry::new(0, 0, 0).unanswered(0), Verdict::Wait);
}

proptest! {
    /// The model: wide integers, no early exits.
    #[test]
    fn an_access_is_granted_iff_it_lies_inside(
        base: u64, len: u64, addr: u64, want: u64,
    ) {
        let len = len.min(u64::MAX - base);
        let facts = KeyFacts {
            key: 0, pd: 0, scope: KeyScope::Region, access: Access::all(), base, len,
        };
        let inside = addr >= base
            && u128::from(addr) + u128::from(want) <= u128::from(base) + u128::from(len);
        let got = check_key(&facts, &0, 0, 0, addr, want, Need::LocalRead);
        prop_assert_eq!(got.is_ok(), inside);
        if let Ok(offset) = got {
            prop_assert_eq!(base + offset, addr);
        }
    }
}
