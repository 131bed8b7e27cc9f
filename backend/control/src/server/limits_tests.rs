use super::*;
use crate::tests::FakeDevice;
use std::sync::Arc;

const POLICY: &str = "
version: 1
tenants:
  blue: { quotas: { qps: 60, cqs: 5 }, device: card, endpoints: { a: { address: 10.0.0.1 } } }
  red: { quotas: { qps: 50, cqs: 5 }, device: card, endpoints: { a: { address: 10.0.0.1 } } }
  green: { endpoints: { a: { address: 10.0.0.1 } } }
";

fn devices(card: FakeDevice) -> Devices {
    let mut devices = Devices::new(Arc::new(FakeDevice::connected("soft")));
    devices.add(Arc::new(card)).unwrap();
    devices
}

#[test]
fn quotas_that_a_card_cannot_keep_are_noticed_and_others_not() {
    let policy = Policy::parse("p", POLICY).unwrap();
    let short = |objects| {
        let mut card = FakeDevice::card("card", 1 << 20);
        card.attributes.max_qp = objects;
        card.attributes.max_cq = 10;
        // It has none at all: nothing is promised of them.
        card.attributes.max_srq = 0;
        shortfalls(&policy, &devices(card), None)
    };
    assert_eq!(
        short(109),
        [Shortfall {
            device: "card".into(),
            what: "queue pairs",
            needed: 110,
            limit: 109,
        }]
    );
    assert_eq!(short(110), []);
}

#[test]
fn a_card_that_mixes_tenants_between_hosts_is_noticed() {
    let policy = Policy::parse("p", POLICY).unwrap();
    let both = vec!["blue".to_owned(), "red".to_owned()];
    let card = devices(FakeDevice::card("card", 1 << 20));
    assert_eq!(mixed(&policy, &card, None), [("card".to_owned(), both)]);
    // Nothing of theirs leaves this host.
    let mut local = FakeDevice::card("card", 1 << 20);
    local.network = None;
    assert_eq!(mixed(&policy, &devices(local), None), []);
    // One tenant cannot be taken for another.
    let one = POLICY.replacen("device: card, ", "", 1);
    let policy = Policy::parse("p", &one).unwrap();
    assert_eq!(mixed(&policy, &card, None), []);
}
