//! A program as server and one as client, both tenants of masq.

use super::host::CardHost;
use super::{Cards, Needs, policy};
use crate::interop::scenarios::{Blanks, Ready, Says};
use anyhow::{Context as _, bail, ensure};
use masq_guest::{Job, Output};
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
    /// The client on a host without masqd.
    FromPlain,
    /// The server there.
    ToPlain,
    /// As these, by the endpoint whose address is its host's: its program tells the peer
    /// which address it has.
    OwnFromPlain,
    OwnToPlain,
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

/// perftest by rdma_cm with a host without masqd.
macro_rules! plain_perftest_cm {
    ($place:ident, $needs:ident, $name:literal, $says:expr, $line:literal) => {
        Pair {
            place: Place::$place,
            needs: Needs::$needs,
            ..perftest_cm!($name, $says, $line)
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
    same!(Apart, RcOfInfiniBand, "ib_send_bw", Says::Row(65536, 500), "ib_send_bw -x {gid} -F -e -s 65536 -n 500"),
    same!(Apart, Rc, "ib_send_lat", Says::Row(64, 200), "ib_send_lat -x {gid} -F -e -s 64 -n 200"),
    same!(Apart, Rc, "ib_write_bw", Says::Row(65536, 500), "ib_write_bw -x {gid} -F -s 65536 -n 500"),
    // It watches its memory: of a size that malloc maps, since User-Mode Linux's heap is
    // executable and so not moved, and a stand-in shows nothing before the library is called.
    // So much that it is pinned beside the control thread.
    same!(Apart, Rc, "large-ib_write_bw", Says::Row(16777216, 5), "ib_write_bw -x {gid} -F -s 16777216 -n 5"),
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
    // By events a client for an RNIC may wait for ever, on the bare card too.
    perftest_cm!("cm-ib_send_bw-many", Says::Row(64, 20000), "ib_send_bw -R -F -s 64 -n 20000"),
    perftest_cm!("cm-ib_read_lat", Says::Row(64, 200), "ib_read_lat -R -F -e -s 64 -n 200"),
    same!(Near, Rc, "near-ibv_rc_pingpong", PINGED, "ibv_rc_pingpong -g {gid} -n 200 -e -c"),
    same!(Near, Ud, "near-ibv_ud_pingpong", PINGED, "ibv_ud_pingpong -g {gid} -s 1024 -n 200 -e -c"),
    same!(Near, Rc, "near-ib_write_bw", Says::Row(65536, 500), "ib_write_bw -x {gid} -F -s 65536 -n 500"),
    same!(Near, Rc, "near-ib_read_bw", Says::Row(65536, 500), "ib_read_bw -x {gid} -F -e -s 65536 -n 500"),
    by_cm!(FromPlain, PlainCm, "plain-rping", "rdma-ping-19", "rping -s -v -V -C 20", "rping -c -v -V -a {cm} -I {own} -C 20"),
    by_cm!(ToPlain, Plain, "to-plain-rping", "rdma-ping-19", "rping -s -v -V -a {cm} -C 20", "rping -c -v -V -a {cm} -C 20"),
    by_cm!(FromPlain, PlainCm, "plain-ucmatose", "return status 0", "ucmatose -C 20", "ucmatose -s {cm} -b {own} -C 20"),
    by_cm!(ToPlain, PlainCm, "to-plain-ucmatose", "return status 0", "ucmatose -b {cm} -C 20", "ucmatose -s {cm} -C 20"),
    by_cm!(FromPlain, PlainUd, "plain-udaddy", "return status 0", "udaddy -C 20", "udaddy -s {cm} -b {own} -C 20"),
    by_cm!(ToPlain, PlainUd, "to-plain-udaddy", "return status 0", "udaddy -b {cm} -C 20", "udaddy -s {cm} -C 20"),
    plain_perftest_cm!(FromPlain, Plain, "plain-cm-ib_write_bw", Says::Row(65536, 500), "ib_write_bw -R -F -s 65536 -n 500"),
    plain_perftest_cm!(FromPlain, PlainCm, "plain-cm-ib_send_bw", Says::Row(65536, 500), "ib_send_bw -R -F -s 65536 -n 500"),
    plain_perftest_cm!(ToPlain, PlainCm, "to-plain-cm-ib_write_bw", Says::Row(65536, 500), "ib_write_bw -R -F -s 65536 -n 500"),
    same!(OwnFromPlain, Plain, "plain-ibv_rc_pingpong", PINGED, "ibv_rc_pingpong -g {gid} -n 200 -e -c"),
    same!(OwnToPlain, Plain, "to-plain-ibv_rc_pingpong", PINGED, "ibv_rc_pingpong -g {gid} -n 200 -e -c"),
    same!(OwnFromPlain, Plain, "plain-ib_write_bw", Says::Row(65536, 500), "ib_write_bw -x {gid} -F -s 65536 -n 500"),
    same!(OwnToPlain, Plain, "to-plain-ib_read_bw", Says::Row(65536, 500), "ib_read_bw -x {gid} -F -e -s 65536 -n 500"),
    same!(OwnFromPlain, PlainUd, "plain-ibv_ud_pingpong", PINGED, "ibv_ud_pingpong -g {gid} -s 1024 -n 200 -e -c"),
    by_cm!(Near, Cm, "near-rping", "rdma-ping-19", "rping -s -v -V -C 20", "rping -c -v -V -a {cm} -C 20"),
];

/// One end: a host, and the endpoint there; none: without masq.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'c> {
    pub(super) host: &'c CardHost,
    pub(super) endpoint: Option<&'static str>,
    /// By which rdma_cm reaches it.
    pub(super) cm: &'static str,
}

impl<'c> End<'c> {
    pub(super) fn start(&self, line: &str) -> anyhow::Result<Job<'c>> {
        match self.endpoint {
            Some(endpoint) => self.host.start(endpoint, line),
            None => self.host.start_bare(line),
        }
    }

    pub(super) fn serve(&self, line: &str, ready: Ready) -> anyhow::Result<Job<'c>> {
        match self.endpoint {
            Some(endpoint) => self.host.serve(endpoint, line, ready),
            None => self.host.serve_bare(line, ready),
        }
    }

    fn gid(&self) -> anyhow::Result<String> {
        match self.endpoint {
            Some(_) => Ok(GID_INDEX.to_owned()),
            None => Ok(self.host.bare_gid()?.to_string()),
        }
    }
}

/// Where both ends are, and as whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'c> {
    pub(super) server: End<'c>,
    pub(super) client: End<'c>,
}

impl<'c> Ends<'c> {
    pub(super) fn of(cards: &'c Cards, place: Place) -> anyhow::Result<Self> {
        let end = |host, endpoint, cm| End { host, endpoint, cm };
        let tenant = |endpoint, cm| end(&cards.alpha, Some(endpoint), cm);
        // To a plain host all endpoints have their host's address.
        let towards_plain = |endpoint| tenant(endpoint, cards.alpha.address());
        let plain = || Ok::<_, anyhow::Error>(end(cards.plain()?, None, policy::PLAIN.1));
        let (server, client) = match place {
            Place::Apart => {
                let client = end(&cards.beta, Some("blue/b"), "10.0.0.2");
                (tenant("blue/a", "10.0.0.1"), client)
            }
            Place::Near => (tenant("blue/a", "10.0.0.1"), tenant("blue/c", "10.0.0.3")),
            Place::FromPlain => (towards_plain("green/v"), plain()?),
            Place::ToPlain => (plain()?, towards_plain("green/v")),
            Place::OwnFromPlain => (towards_plain("green/a"), plain()?),
            Place::OwnToPlain => (plain()?, towards_plain("green/a")),
        };
        Ok(Self { server, client })
    }

    /// A command line for one end.
    pub(super) fn fill(&self, end: &End<'_>, line: &str) -> anyhow::Result<String> {
        let blanks = Blanks {
            gid: if line.contains("{gid}") {
                end.gid()?
            } else {
                String::new()
            },
            server: self.server.host.address().to_owned(),
            cm: self.server.cm.to_owned(),
            own: end.cm.to_owned(),
        };
        Ok(blanks.fill(line))
    }
}

impl Pair {
    /// Both must succeed and the client must say what it should.
    pub(super) fn run(&self, cards: &Cards) -> anyhow::Result<()> {
        let ends = Ends::of(cards, self.place)?;
        let serving = ends.fill(&ends.server, self.server)?;
        let asking = ends.fill(&ends.client, self.client)?;
        let waiting = ends.server.serve(&serving, self.ready)?;
        let asked = ends.client.start(&asking)?.wait(LIMIT).with_context(|| {
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
