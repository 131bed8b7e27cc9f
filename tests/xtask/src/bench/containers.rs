//! What masq's hook adds to the start of a container.

use super::report::{Row, Sense};
use crate::progress::{say, step};
use masq_container_tests::{
    Bundle, Bundles, Container, Launch, PodNet, Podman, RootFs, Runtime, Site, available, policy,
};
use masq_e2e::Binaries;
use std::time::{Duration, Instant};

/// Starts of each kind, taken in turns.
const ROUNDS: usize = 41;
const PODMAN_ROUNDS: usize = 11;

/// Medians in milliseconds.
struct Added {
    start: f64,
    plain_start: f64,
    removal: f64,
}

/// Measures, and fills the table; where runc cannot work, says so.
pub(crate) fn measure(binaries: &Binaries) -> anyhow::Result<Vec<Row>> {
    if let Err(why) = available(Runtime::Podman) {
        say(&format!("LEFT OUT: {why}"));
        return Ok(Vec::new());
    }
    let image = RootFs::debian()?;
    let mut rows = Vec::new();

    let net = PodNet::with_address("10.7.1.1/24")?;
    let runc = Bundles::runc()?;
    let site = Site::with(binaries.clone(), &policy("10.7.1.0/24"), &["--log", "warn"])?;
    let plain = Bundle::of(&image).inside(&net);
    let with = plain.clone().edits(site.devices().edits("blue")?);
    let measuring = step("runc, starts with and without masq");
    let added = compare(ROUNDS, || runc.start(&plain), || runc.start(&with))?;
    measuring.done(&format!(
        "{:.1} ms without, {:.1} ms more with; {:.1} ms more to remove",
        added.plain_start, added.start, added.removal
    ));
    rows.push(Row::value(
        "masq's hook adds to a start by runc, median, ms",
        added.start,
        Sense::AtMost(30.0, 30.0),
    ));
    rows.push(Row::value(
        "masq's hook adds to a removal by runc, median, ms",
        added.removal,
        Sense::Shown,
    ));

    let podman = Podman::new()?;
    let launch = Launch::of(&image).inside(&net);
    let with = launch.clone().device(site.devices(), "blue");
    let measuring = step("podman, starts with and without masq");
    let added = compare(
        PODMAN_ROUNDS,
        || podman.start(&launch),
        || podman.start(&with),
    )?;
    measuring.done(&format!(
        "{:.0} ms without, {:.1} ms more with",
        added.plain_start, added.start
    ));
    rows.push(Row::value(
        "masq's hook adds to a start by podman, median, ms",
        added.start,
        Sense::AtMost(30.0, 30.0),
    ));
    Ok(rows)
}

/// In turns, so that a machine that slows down slows both.
fn compare(
    rounds: usize,
    plain: impl Fn() -> anyhow::Result<Container>,
    with: impl Fn() -> anyhow::Result<Container>,
) -> anyhow::Result<Added> {
    let mut times: [Vec<Duration>; 4] = Default::default();
    let [plain_starts, plain_removals, starts, removals] = &mut times;
    for _ in 0..rounds {
        for (make, started, removed) in [
            (
                &plain as &dyn Fn() -> _,
                &mut *plain_starts,
                &mut *plain_removals,
            ),
            (&with, &mut *starts, &mut *removals),
        ] {
            let since = Instant::now();
            let container = make()?;
            started.push(since.elapsed());
            let since = Instant::now();
            container.remove()?;
            removed.push(since.elapsed());
        }
    }
    let [plain_start, plain_removal, start, removal] = times.map(median);
    Ok(Added {
        start: start - plain_start,
        plain_start,
        removal: removal - plain_removal,
    })
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64() * 1000.0
}
