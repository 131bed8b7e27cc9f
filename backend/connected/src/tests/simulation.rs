//! The invariants under random programs and networks. A seed that fails is run
//! alone by `MASQ_SEED=n cargo test -p masq-connected one_seed`.

use super::sim::{Setup, World};
use masq_spec::verbs::QpType;

fn seeds() -> u64 {
    if cfg!(debug_assertions) { 300 } else { 10_000 }
}

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
    world
}

/// Names the seed of a failure.
fn each_seed(make: impl Fn(u64) -> Setup + std::panic::RefUnwindSafe) {
    for seed in 0..seeds() {
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
