//! What is run between two sides, one line each.
//!
//! In command lines `{gid}` is the index of the side's own RoCEv2 GID, `{server}` the
//! server's address on the wire (the programs' TCP exchange), `{cm}` the server's address
//! for rdma_cm, `{own}` the client's.

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

/// Which side is masq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sides {
    /// The kernel's rdma_rxe on both: proves the guests themselves.
    RxeRxe,
    /// masq serves, rdma_rxe is the client.
    MasqRxe,
    /// rdma_rxe serves, masq is the client.
    RxeMasq,
}

impl Sides {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::RxeRxe => "rdma_rxe serves rdma_rxe",
            Self::MasqRxe => "masq serves rdma_rxe",
            Self::RxeMasq => "rdma_rxe serves masq",
        }
    }
}

/// How to see that a server waits for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It listens on this TCP port.
    Tcp(u16),
    /// It listens by rdma_cm.
    Cm,
}

/// What the client's output must have, besides its success.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Says {
    Words(&'static str),
    /// perftest's row of numbers, beginning with the size and the iterations.
    Row(u64, u64),
}

impl Says {
    pub(crate) fn check(self, output: &str) -> anyhow::Result<()> {
        match self {
            Self::Words(words) => {
                ensure!(output.contains(words), "it does not say `{words}`");
                Ok(())
            }
            Self::Row(bytes, iterations) => {
                let mut rows = output.lines().map(|line| {
                    let cells = line.split_ascii_whitespace().map(str::parse::<f64>);
                    cells.collect::<Result<Vec<_>, _>>().unwrap_or_default()
                });
                let row = rows.rfind(|row| row.len() >= 4);
                let row = row.context("it printed no row of numbers")?;
                ensure!(
                    row.starts_with(&[bytes as f64, iterations as f64]),
                    "its row is not of {iterations} times {bytes} bytes: {row:?}"
                );
                Ok(())
            }
        }
    }
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) server: &'static str,
    pub(crate) client: &'static str,
    pub(crate) ready: Ready,
    pub(crate) says: Says,
    pub(crate) sides: &'static [Sides],
}

/// Those between masq and rdma_rxe are added here.
const ALL: &[Sides] = &[Sides::RxeRxe, Sides::MasqRxe, Sides::RxeMasq];
const TCP: Ready = Ready::Tcp(18515);

/// One command line on both sides, to which the client's adds the server's address.
macro_rules! same {
    ($name:literal, $says:expr, $line:literal) => {
        Scenario {
            name: $name,
            server: $line,
            client: concat!($line, " {server}"),
            ready: TCP,
            says: $says,
            sides: ALL,
        }
    };
}

/// Two command lines that meet by rdma_cm.
macro_rules! by_cm {
    ($name:literal, $says:expr, $server:literal, $client:literal) => {
        Scenario {
            name: $name,
            server: $server,
            client: $client,
            ready: Ready::Cm,
            says: $says,
            sides: ALL,
        }
    };
}

const PINGED: Says = Says::Words("usec/iter");

// Events where a program offers them: a guest has one or two slow processors, and one that
// polls leaves none to the kernel. So few times where it does not.
#[rustfmt::skip]
pub(crate) const SCENARIOS: &[Scenario] = &[
    same!("ibv_rc_pingpong", PINGED, "ibv_rc_pingpong -g {gid} -n 200 -e -c"),
    same!("ibv_uc_pingpong", PINGED, "ibv_uc_pingpong -g {gid} -n 200 -e -c"),
    same!("ibv_ud_pingpong", PINGED, "ibv_ud_pingpong -g {gid} -s 1024 -n 200 -e -c"),
    same!("ibv_srq_pingpong", PINGED, "ibv_srq_pingpong -g {gid} -q 4 -n 200 -e -c"),
    same!("ib_send_bw", Says::Row(65536, 500), "ib_send_bw -x {gid} -F -e -s 65536 -n 500"),
    same!("ib_send_lat", Says::Row(64, 200), "ib_send_lat -x {gid} -F -e -s 64 -n 200"),
    same!("ib_write_bw", Says::Row(65536, 500), "ib_write_bw -x {gid} -F -s 65536 -n 500"),
    same!("ib_write_lat", Says::Row(64, 50), "ib_write_lat -x {gid} -F -s 64 -n 50"),
    same!("ib_read_bw", Says::Row(65536, 500), "ib_read_bw -x {gid} -F -e -s 65536 -n 500"),
    same!("ib_read_lat", Says::Row(64, 200), "ib_read_lat -x {gid} -F -e -s 64 -n 200"),
    same!("ib_atomic_bw", Says::Row(8, 500), "ib_atomic_bw -x {gid} -F -e -n 500"),
    same!("ib_atomic_lat", Says::Row(8, 200), "ib_atomic_lat -x {gid} -F -e -n 200"),
    by_cm!("rping", Says::Words("ping data"), "rping -s -v -V -a {cm} -C 20", "rping -c -v -V -a {cm} -I {own} -C 20"),
    by_cm!("ucmatose", Says::Words("return status 0"), "ucmatose -b {cm} -C 20", "ucmatose -s {cm} -b {own} -C 20"),
];

/// What a side fills in.
#[derive(Clone, Debug)]
pub(crate) struct Blanks {
    pub(crate) gid: String,
    pub(crate) server: String,
    pub(crate) cm: String,
    pub(crate) own: String,
}

impl Blanks {
    pub(crate) fn fill(&self, line: &str) -> String {
        line.replace("{gid}", &self.gid)
            .replace("{server}", &self.server)
            .replace("{cm}", &self.cm)
            .replace("{own}", &self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_blank_is_left_in_any_command_line() {
        let blanks = Blanks {
            gid: "1".to_owned(),
            server: "s".to_owned(),
            cm: "c".to_owned(),
            own: "o".to_owned(),
        };
        for scenario in SCENARIOS {
            for line in [scenario.server, scenario.client] {
                let line = blanks.fill(line);
                assert!(!line.contains(['{', '}']), "{line}");
            }
        }
    }

    #[test]
    fn perftests_row_must_be_of_the_run_that_was_asked_for() {
        let out = " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n \
                   65536      500              inf                0.00               0.000000\n---\n";
        Says::Row(65536, 500).check(out).unwrap();
        assert!(Says::Row(65536, 1000).check(out).is_err());
        assert!(
            Says::Row(65536, 500)
                .check("Completion with error")
                .is_err()
        );
    }
}
