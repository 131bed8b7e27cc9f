use super::*;
use crate::testing::*;
use proptest::prelude::*;

#[test]
fn nothing_travels_before_it_was_committed_and_flushed() {
    let (mut a, mut b) = pair(Faults::default(), 1).unwrap();
    let to = path(b.host());
    assert!(put(&mut a, &to, 7, 1, 100));
    assert!(!readable(&b));
    a.place(&to, 16).unwrap();
    a.flush();
    assert!(readable(&b));
    assert_eq!(taken(&mut b), [(1, payload(1, 100))]);
    assert!(!readable(&b));
    assert_eq!(a.counters().sent, b.counters().received);
}

#[test]
fn a_batch_is_bounded_and_a_flush_makes_room() {
    let (mut a, mut b) = pair(Faults::default(), 1).unwrap();
    let to = path(b.host());
    let sent = (0..).take_while(|psn| put(&mut a, &to, 7, *psn, 4)).count();
    assert_eq!(sent, BATCH);
    a.flush();
    assert!(put(&mut a, &to, 7, 1000, 4));
    a.flush();
    assert_eq!(taken(&mut b).len(), BATCH);
    assert_eq!(taken(&mut b), [(1000, payload(1000, 4))]);
    assert_eq!(taken(&mut b), []);
}

#[test]
fn another_family_or_length_has_no_place() {
    let (mut a, _b) = pair(Faults::default(), 1).unwrap();
    let to = path(IpAddr::from([10, 0, 0, 2]));
    assert!(a.place(&path("::1".parse().unwrap()), 16).is_none());
    for len in [12, 18, MAX_PACKET + 4] {
        assert!(a.place(&to, len).is_none());
    }
    assert_eq!(a.counters().send_errors.other, 4);
    assert!(a.place(&to, MAX_PACKET).is_some());
}

#[test]
fn an_icrc_for_another_identification_is_found() {
    let (mut a, mut b) = pair(Faults::default(), 1).unwrap();
    let to = path(b.host());
    assert!(put(&mut a, &to, 7, 0, 4));
    let place = a.place(&to, 16).unwrap();
    let wrong = place.ip_id + 1;
    masq_wire::build(&headers(7, 1), &[], &place.flow, wrong, place.buffer).unwrap();
    a.commit();
    a.flush();
    assert_eq!(taken(&mut b).len(), 1);
    assert_eq!(b.counters().bad_icrc, 1);
}

#[test]
fn groups_reach_all_that_joined_but_the_sender() {
    let network = Network::new(Faults::default(), 1);
    let mut ports: Vec<_> = (1..4)
        .map(|last| network.port([10, 0, 0, last].into(), Mtu::B1024).unwrap())
        .collect();
    let group = IpAddr::from([239, 0, 0, 9]);
    for port in &mut ports {
        port.join(group).unwrap();
    }
    ports[2].leave(group);
    assert!(put(&mut ports[0], &path(group), 0xff_ffff, 1, 8));
    ports[0].flush();
    let counts: Vec<_> = ports.iter_mut().map(|port| taken(port).len()).collect();
    assert_eq!(counts, [0, 1, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn faults_are_those_of_the_seed_and_damage_never_passes(seed: u64) {
        let run = |faults| {
            let (mut a, mut b) = pair(faults, seed).unwrap();
            let to = path(b.host());
            let mut arrived = Vec::new();
            for psn in 0..300 {
                assert!(put(&mut a, &to, 7, psn, 64));
                a.flush();
                if psn % 10 == 9 {
                    arrived.extend(taken(&mut b));
                }
            }
            (arrived, b.counters())
        };
        let faults = Faults { lose: 50, duplicate: 50, reorder: 50, corrupt: 50, mark: 0 };
        let (arrived, counters) = run(faults);
        prop_assert_eq!(&arrived, &run(faults).0);
        for (psn, bytes) in &arrived {
            prop_assert_eq!(bytes, &payload(*psn, 64));
        }
        prop_assert!(counters.bad_icrc + counters.malformed_total() > 0);
        let psns = || arrived.iter().map(|(psn, _)| *psn);
        prop_assert!(psns().zip(psns().skip(1)).any(|(a, b)| a >= b));
        prop_assert!(arrived.len() < 330);
    }
}
