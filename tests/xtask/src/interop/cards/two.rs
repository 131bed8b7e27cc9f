//! One masqd with two devices of the kernel, and a tenant on each.

use super::cases::SOON;
use super::host::{CardHost, LATE, wait_until};
use super::pairs::told;
use super::{Cards, policy};
use crate::interop::scenarios::Ready;
use anyhow::{Context as _, ensure};
use masq_guest::{Driver, Job};

/// By events: two programs that poll leave one processor no time for anything else.
const ENDLESS: &str = "ib_read_bw -F -e -s 65536 -n 100000000 -u 14";
/// The tenant on the second device.
const MOVED: &str = "red";
/// The end of a veth pair that the second device is over.
const INTERFACE: &str = "second";

/// Two of one driver.
pub(super) fn alike(cards: &Cards) -> anyhow::Result<()> {
    run(cards, cards.card.driver())
}

/// rdma_rxe and siw in one masqd.
pub(super) fn mixed(cards: &Cards) -> anyhow::Result<()> {
    run(
        cards,
        match cards.card.driver() {
            Driver::Siw => Driver::Rxe,
            _ => Driver::Siw,
        },
    )
}

/// Both tenants' peers are on one host, at once; then the second tenant's device goes.
fn run(cards: &Cards, second: Driver) -> anyhow::Result<()> {
    let alpha = &cards.alpha;
    alpha.end_masqd("TERM")?;
    let result = with_two(alpha, second);
    // As it was for the next, however this ended.
    if alpha.masqd_runs()? {
        alpha.end_masqd("TERM")?;
    }
    let deleted = alpha.run(&format!(
        "ip link delete {INTERFACE}; ! rdma link | grep 1/1"
    ));
    alpha.write_policy(&policy::whole())?;
    alpha.start_masqd()?;
    result.and(deleted.map(drop))
}

fn with_two(alpha: &CardHost, second: Driver) -> anyhow::Result<()> {
    let device = second.device(1).context("no driver")?;
    alpha.run(&format!(
        "ip link add {INTERFACE} type veth peer name behind\n\
         ip address add 10.79.0.1/24 dev {INTERFACE}\n\
         ip link set behind up\nip link set {INTERFACE} up\n\
         rdma link add {device} type {second} netdev {INTERFACE}"
    ))?;
    alpha.wait_for(&device)?;
    alpha.write_policy(&policy::on_device(MOVED, &device))?;
    alpha.run(&format!(
        "options=\"$options --device verbs:{device}\"; start_masqd"
    ))?;
    let first = alpha.device()?;
    let blue = Transfer::begin(alpha, "blue", &first, 18515)?;
    let red = Transfer::begin(alpha, MOVED, &device, 18516)?;
    // One is still under way once the other is.
    blue.goes_on()?;
    red.goes_on()?;

    alpha.run(&format!("rdma link delete {device}"))?;
    let out = red.client.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(ENDLESS, &out));
    drop(red.server);
    blue.goes_on()?;
    drop(blue);
    // A new one on the device that stayed, none on the one that is gone.
    Transfer::begin(alpha, "blue", &first, 18515)?.goes_on()?;
    let line = "ibv_rc_pingpong -g 3 -e";
    let out = alpha.start(&format!("{MOVED}/a"), line)?.wait(SOON)?;
    ensure!(out.status != 0, "{}", told(line, &out));
    ensure!(alpha.masqd_runs()?, "masqd ended with its second device");
    Ok(())
}

/// A transfer of a tenant between its `a` and `c`, which would not end.
struct Transfer<'c> {
    host: &'c CardHost,
    tenant: &'static str,
    server: Job<'c>,
    client: Job<'c>,
}

impl<'c> Transfer<'c> {
    fn begin(
        host: &'c CardHost,
        tenant: &'static str,
        device: &str,
        port: u16,
    ) -> anyhow::Result<Self> {
        let (server, client) = (format!("{tenant}/a"), format!("{tenant}/c"));
        let line = format!("{ENDLESS} -x 3 -p {port}");
        let ready = Ready::Tcp(port);
        let server = host.serve(&server, &line, ready)?;
        let line = format!("{line} {}", host.address());
        let transfer = Self {
            host,
            tenant,
            server,
            client: host.start(&client, &line)?,
        };
        let idle = wait_until(LATE, || {
            let posted = transfer.posted()?;
            Ok((posted == 0).then(|| "nothing was sent".to_owned()))
        })?;
        ensure!(idle.is_none(), "{tenant}: {:?}", transfer.client.output()?);
        let shown = host.show(&client)?;
        let on = shown.endpoint.device;
        ensure!(on == device, "{client} is on {on} instead of {device}");
        Ok(transfer)
    }
}

impl Transfer<'_> {
    /// Requests that its client has completed.
    fn posted(&self) -> anyhow::Result<u64> {
        let sessions = self.host.show(&format!("{}/c", self.tenant))?.sessions;
        let qps = sessions.iter().flat_map(|session| &session.queue_pairs);
        Ok(qps.filter_map(|qp| qp.counters.get("tx_messages")).sum())
    }

    /// It completes more.
    fn goes_on(&self) -> anyhow::Result<()> {
        let before = self.posted()?;
        let stuck = wait_until(LATE, || {
            let now = self.posted()?;
            Ok((now <= before).then(|| format!("{now} after {before}")))
        })?;
        ensure!(
            stuck.is_none() && self.client.is_running(),
            "{} does not go on: {stuck:?} {:?}",
            self.tenant,
            self.client.output()?
        );
        Ok(())
    }
}
