//! The invariants under random programs and networks. A seed that fails is run
//! alone by `MASQ_SEED=n cargo test -p masq-connected one_seed`.

use super::sim::{Setup, World};
use masq_spec::queue::WcStatus;
use masq_spec::verbs::QpType;
use masq_transport::ack_timeout;
use masq_wire::Mtu;

const SEEDS: u64 = 10_000;

fn run(setup: Setup) -> World {
    let mut world = World::new(setup);
    world.run();
    let [a, b] = &world.nodes;
    a.check(b);
    b.check(a);
    if setup.qp_type == QpType::Rc && setup.faulty == [false; 2] && setup.dead_at.is_none() {
        a.check_success(b);
        b.check_success(a);
    }
    // Reordering may bring an ACK before the data that it speaks for.
    let certain = setup.loss + setup.reordering == 0 && setup.rnr_retry == 7;
    if certain && setup.faulty == [true, false] {
        a.check_fault();
    }
    world
}

/// Names the seed of a failure.
fn each_seed(make: impl Fn(u64) -> Setup + std::panic::RefUnwindSafe) {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            run(make(seed));
        });
        assert!(outcome.is_ok(), "seed {seed}: {:?}", make(seed));
    }
}

#[test]
fn one_seed() {
    let seed = std::env::var("MASQ_SEED").ok();
    run(Setup::random(
        seed.and_then(|s| s.parse().ok()).unwrap_or(1),
    ));
}

#[test]
fn every_byte_arrives_once_and_in_order_or_the_right_status_tells() {
    each_seed(Setup::random);
}

/// Without loss nothing hides the true status, and it names the right request.
#[test]
fn a_fault_on_a_good_network_has_its_own_status() {
    each_seed(|seed| Setup {
        loss: 0,
        faulty: [true, false],
        timeout: 14,
        ..Setup::random(seed)
    });
}

#[test]
fn a_peer_that_vanishes_ends_the_connection_in_the_time_that_the_attributes_say() {
    for seed in 0..SEEDS / 4 {
        let setup = Setup {
            dead_at: Some(seed * 997 % 2_000_000),
            timeout: 10,
            retry_cnt: 3,
            requests: 40,
            faulty: [false; 2],
            ..Setup::random(seed)
        };
        let world = run(setup);
        let dead_at = setup.dead_at.unwrap_or(0);
        for node in &world.nodes {
            let gone = node.count(WcStatus::RetryExcErr);
            if gone == 0 {
                continue;
            }
            // What was under way may have been answered for a round, and what
            // waits for an RNR delay has not begun.
            let latest = dead_at + 4 * ack_timeout(10).unwrap_or(0) + 10 * setup.delay + 1_000_000;
            assert!(node.failed_at <= latest, "seed {seed}: {}", node.failed_at);
        }
    }
}

#[test]
fn receives_that_never_come_end_the_connection() {
    let mut ended = 0;
    for seed in 0..SEEDS / 4 {
        let setup = Setup {
            rnr_retry: (seed % 3) as u8,
            late: true,
            timeout: 14,
            dead_at: Some(u64::MAX),
            ..Setup::random(seed)
        };
        let world = run(setup);
        ended += world.nodes[0].count(WcStatus::RnrRetryExcErr);
    }
    assert!(ended > 0);
}

#[test]
fn an_unreliable_message_arrives_whole_or_not_at_all() {
    let (mut sent, mut arrived) = (0, 0);
    for seed in 0..SEEDS {
        let setup = Setup {
            qp_type: QpType::Uc,
            faulty: [false; 2],
            credits: false,
            ..Setup::random(seed)
        };
        let world = run(setup);
        for node in &world.nodes {
            sent += node.count(WcStatus::Success);
            arrived += node.delivered as usize;
        }
    }
    assert!(arrived < sent && arrived > sent / 2, "{arrived} of {sent}");
}

/// Loss costs repetitions, but not many: no avalanche.
#[test]
fn one_loss_in_twenty_costs_less_than_half_of_the_packets() {
    let packets = |loss| -> u64 {
        (0..100)
            .map(|seed| Setup {
                loss,
                duplication: 0,
                reordering: 0,
                late: false,
                mtu: Mtu::B256,
                requests: 200,
                depth: 64,
                window: 512,
                timeout: 14,
                faulty: [false; 2],
                ..Setup::random(seed)
            })
            .map(|setup| run(setup).nodes.iter().map(|n| n.sent).sum::<u64>())
            .sum()
    };
    let (clean, lossy) = (packets(0), packets(50));
    assert!(lossy > clean && lossy < 2 * clean, "{clean} {lossy}");
}
