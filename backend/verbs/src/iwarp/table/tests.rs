use super::*;
use proptest::prelude::*;
use std::num::NonZeroU64;

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

fn nonce(number: u64) -> Nonce {
    Nonce(NonZeroU64::new(number).unwrap())
}

/// The nonce of a queue pair in these tests.
fn nonce_of(host: u8, qpn: u32) -> Nonce {
    nonce(u64::from(host) << 32 | u64::from(qpn) | 1 << 60)
}

/// What nobody has drawn.
fn guess() -> Option<Nonce> {
    Some(nonce(7))
}

fn own(host: u8, qpn: u32) -> Own {
    Own {
        qpn,
        place: PLACE,
        nonce: nonce_of(host, qpn),
    }
}

fn names(own: u32, peer: u32) -> Names {
    let place = PLACE;
    Names { own, peer, place }
}

/// The hello of `from` to `to`, which repeats what that one has drawn.
fn hello(from: (u8, u32), to: (u8, u32)) -> Hello {
    Hello {
        names: names(from.1, to.1),
        nonce: nonce_of(from.0, from.1),
        echo: Some(nonce_of(to.0, to.1)),
        connected: false,
        asks: true,
    }
}

fn request(from: (u8, u32), to: (u8, u32)) -> Request {
    let hello = hello(from, to);
    Request {
        names: hello.names,
        nonce: hello.nonce,
        echo: nonce_of(to.0, to.1),
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
    table.join(own(1, 5), end(2, 9), DEPTHS, (), now);
    for seconds in 1..100 {
        table.tick(now + Duration::from_secs(seconds));
    }
    assert_eq!(table.actions.len(), 100, "it says hello, and no more often");
    let asks = |action: &Action| matches!(action, Action::Say(to, h) if *to == host(2) && h.asks);
    assert!(table.actions.iter().all(asks));
    table.actions.clear();
    table.heard(host(2), hello((2, 9), (1, 5)), now);
    assert_eq!(table.actions, [Action::Connect(5)]);
}

#[test]
fn only_the_expected_request_is_accepted_and_once() {
    let now = Instant::now();
    let mut table = Table::new(host(2));
    table.join(own(2, 9), end(1, 5), DEPTHS, (), now);
    let right = request((1, 5), (2, 9)).encode();
    let refused = Err(Stranger::Unexpected);
    assert_eq!(table.requested(host(3), &right, now), refused);
    let other = request((1, 6), (2, 9)).encode();
    assert_eq!(table.requested(host(1), &other, now), refused);
    let nobody = request((1, 5), (2, 10)).encode();
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
    table.join(own(1, 5), end(2, 9), DEPTHS, (), now);
    let swapped = request((2, 9), (1, 5)).encode();
    let answer = table.requested(host(2), &swapped, now);
    assert_eq!(answer, Err(Stranger::Unexpected));
}

#[test]
fn strangers_leave_no_trace_but_a_count() {
    let now = Instant::now();
    let mut table = Table::<()>::new(host(2));
    for qpn in 0..10_000 {
        table.heard(host(3), hello((3, qpn), (2, qpn)), now);
        let private = request((3, qpn), (2, 9)).encode();
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
            table.join(own(1, qpn), end(peer, n), DEPTHS, (), now);
            table.heard(host(peer), hello((peer, n), (1, qpn)), now);
        }
        assert!(connects(&table) <= usize::from(peer - 1) * MOST_TO_HOST);
    }
    assert_eq!(connects(&table), MOST_CONNECTING);
    // One that could not be made leaves its place to another.
    table.try_again(200, now);
    table.heard(host(2), hello((2, 19), (1, 219)), now);
    assert_eq!(connects(&table), MOST_CONNECTING + 1);
    // So does one that leaves, and one that is connected.
    table.leave(201);
    table.established(202, now);
    assert_eq!(table.load.all, MOST_CONNECTING - 2);
    table.heard(host(2), hello((2, 18), (1, 218)), now);
    table.heard(host(2), hello((2, 17), (1, 217)), now);
    table.heard(host(2), hello((2, 16), (1, 216)), now);
    assert_eq!(connects(&table), MOST_CONNECTING + 3);
    table.leave_all();
    assert!(table.load.all == 0 && table.load.to_host.is_empty());
}

#[test]
fn a_passive_side_that_never_hears_of_the_other_one_fails() {
    let now = Instant::now();
    let mut table = Table::new(host(2));
    table.join(own(2, 9), end(1, 5), DEPTHS, (), now);
    let private = request((1, 5), (2, 9)).encode();
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

/// Whoever sends from the peer's address and does not receive there.
#[test]
fn a_hello_with_a_wrong_nonce_changes_nothing_but_is_answered() {
    let now = Instant::now();
    for echo in [None, guess()] {
        // Of the active side.
        let mut table = Table::new(host(1));
        table.join(own(1, 5), end(2, 9), DEPTHS, (), now);
        table.actions.clear();
        let spoofed = Hello {
            nonce: nonce(66),
            echo,
            connected: true,
            ..hello((2, 9), (1, 5))
        };
        table.heard(host(2), spoofed, now);
        assert_eq!(table.stage(5), Some(Stage::Waiting));
        assert_eq!(table.peers_place(5), Placement::default());
        assert_eq!(table.request(5), None);
        let answer = Hello {
            echo: Some(nonce(66)),
            ..hello((1, 5), (2, 9))
        };
        assert_eq!(table.actions, [Action::Say(host(2), answer)]);
        // The true peer is heard as ever.
        table.actions.clear();
        table.heard(host(2), hello((2, 9), (1, 5)), now);
        assert_eq!(table.actions, [Action::Connect(5)]);
        assert_eq!(table.request(5), Some(request((1, 5), (2, 9))));
        // And nobody else any more.
        table.heard(host(2), spoofed, now);
        let other = Hello {
            nonce: nonce(66),
            names: Names {
                place: Placement::default(),
                ..names(9, 5)
            },
            ..hello((2, 9), (1, 5))
        };
        table.heard(host(2), other, now);
        assert_eq!(table.request(5), Some(request((1, 5), (2, 9))));
        assert_eq!(table.peers_place(5), PLACE);

        // Of the passive side.
        let mut table = Table::new(host(2));
        table.join(own(2, 9), end(1, 5), DEPTHS, (), now);
        let private = request((1, 5), (2, 9)).encode();
        table.requested(host(1), &private, now).unwrap();
        table.established(9, now);
        table.actions.clear();
        let spoofed = Hello {
            echo,
            connected: true,
            asks: false,
            ..hello((1, 5), (2, 9))
        };
        table.heard(host(1), spoofed, now);
        assert_eq!(table.stage(9), Some(Stage::Met));
        assert_eq!(table.actions, []);
    }
}

#[test]
fn a_request_with_a_wrong_nonce_changes_nothing() {
    let now = Instant::now();
    let mut table = Table::new(host(2));
    table.join(own(2, 9), end(1, 5), DEPTHS, (), now);
    let right = request((1, 5), (2, 9));
    let spoofed = Request {
        echo: nonce(7),
        nonce: nonce(66),
        ..right
    };
    let refused = Err(Stranger::Unexpected);
    assert_eq!(table.requested(host(1), &spoofed.encode(), now), refused);
    assert_eq!(table.stage(9), Some(Stage::Waiting));
    assert_eq!(table.peers_place(9), Placement::default());
    let taken = table.requested(host(1), &right.encode(), now);
    assert_eq!(taken, Ok((9, DEPTHS)));
    assert_eq!(table.peers_place(9), PLACE);
}

/// RESET before the peer was there, and RTR again.
#[test]
fn what_a_queue_pair_was_before_is_not_believed() {
    let now = Instant::now();
    let mut table = Table::new(host(1));
    table.join(own(1, 5), end(2, 9), DEPTHS, (), now);
    assert_eq!(table.leave(5), Some((Stage::Waiting, ())));
    table.heard(host(2), hello((2, 9), (1, 5)), now);
    assert_eq!(table.stage(5), None);
    let again = Own {
        nonce: nonce(5),
        ..own(1, 5)
    };
    table.join(again, end(2, 9), DEPTHS, (), now);
    table.actions.clear();
    table.heard(host(2), hello((2, 9), (1, 5)), now);
    assert_eq!(table.stage(5), Some(Stage::Waiting));
    let right = Hello {
        echo: Some(nonce(5)),
        ..hello((2, 9), (1, 5))
    };
    table.heard(host(2), right, now);
    assert_eq!(table.stage(5), Some(Stage::Connecting));
}

#[test]
fn one_that_leaves_while_it_is_connected_is_forgotten_whole() {
    let now = Instant::now();
    let mut table = Table::new(host(1));
    table.join(own(1, 5), end(2, 9), DEPTHS, (), now);
    table.heard(host(2), hello((2, 9), (1, 5)), now);
    assert_eq!(table.leave(5), Some((Stage::Connecting, ())));
    assert!(table.load.all == 0 && table.load.to_host.is_empty());
    table.actions.clear();
    // What the kernel says of it later.
    table.established(5, now);
    table.try_again(5, now);
    table.fail(5, "late");
    table.tick(now + Duration::from_secs(60));
    assert_eq!(table.actions, []);
    assert_eq!((table.stage(5), table.next()), (None, None));
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

    /// Somebody says in the name of each what comes to his mind; he does not hear what
    /// they say.
    fn spoof(&mut self, noise: &[(bool, bool, bool, u64)], now: Instant) {
        for (to, connected, asks, number) in noise {
            let to = usize::from(*to);
            let (from, qpn) = (self.ends[1 - to], self.ends[to].qpn);
            let spoofed = Hello {
                names: names(from.qpn, qpn),
                nonce: nonce(*number + 1),
                echo: number.checked_sub(1).and_then(NonZeroU64::new).map(Nonce),
                connected: *connected,
                asks: *asks,
            };
            self.tables[to].heard(from.host, spoofed, now);
            let request = Request {
                names: spoofed.names,
                nonce: spoofed.nonce,
                echo: nonce(*number + 1),
            };
            let taken = self.tables[to].requested(from.host, &request.encode(), now);
            assert_eq!(taken, Err(Stranger::Unexpected));
        }
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
                    let (peer, _) = self.tables[side].peer(qpn).unwrap();
                    let request = self.tables[side].request(qpn).unwrap();
                    assert_eq!(peer, self.ends[other]);
                    let from = self.ends[side].host;
                    let taken = self.tables[other].requested(from, &request.encode(), now);
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
    /// Whoever is first, whatever is lost or comes twice, and whatever is said by one who
    /// does not hear the two: both are told, once, and when both can take what is sent.
    #[test]
    fn both_sides_are_told_once_and_not_too_early(
        qpns in (0..4u32, 0..4u32),
        first in 0..2usize,
        later in 0..3_000u64,
        fates in prop::collection::vec(0..3u8, 1..40),
        noise in prop::collection::vec(
            (any::<bool>(), any::<bool>(), any::<bool>(), 0..9u64),
            0..4,
        ),
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
            let own = own(side as u8 + 1, ends[side].qpn);
            pair.tables[side].join(own, ends[1 - side], DEPTHS, (), now);
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
            if now < start + Duration::from_secs(5) {
                pair.spoof(&noise, now);
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
