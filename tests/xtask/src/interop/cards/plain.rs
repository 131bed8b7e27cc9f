//! A tenant over a card, and a host that runs no masqd: what is refused, and what dies.

use super::cases::{ENDLESS, SOON};
use super::host::{LATE, Objects, wait_until};
use super::pairs::{End, Ends, Place, told};
use super::policy::{OTHER, PLAIN};
use super::{Card, Cards};
use crate::interop::scenarios::Ready;
use anyhow::ensure;
use masq_guest::Job;

/// How rping says that it was refused.
const REJECTED: &str = "RDMA_CM_EVENT_REJECTED";

/// What asks must hear REJECTED.
fn is_refused(end: &End<'_>, line: &str) -> anyhow::Result<()> {
    let out = end.start(line)?.wait(SOON)?;
    let said = format!("{}{}", out.stdout, out.stderr);
    ensure!(
        out.status != 0 && said.contains(REJECTED),
        "{}",
        told(line, &out)
    );
    Ok(())
}

/// Whoever asks hears it, and masq says which rule it was.
pub(super) fn refused(cards: &Cards) -> anyhow::Result<()> {
    let Ends { server, client } = Ends::of(cards, Place::FromPlain)?;
    let shut = End {
        endpoint: Some("green/shut"),
        ..server
    };
    let host = cards.alpha.address();
    // Listens, but no rule leads there: the host does not even hear of it. (Of siw rping is
    // told so by rdma_connect itself, and then waits for ever.)
    if cards.card != Card::Siw {
        let waiting = shut.serve("rping -s -p 7180", Ready::Cm)?;
        is_refused(&client, &format!("rping -c -C 1 -a {host} -p 7180"))?;
        drop(waiting);
    }
    // A service that one host may ask for, and another host.
    let (name, address) = OTHER;
    client
        .host
        .run_bare(&format!("ip address add {address}/24 dev e0; sleep 1"))?;
    let waiting = server.serve("rping -s -p 7181", Ready::Cm)?;
    let line = format!("rping -c -C 1 -a {host} -I {address} -p 7181");
    is_refused(&client, &line)?;
    drop(waiting);
    let refusals = cards.alpha.show(&format!("green/{name}"))?;
    let refusals = refusals.endpoint.refusals;
    ensure!(
        refusals.iter().any(|refusal| refusal.verb == "cm_request"),
        "masq show does not tell of it: {refusals:?}"
    );
    // The other way: by the policy, and because nobody listens.
    let (_, plain) = PLAIN;
    is_refused(&shut, &format!("rping -c -C 1 -a {plain}"))?;
    let line = format!("rping -c -C 1 -a {plain} -p 7182");
    is_refused(&server, &line)
}

/// A transfer from a tenant to a plain host that is under way and would not end.
struct Transfer<'c> {
    plain: Job<'c>,
    tenant: Job<'c>,
    /// What the tenant's card held before.
    before: Option<Objects>,
}

impl<'c> Transfer<'c> {
    fn begin(cards: &'c Cards) -> anyhow::Result<Self> {
        cards.alpha.wait_until_at_rest(None)?;
        Self::begin_beside(cards)
    }

    /// Whoever else has a session.
    fn begin_beside(cards: &'c Cards) -> anyhow::Result<Self> {
        let ends = Ends::of(cards, Place::ToPlain)?;
        let before = match cards.card {
            Card::Soft => None,
            _ => Some(cards.alpha.objects()?),
        };
        let line = format!("{ENDLESS} -R");
        let plain = ends.server.serve(&line, Ready::Cm)?;
        let line = ends.fill(&ends.client, &format!("{line} {{cm}}"))?;
        let tenant = ends.client.start(&line)?;
        let idle = wait_until(LATE, || {
            let sessions = cards.alpha.show("green/v")?.sessions;
            let mut qps = sessions.iter().flat_map(|s| &s.queue_pairs);
            Ok((!qps.any(|qp| qp.state == "RTS")).then(|| "not connected".to_owned()))
        })?;
        ensure!(idle.is_none(), "{:?}", tenant.output()?);
        // Into the middle of it.
        std::thread::sleep(std::time::Duration::from_millis(500));
        ensure!(tenant.is_running(), "it ended: {:?}", tenant.output()?);
        Ok(Self {
            plain,
            tenant,
            before,
        })
    }
}

/// Nothing of it is left on the card, ids of the connection manager included, and the
/// plain host hears of it.
pub(super) fn client_killed(cards: &Cards) -> anyhow::Result<()> {
    let transfer = Transfer::begin(cards)?;
    transfer.tenant.signal("KILL")?;
    transfer.tenant.wait(SOON)?;
    cards.alpha.wait_until_at_rest(transfer.before.as_ref())?;
    let left = wait_until(LATE, || {
        let left = cards.plain()?.run_bare("rdma resource show cm_id")?;
        let connected = left.lines().find(|line| line.contains("state CONNECT "));
        Ok(connected.map(str::to_owned))
    })?;
    ensure!(
        left.is_none(),
        "the plain host did not hear of it: {left:?}"
    );
    drop(transfer.plain);
    Ok(())
}

/// The tenant's program hears of it.
pub(super) fn host_killed(cards: &Cards) -> anyhow::Result<()> {
    let transfer = Transfer::begin(cards)?;
    transfer.plain.signal("KILL")?;
    let out = transfer.tenant.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(ENDLESS, &out));
    cards.alpha.wait_until_at_rest(transfer.before.as_ref())
}

/// The kernel waits for nobody's connection manager: `rdma link delete` ends, and so do
/// programs.
pub(super) fn link_deleted(cards: &Cards) -> anyhow::Result<()> {
    if cards.card == Card::Soft {
        return Ok(());
    }
    let ends = Ends::of(cards, Place::FromPlain)?;
    let listener = ends.server.serve("rping -s -p 7183", Ready::Cm)?;
    let transfer = Transfer::begin_beside(cards)?;
    let device = cards.alpha.device()?;
    cards.alpha.run(&format!("rdma link delete {device}"))?;
    let out = transfer.tenant.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(ENDLESS, &out));
    ensure!(cards.alpha.masqd_runs()?, "masqd ended with its device");
    drop((transfer.plain, listener));
    cards.alpha.end_masqd("TERM")?;
    cards.alpha.add_device()?;
    cards.alpha.start_masqd()
}
