//! What a host with a card must do when it is asked for what it may not, when rules change
//! and when something dies.

use super::host::{LATE, Objects, wait_until};
use super::pairs::{Ends, PAIRS, Place, RPINGS_END, TCP, told};
use super::policy::{self, REFUSES, RULE};
use super::{Cards, Needs};
use crate::interop::scenarios::Ready;
use anyhow::{Context as _, bail, ensure};
use masq_guest::Job;
use std::time::Duration;

pub(super) const SOON: Duration = Duration::from_secs(30);
/// What is under way for as long as a case takes; it gives up in half a second when nobody
/// answers.
pub(super) const ENDLESS: &str = "ib_write_bw -F -s 65536 -n 100000000 -u 14";
const EPERM: &str = "errno 1";
const ENOMEM: &str = "errno 12";

/// A function of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(super) run: fn(&Cards) -> anyhow::Result<()>,
}

macro_rules! case {
    ($needs:ident, $name:literal, $run:path) => {
        Case {
            name: $name,
            needs: Needs::$needs,
            run: $run,
        }
    };
}

// Those that end daemons and devices come last.
#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case!(Nothing, "same-addresses", same_addresses),
    case!(Rc, "refused-connection", refused_connection),
    case!(Cm, "cm-refused-connection", cm_refused_connection),
    case!(Nothing, "rule-change-cuts", rule_change_cuts),
    case!(Nothing, "quotas", quotas),
    case!(Nothing, "python-core", super::python::core),
    case!(Nothing, "client-killed", client_killed),
    case!(Nothing, "server-killed", server_killed),
    case!(PlainCm, "plain-refused", super::plain::refused),
    case!(PlainCm, "plain-client-killed", super::plain::client_killed),
    case!(PlainCm, "plain-host-killed", super::plain::host_killed),
    case!(Nothing, "masqd-killed", masqd_killed),
    case!(PlainCm, "plain-link-deleted", super::plain::link_deleted),
    case!(Card, "link-deleted", link_deleted),
    case!(Card, "two-devices", super::two::alike),
    case!(Card, "two-drivers", super::two::mixed),
    case!(Card, "no-such-device", no_such_device),
    case!(Card, "device-down", device_down),
];

/// A transfer between hosts that is under way and would not end.
struct Transfer<'c> {
    server: Job<'c>,
    client: Job<'c>,
}

impl<'c> Transfer<'c> {
    fn begin(cards: &'c Cards) -> anyhow::Result<Self> {
        let ends = Ends::of(cards, Place::Apart)?;
        let (more, address, ready) = match cards.card.has(Needs::Rc) {
            true => ("-x 3", "{server}", TCP),
            false => ("-R", "{cm}", Ready::Cm),
        };
        let line = format!("{ENDLESS} {more}");
        let server = ends.server.serve(&line, ready)?;
        let line = ends.fill(&ends.client, &format!("{line} {address}"))?;
        let (host, endpoint) = (ends.client.host, "blue/b");
        let client = host.start(endpoint, &line)?;
        let idle = wait_until(LATE, || {
            let connected = host.show(endpoint)?.sessions.iter().any(|session| {
                let mut qps = session.queue_pairs.iter();
                qps.any(|qp| qp.state == "RTS")
            });
            Ok((!connected).then(|| "no queue pair is connected".to_owned()))
        })?;
        if let Some(idle) = idle {
            let (out, err) = client.output()?;
            bail!("{idle}: {out}{err}");
        }
        // Into the middle of it.
        std::thread::sleep(Duration::from_millis(500));
        ensure!(client.is_running(), "the transfer ended by itself");
        Ok(Self { server, client })
    }
}

/// The first pair again: all is in order.
fn works(cards: &Cards) -> anyhow::Result<()> {
    let first = PAIRS.iter().find(|pair| cards.card.has(pair.needs));
    let first = first.context("no pair fits")?;
    first.run(cards).context("afterwards")
}

/// What both cards hold while nobody uses them; nothing to say of a soft device.
fn at_rest(cards: &Cards) -> anyhow::Result<[Option<Objects>; 2]> {
    // What masqd makes once and keeps is there after the first use.
    works(cards)?;
    let of = |host: &super::host::CardHost| -> anyhow::Result<Option<Objects>> {
        host.wait_until_at_rest(None)?;
        match cards.card.is_kernels() {
            true => host.objects().map(Some),
            false => Ok(None),
        }
    };
    Ok([of(&cards.alpha)?, of(&cards.beta)?])
}

fn wait_until_at_rest(cards: &Cards, at_rest: &[Option<Objects>; 2]) -> anyhow::Result<()> {
    let [alpha, beta] = at_rest;
    cards.alpha.wait_until_at_rest(alpha.as_ref())?;
    cards.beta.wait_until_at_rest(beta.as_ref())
}

/// Each tenant's 10.0.0.1 serves its own 10.0.0.2, at once.
fn same_addresses(cards: &Cards) -> anyhow::Result<()> {
    let lines = |port: u16| match cards.card.has(Needs::Rc) {
        true => {
            let line = format!("ibv_rc_pingpong -g 3 -n 200 -e -c -p {port}");
            let client = format!("{line} {}", cards.alpha.address());
            (line, client, Ready::Tcp(port))
        }
        false => {
            let client = "rping -c -V -C 50 -a 10.0.0.1".to_owned();
            ("rping -s -V -C 50".to_owned(), client, Ready::Cm)
        }
    };
    let tenants = [("blue", lines(18515)), ("red", lines(18516))];
    let mut jobs = Vec::new();
    for (tenant, (server, _, ready)) in &tenants {
        jobs.push(cards.alpha.serve(&format!("{tenant}/a"), server, *ready)?);
    }
    for (tenant, (_, client, _)) in &tenants {
        jobs.push(cards.beta.start(&format!("{tenant}/b"), client)?);
    }
    for job in jobs {
        let out = job.wait(SOON)?;
        ensure!(out.status == 0 || out.stderr.contains(RPINGS_END), "{out}");
    }
    Ok(())
}

/// The verb fails with EPERM, the program ends, and masq says which rule it was.
fn refused_connection(cards: &Cards) -> anyhow::Result<()> {
    let out = cards
        .alpha
        .start("blue/a", "/run/share/refusals rtr 10.0.0.9")?
        .wait(SOON)?;
    ensure!(out.stdout.contains(EPERM), "{}", told("refusals rtr", &out));
    let line = "ibv_rc_pingpong -g 3 -e";
    let server = cards.alpha.serve("blue/a", line, TCP)?;
    let client = format!("{line} {}", cards.alpha.address());
    let out = cards.beta.start("blue/far", &client)?.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(&client, &out));
    drop(server);
    names_the_rule(cards)
}

/// The connection is refused to the program, which ends, and masq says which rule it was.
fn cm_refused_connection(cards: &Cards) -> anyhow::Result<()> {
    let line = "rping -c -C 1 -a 10.0.0.9";
    let out = cards.alpha.start("blue/a", line)?.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(line, &out));
    names_the_rule(cards)
}

/// In `masq show` of the one who asked.
fn names_the_rule(cards: &Cards) -> anyhow::Result<()> {
    let refusals = cards.alpha.show("blue/a")?.endpoint.refusals;
    let mut rules = refusals.iter().map(|refusal| refusal.rule.as_str());
    ensure!(
        rules.any(|rule| rule.contains(REFUSES)),
        "masq show does not name {REFUSES}: {refusals:?}"
    );
    let text = cards.alpha.run("masq show blue/a")?;
    ensure!(text.contains(REFUSES), "masq show does not name it: {text}");
    Ok(())
}

/// A rule that goes takes its connections along, and one that comes back allows new ones.
fn rule_change_cuts(cards: &Cards) -> anyhow::Result<()> {
    let transfer = Transfer::begin(cards)?;
    let said = cards.beta.reload(&policy::cut())?;
    ensure!(
        said.contains("connections cut: ") && !said.contains("connections cut: 0"),
        "without {RULE}, masq reload said {said}"
    );
    let out = transfer.client.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(ENDLESS, &out));
    drop(transfer.server);
    cards.beta.reload(&policy::whole())?;
    works(cards)
}

fn quotas(cards: &Cards) -> anyhow::Result<()> {
    for (words, says) in [
        ("qps 8", format!("made 4 {ENOMEM}")),
        ("mr 1048577", ENOMEM.to_owned()),
        ("mr 65536", "errno 0".to_owned()),
    ] {
        let line = format!("/run/share/refusals {words}");
        let out = cards.alpha.start("tight/a", &line)?.wait(SOON)?;
        ensure!(out.stdout.contains(&says), "{}", told(&line, &out));
    }
    let refusals = cards.alpha.show("tight/a")?.endpoint.refusals;
    for quota in ["qps", "pinned"] {
        ensure!(
            refusals.iter().any(|refusal| refusal.rule.contains(quota)),
            "masq show does not name {quota}: {refusals:?}"
        );
    }
    cards.alpha.wait_until_at_rest(None)
}

fn client_killed(cards: &Cards) -> anyhow::Result<()> {
    let at_rest = at_rest(cards)?;
    let Transfer { server, client } = Transfer::begin(cards)?;
    client.signal("KILL")?;
    client.wait(SOON)?;
    drop(server);
    wait_until_at_rest(cards, &at_rest)?;
    works(cards)
}

/// The one who sends hears of it.
fn server_killed(cards: &Cards) -> anyhow::Result<()> {
    let at_rest = at_rest(cards)?;
    let Transfer { server, client } = Transfer::begin(cards)?;
    server.signal("KILL")?;
    let out = client.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(ENDLESS, &out));
    drop(server);
    wait_until_at_rest(cards, &at_rest)?;
    works(cards)
}

/// The kernel cleans up, programs end, and a new masqd finds everything in order.
fn masqd_killed(cards: &Cards) -> anyhow::Result<()> {
    let before = cards.without_masqd.as_ref();
    let Transfer { server, client } = Transfer::begin(cards)?;
    cards.alpha.end_masqd("KILL")?;
    if let Some(before) = before {
        let left = wait_until(LATE, || {
            let now = cards.alpha.objects()?;
            Ok((now != *before).then(|| format!("{now:?} instead of {before:?}")))
        })?;
        ensure!(
            left.is_none(),
            "the card holds {}",
            left.unwrap_or_default()
        );
    }
    // perftest's server polls for ever for what nobody will bring; the client hears that
    // its peer is gone.
    let out = client.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(ENDLESS, &out));
    drop(server);
    cards.alpha.start_masqd()?;
    works(cards)
}

/// Programs hear of it and end; masqd stays and says so.
fn link_deleted(cards: &Cards) -> anyhow::Result<()> {
    let transfer = Transfer::begin(cards)?;
    let device = cards.beta.device()?;
    cards.beta.run(&format!("rdma link delete {device}"))?;
    let out = transfer.client.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(ENDLESS, &out));
    drop(transfer.server);
    ensure!(cards.beta.masqd_runs()?, "masqd ended with its device");
    let log = cards.beta.log();
    let says = |line: &str| line.contains(&device) && line.contains("gone");
    ensure!(
        log.lines().any(says),
        "no line says that {device} is gone:\n{log}"
    );
    // What is asked of it now fails, and does not hang.
    let line = "ibv_rc_pingpong -g 3 -e";
    let out = cards.beta.start("blue/b", line)?.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(line, &out));
    ensure!(cards.beta.masqd_runs()?, "masqd ended afterwards");
    cards.beta.end_masqd("TERM")?;
    cards.beta.add_device()?;
    cards.beta.start_masqd()?;
    works(cards)
}

/// masqd refuses to start, at once, and names the device.
fn no_such_device(cards: &Cards) -> anyhow::Result<()> {
    let said = cards.beta.refused_start("verbs:nosuch9")?;
    ensure!(said.contains("nosuch9"), "masqd said {said}");
    Ok(())
}

/// A port that is down is said to be; nothing crashes.
fn device_down(cards: &Cards) -> anyhow::Result<()> {
    cards.beta.end_masqd("TERM")?;
    cards.beta.run("ip link set e0 down; sleep 0.5")?;
    let device = cards.beta.device()?;
    let said = cards.beta.refused_start(&format!("verbs:{device}"))?;
    cards.beta.run("ip link set e0 up")?;
    cards.beta.wait_for_device()?;
    cards.beta.start_masqd()?;
    ensure!(said.contains(&device), "masqd said {said}");
    works(cards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_case_has_a_name_that_no_pair_has() {
        let cases = CASES.iter().map(|case| case.name);
        let names: BTreeSet<_> = PAIRS.iter().map(|p| p.name).chain(cases).collect();
        assert_eq!(names.len(), PAIRS.len() + CASES.len());
    }
}
