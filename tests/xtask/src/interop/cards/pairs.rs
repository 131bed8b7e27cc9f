//! A program as server and one as client, both tenants of masq.

use super::host::CardHost;
use super::{Cards, Needs};
use crate::interop::scenarios::{Blanks, Ready, Says};
use anyhow::{Context as _, bail, ensure};
use masq_guest::Output;
use std::time::Duration;

/// For each program.
const LIMIT: Duration = Duration::from_secs(60);
/// For a server whose client has ended.
const SERVER_ENDS: Duration = Duration::from_secs(15);
/// rping's main thread closes what its other thread reads from; with one processor the other
/// one may notice. What it printed before still counts.
pub(super) const RPINGS_END: &str = "rdma_get_cm_event: Invalid argument";
/// Where each endpoint has its own address as RoCEv2.
pub(super) const GID_INDEX: &str = "3";
pub(super) const TCP: Ready = Ready::Tcp(18515);

/// Where the peers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On two hosts.
    Apart,
    /// On one: the card talks to itself.
    Near,
}

/// Two command lines with blanks, as [`crate::interop::scenarios`] has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) needs: Needs,
    server: &'static str,
    client: &'static str,
    ready: Ready,
    says: Says,
}

/// One command line, to which the client's adds the server's address.
macro_rules! same {
    ($place:ident, $needs:ident, $name:literal, $says:expr, $line:literal) => {
        Pair {
            name: $name,
            place: Place::$place,
            needs: Needs::$needs,
            server: $line,
            client: concat!($line, " {server}"),
            ready: TCP,
            says: $says,
        }
    };
}

/// perftest by rdma_cm: the client's address is the virtual one.
macro_rules! perftest_cm {
    ($name:literal, $says:expr, $line:literal) => {
        Pair {
            name: $name,
            place: Place::Apart,
            needs: Needs::Cm,
            server: $line,
            client: concat!($line, " {cm}"),
            ready: Ready::Cm,
            says: $says,
        }
    };
}

/// Two command lines that meet by rdma_cm.
macro_rules! by_cm {
    ($place:ident, $needs:ident, $name:literal, $says:literal, $server:literal, $client:literal) => {
        Pair {
            name: $name,
            place: Place::$place,
            needs: Needs::$needs,
            server: $server,
            client: $client,
            ready: Ready::Cm,
            says: Says::Words($says),
        }
    };
}

const PINGED: Says = Says::Words("usec/iter");

// Events where a program offers them: with one processor, one that polls leaves none to
// masqd and the kernel. So few times where it does not, and so few datagrams that no queue
// overflows: who counts them would wait for ever.
#[rustfmt::skip]
pub(super) const PAIRS: &[Pair] = &[
    same!(Apart, Rc, "ibv_rc_pingpong", PINGED, "ibv_rc_pingpong -g {gid} -n 200 -e -c"),
    same!(Apart, Uc, "ibv_uc_pingpong", PINGED, "ibv_uc_pingpong -g {gid} -n 200 -e -c"),
    same!(Apart, Ud, "ibv_ud_pingpong", PINGED, "ibv_ud_pingpong -g {gid} -s 1024 -n 200 -e -c"),
    same!(Apart, Rc, "ibv_srq_pingpong", PINGED, "ibv_srq_pingpong -g {gid} -q 4 -n 200 -e -c"),
    same!(Apart, Rc, "ib_send_bw", Says::Row(65536, 500), "ib_send_bw -x {gid} -F -e -s 65536 -n 500"),
    same!(Apart, Rc, "ib_send_lat", Says::Row(64, 200), "ib_send_lat -x {gid} -F -e -s 64 -n 200"),
    same!(Apart, Rc, "ib_write_bw", Says::Row(65536, 500), "ib_write_bw -x {gid} -F -s 65536 -n 500"),
    // It watches its memory: of a size that malloc maps, since User-Mode Linux's heap is
    // executable and so not moved, and a stand-in shows nothing before the library is called.
    same!(Apart, Rc, "ib_write_lat", Says::Row(262144, 10), "ib_write_lat -x {gid} -F -s 262144 -n 10"),
    same!(Apart, Rc, "ib_read_bw", Says::Row(65536, 500), "ib_read_bw -x {gid} -F -e -s 65536 -n 500"),
    same!(Apart, Rc, "ib_read_lat", Says::Row(64, 200), "ib_read_lat -x {gid} -F -e -s 64 -n 200"),
    same!(Apart, Atomics, "ib_atomic_bw", Says::Row(8, 500), "ib_atomic_bw -x {gid} -F -e -n 500"),
    same!(Apart, Atomics, "ib_atomic_lat", Says::Row(8, 200), "ib_atomic_lat -x {gid} -F -e -n 200"),
    same!(Apart, Ud, "ud-ib_send_bw", Says::Row(1024, 50), "ib_send_bw -c UD -x {gid} -F -e -s 1024 -n 50 -Q 10 -r 64"),
    same!(Apart, Ud, "ud-ib_send_lat", Says::Row(64, 200), "ib_send_lat -c UD -x {gid} -F -e -s 64 -n 200"),
    same!(Apart, Uc, "uc-ib_send_bw", Says::Row(1024, 50), "ib_send_bw -c UC -x {gid} -F -e -s 1024 -n 50 -Q 10 -r 64"),
    same!(Apart, Uc, "uc-ib_send_lat", Says::Row(64, 200), "ib_send_lat -c UC -x {gid} -F -e -s 64 -n 200"),
    by_cm!(Apart, Cm, "rping", "rdma-ping-19", "rping -s -v -V -C 20", "rping -c -v -V -a {cm} -C 20"),
    by_cm!(Apart, Cm, "ucmatose", "return status 0", "ucmatose -C 20", "ucmatose -s {cm} -C 20"),
    by_cm!(Apart, Ud, "udaddy", "return status 0", "udaddy -C 20", "udaddy -s {cm} -C 20"),
    by_cm!(Apart, Cm, "rstream", "Gb/sec", "rstream -S 4096 -I 100 -C 10 -T v", "rstream -s {cm} -S 4096 -I 100 -C 10 -T v"),
    perftest_cm!("cm-ib_send_bw", Says::Row(65536, 500), "ib_send_bw -R -F -e -s 65536 -n 500"),
    perftest_cm!("cm-ib_read_lat", Says::Row(64, 200), "ib_read_lat -R -F -e -s 64 -n 200"),
    same!(Near, Rc, "near-ibv_rc_pingpong", PINGED, "ibv_rc_pingpong -g {gid} -n 200 -e -c"),
    same!(Near, Ud, "near-ibv_ud_pingpong", PINGED, "ibv_ud_pingpong -g {gid} -s 1024 -n 200 -e -c"),
    same!(Near, Rc, "near-ib_write_bw", Says::Row(65536, 500), "ib_write_bw -x {gid} -F -s 65536 -n 500"),
    same!(Near, Rc, "near-ib_read_bw", Says::Row(65536, 500), "ib_read_bw -x {gid} -F -e -s 65536 -n 500"),
    by_cm!(Near, Cm, "near-rping", "rdma-ping-19", "rping -s -v -V -C 20", "rping -c -v -V -a {cm} -C 20"),
];

/// Where both ends are, and as whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'c> {
    pub(super) server: (&'c CardHost, &'static str),
    pub(super) client: (&'c CardHost, &'static str),
    /// The client's virtual address.
    own: &'static str,
}

impl<'c> Ends<'c> {
    pub(super) fn of(cards: &'c Cards, place: Place) -> Self {
        let server = (&cards.alpha, "blue/a");
        match place {
            Place::Apart => Self {
                server,
                client: (&cards.beta, "blue/b"),
                own: "10.0.0.2",
            },
            Place::Near => Self {
                server,
                client: (&cards.alpha, "blue/c"),
                own: "10.0.0.3",
            },
        }
    }

    /// A command line for either end.
    pub(super) fn fill(&self, line: &str) -> String {
        Blanks {
            gid: GID_INDEX.to_owned(),
            server: self.server.0.address().to_owned(),
            cm: "10.0.0.1".to_owned(),
            own: self.own.to_owned(),
        }
        .fill(line)
    }
}

impl Pair {
    /// Both must succeed and the client must say what it should.
    pub(super) fn run(&self, cards: &Cards) -> anyhow::Result<()> {
        let ends = Ends::of(cards, self.place);
        let (serving, asking) = (ends.fill(self.server), ends.fill(self.client));
        let (host, endpoint) = ends.server;
        let waiting = host.serve(endpoint, &serving, self.ready)?;
        let (host, endpoint) = ends.client;
        let asked = host
            .start(endpoint, &asking)?
            .wait(LIMIT)
            .with_context(|| {
                let (out, err) = waiting.output().unwrap_or_default();
                format!("{asking}\nserver:\n{out}{err}")
            })?;
        if asked.status != 0 && !asked.stderr.contains(RPINGS_END) {
            std::thread::sleep(Duration::from_millis(500));
            let (out, err) = waiting.output()?;
            bail!(
                "client {}\nserver {serving}:\n{out}{err}",
                told(&asking, &asked)
            );
        }
        let served = waiting
            .wait(SERVER_ENDS)
            .with_context(|| format!("client {}", told(&asking, &asked)))?;
        ensure!(
            served.status == 0 || served.stderr.contains(RPINGS_END),
            "client {}\nserver {}",
            told(&asking, &asked),
            told(&serving, &served)
        );
        self.says
            .check(&asked.stdout)
            .with_context(|| told(&asking, &asked))
    }
}

/// How a command line ended, without the shell around it.
pub(super) fn told(line: &str, out: &Output) -> String {
    format!(
        "{line}: status {}\n{}{}",
        out.status, out.stdout, out.stderr
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_pair_has_a_name_of_its_own() {
        let names: BTreeSet<_> = PAIRS.iter().map(|pair| pair.name).collect();
        assert_eq!(names.len(), PAIRS.len());
    }

    #[test]
    fn what_meets_by_rdma_cm_does_not_wait_for_a_port_of_tcp() {
        for pair in PAIRS {
            let by_cm = pair.client.contains("{cm}");
            assert_eq!(by_cm, matches!(pair.ready, Ready::Cm), "{}", pair.name);
        }
    }
}
