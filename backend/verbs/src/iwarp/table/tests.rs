use super::*;
use crate::iwarp::words::request;
use proptest::prelude::*;

fn host(number: u8) -> IpAddr {
    [10, 77, 0, number].into()
}

fn end(number: u8, qpn: u32) -> End {
    End {
        host: host(number),
        qpn,
    }
}

const DEPTHS: Depths = Depths {
    asked: 4,
    served: 8,
};

const PLACE: Placement = Placement {
    bits: 39,
    shift: 1 << 30,
};

fn names(own: u32, peer: u32) -> Names {
    let place = PLACE;
    Names { own, peer, place }
}

fn hello(own: u32, peer: u32) -> Hello {
    Hello {
        names: names(own, peer),
        connected: false,
        asks: true,
    }
}

#[test]
fn of_two_ends_one_is_active_whatever_their_numbers() {
    let ends = [end(1, 5), end(1, 6), end(2, 5), end(2, 1)];
    for a in ends {
        for b in ends.into_iter().filter(|b| *b != a) {
            assert_ne!(a.is_active(b), b.is_active(a));
        }
    }
}

#[test]
fn nothing_is_requested_before_the_other_side_is_ready() {
    let now = Instant::now();
    let mut table = Table::new(host(1));
    table.join((5, PLACE), end(2, 9), DEPTHS, (), now);
    for seconds in 1..100 {
        table.tick(now + Duration::from_secs(seconds));
    }
    assert_eq!(table.actions.len(), 100, "it says hello, and no more often");
    let asks = |action: &Action| matches!(action, Action::Say(to, h) if *to == host(2) && h.asks);
    assert!(table.actions.iter().all(asks));
    table.actions.clear();
    table.heard(host(2), hello(9, 5), now);
    assert_eq!(table.actions, [Action::Connect(5)]);
}

#[test]
fn only_the_expected_request_is_accepted_and_once() {
    let now = Instant::now();
    let mut table = Table::new(host(2));
    table.join((9, PLACE), end(1, 5), DEPTHS, (), now);
    let right = request(names(5, 9));
    let refused = Err(Stranger::Unexpected);
    assert_eq!(table.requested(host(3), &right, now), refused);
    let other = request(names(6, 9));
    assert_eq!(table.requested(host(1), &other, now), refused);
    let nobody = request(names(5, 10));
    assert_eq!(table.requested(host(1), &nobody, now), refused);
    let noise = table.requested(host(1), b"masq", now);
    assert_eq!(noise, Err(Stranger::Malformed));
    assert_eq!(table.requested(host(1), &right, now), Ok((9, DEPTHS)));
    assert_eq!(table.requested(host(1), &right, now), refused);
}

#[test]
fn the_active_side_accepts_no_request() {
    let now = Instant::now();
    let mut table = Table::new(host(1));
    table.join((5, PLACE), end(2, 9), DEPTHS, (), now);
    let swapped = request(names(9, 5));
    let answer = table.requested(host(2), &swapped, now);
    assert_eq!(answer, Err(Stranger::Unexpected));
}

#[test]
fn strangers_leave_no_trace_but_a_count() {
    let now = Instant::now();
    let mut table = Table::<()>::new(host(2));
    for qpn in 0..10_000 {
        table.heard(host(3), hello(qpn, qpn), now);
        let private = request(names(qpn, 9));
        assert!(table.requested(host(3), &private, now).is_err());
    }
    assert_eq!(table.unexpected, 10_000);
    assert!(table.entries.is_empty() && table.actions.is_empty());
}

#[test]
fn so_many_connections_are_made_at_a_time() {
    let now = Instant::now();
    let mut table = Table::new(host(1));
    let connects = |table: &Table<()>| {
        let all = table.actions.iter();
        all.filter(|a| matches!(a, Action::Connect(_))).count()
    };
    for peer in 2..20 {
        for n in 0..20 {
            let qpn = u32::from(peer) * 100 + n;
            table.join((qpn, PLACE), end(peer, n), DEPTHS, (), now);
            table.heard(host(peer), hello(n, qpn), now);
        }
        assert!(connects(&table) <= usize::from(peer - 1) * MOST_TO_HOST);
    }
    assert_eq!(connects(&table), MOST_CONNECTING);
    // One that could not be made leaves its place to another.
    table.try_again(200, now);
    table.heard(host(2), hello(19, 219), now);
    assert_eq!(connects(&table), MOST_CONNECTING + 1);
}

#[test]
fn a_passive_side_that_never_hears_of_the_other_one_fails() {
    let now = Instant::now();
    let mut table = Table::new(host(2));
    table.join((9, PLACE), end(1, 5), DEPTHS, (), now);
    let private = request(names(5, 9));
    table.requested(host(1), &private, now).unwrap();
    table.established(9, now);
    assert_eq!(table.stage(9), Some(Stage::Met));
    table.actions.clear();
    for seconds in 1..60 {
        table.tick(now + Duration::from_secs(seconds));
    }
    let is_failure = |action: &&Action| matches!(action, Action::Fail(9, _));
    assert_eq!(table.actions.iter().filter(is_failure).count(), 1);
    assert!(!table.actions.contains(&Action::Tell(9)));
}

/// Two hosts, and a network between them that loses and repeats hellos.
struct Pair {
    tables: [Table<()>; 2],
    ends: [End; 2],
    told: [u32; 2],
    /// The kernel of the active, of the passive side has connected.
    up: [bool; 2],
}

impl Pair {
    fn index(&self, host: IpAddr) -> usize {
        usize::from(self.ends[1].host == host)
    }

    /// Carries out what the tables want; `lose` says of each hello how often it comes.
    fn act(&mut self, now: Instant, copies: &mut impl FnMut() -> u8) {
        while let Some((side, action)) =
            (0..2).find_map(|side| Some((side, self.tables[side].actions.pop_front()?)))
        {
            let other = 1 - side;
            match action {
                Action::Say(to, hello) => {
                    assert_eq!(self.index(to), other);
                    for _ in 0..copies() {
                        self.tables[other].heard(self.ends[side].host, hello, now);
                    }
                }
                Action::Connect(qpn) => {
                    let (peer, names, _) = self.tables[side].request(qpn).unwrap();
                    assert_eq!(peer, self.ends[other]);
                    let from = self.ends[side].host;
                    let taken = self.tables[other].requested(from, &request(names), now);
                    assert!(
                        taken.is_ok(),
                        "a request costs the queue pair if it is refused"
                    );
                    self.tables[other].established(peer.qpn, now);
                    self.up[other] = true;
                    self.tables[side].established(qpn, now);
                    self.up[side] = true;
                }
                Action::Tell(_) => {
                    assert_eq!(
                        self.up, [true; 2],
                        "one may send and the other cannot take it"
                    );
                    self.told[side] += 1;
                }
                Action::Fail(_, cause) => panic!("{cause}"),
            }
        }
    }
}

proptest! {
    /// Whoever is first, whatever is lost or comes twice: both are told, once, and
    /// when both can take what is sent.
    #[test]
    fn both_sides_are_told_once_and_not_too_early(
        qpns in (0..4u32, 0..4u32),
        first in 0..2usize,
        later in 0..3_000u64,
        fates in prop::collection::vec(0..3u8, 1..40),
    ) {
        let start = Instant::now();
        let ends = [end(1, qpns.0), end(2, qpns.1)];
        let mut pair = Pair {
            tables: [Table::new(host(1)), Table::new(host(2))],
            ends,
            told: [0; 2],
            up: [false; 2],
        };
        let mut fates = fates.into_iter();
        // Later hellos come through.
        let mut copies = move || fates.next().unwrap_or(1);
        let join = |pair: &mut Pair, side: usize, now| {
            let (own, peer) = (ends[side], ends[1 - side]);
            pair.tables[side].join((own.qpn, PLACE), peer, DEPTHS, (), now);
        };
        join(&mut pair, first, start);
        let mut now = start;
        while now < start + Duration::from_secs(70) {
            if now == start + Duration::from_millis(later / 10 * 10) {
                join(&mut pair, 1 - first, now);
            }
            for side in 0..2 {
                pair.tables[side].tick(now);
            }
            pair.act(now, &mut copies);
            now += Duration::from_millis(10);
        }
        prop_assert_eq!(pair.told, [1, 1]);
        for (table, end) in pair.tables.iter().zip(ends) {
            prop_assert_eq!(table.peers_place(end.qpn), PLACE);
        }
    }
}
