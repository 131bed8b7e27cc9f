//! Whether the host can hold what the policy promises (docs/limits.md).

use crate::devices::{DeviceId, Devices, may_be_here};
use masq_device::DataPathKind;
use masq_directory::LocalHost;
use masq_policy::{Policy, Quotas, Tenant};
use rustix::process::{Resource, getrlimit};

/// Descriptors of a session: two of the socket, the process, its memory and
/// shared file, the doorbell page, and kick and call of two virtqueues, kept
/// twice each.
pub(super) const SESSION_FDS: u64 = 16;
/// Descriptors of an event queue: kick, call, call of the event thread, file.
pub(super) const EVENT_QUEUE_FDS: u64 = 4;
/// Mappings of a session: two virtqueues, the doorbell page, stacks.
pub(super) const SESSION_MAPS: u64 = 10;

fn descriptors(quotas: &Quotas) -> u64 {
    let sessions = quotas.sessions.saturating_mul(SESSION_FDS);
    sessions.saturating_add(quotas.event_queues.saturating_mul(EVENT_QUEUE_FDS))
}

fn mappings(quotas: &Quotas) -> u64 {
    let rings = quotas.qps.saturating_mul(2);
    [
        quotas.windows,
        rings,
        quotas.cqs,
        quotas.srqs,
        quotas.event_queues,
        quotas.sessions.saturating_mul(SESSION_MAPS),
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

/// Warns if tenants that use all their quotas would exhaust the host; masqd
/// then refuses whoever comes last.
pub(super) fn compare(policy: &Policy, devices: &Devices, this: Option<&LocalHost>) {
    for short in shortfalls(policy, devices, this) {
        let Shortfall {
            device,
            what,
            needed,
            limit,
        } = short;
        tracing::warn!(
            device,
            needed,
            limit,
            "all quotas of its tenants together promise more {what} than the card has: whoever \
             comes last is refused (ENOMEM, with the reason in `masq show`); lower quotas, or \
             give a tenant another `device`"
        );
    }
    let sum = |of: fn(&Quotas) -> u64| {
        let tenants = policy.tenants();
        tenants
            .map(|tenant| of(tenant.quotas()))
            .fold(0, u64::saturating_add)
    };
    let maps = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let maps = maps.ok().and_then(|text| text.trim().parse().ok());
    let fds = getrlimit(Resource::Nofile).current;
    for (what, remedy, needed, limit) in [
        ("descriptors", "raise LimitNOFILE", sum(descriptors), fds),
        ("mappings", "raise vm.max_map_count", sum(mappings), maps),
    ] {
        if let Some(limit) = limit
            && needed > limit
        {
            tracing::warn!(
                needed,
                limit,
                "all quotas together need more {what} than the host allows; {remedy}, or lower quotas"
            );
        }
    }
}

/// What a card has less of than its tenants' quotas promise.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shortfall {
    device: String,
    what: &'static str,
    needed: u64,
    limit: u64,
}

fn shortfalls(policy: &Policy, devices: &Devices, this: Option<&LocalHost>) -> Vec<Shortfall> {
    let mut found = Vec::new();
    for (on, device) in devices.iter() {
        // The other kind makes its objects of memory.
        if device.data_path() != DataPathKind::Relay {
            continue;
        }
        let has = device.attributes();
        type Promised = fn(&Quotas) -> u64;
        let rows: [(&'static str, Promised, u32); 6] = [
            ("queue pairs", |q| q.qps, has.max_qp),
            ("completion queues", |q| q.cqs, has.max_cq),
            ("memory regions", |q| q.mrs, has.max_mr),
            ("protection domains", |q| q.pds, has.max_pd),
            ("shared receive queues", |q| q.srqs, has.max_srq),
            ("address handles", |q| q.ahs, has.max_ah),
        ];
        for (what, promised, limit) in rows {
            let tenants = tenants_on(on, policy, devices, this);
            let quotas = tenants.map(|tenant| promised(tenant.quotas()));
            let needed = quotas.fold(0, u64::saturating_add);
            // Of what a card cannot do at all it has none, and says so to programs.
            if limit > 0 && needed > u64::from(limit) {
                found.push(Shortfall {
                    device: device.name().to_owned(),
                    what,
                    needed,
                    limit: u64::from(limit),
                });
            }
        }
    }
    found
}

/// The tenants of a device that can have endpoints on this host.
fn tenants_on<'a>(
    on: DeviceId,
    policy: &'a Policy,
    devices: &'a Devices,
    this: Option<&'a LocalHost>,
) -> impl Iterator<Item = &'a Tenant> {
    let is_on = move |tenant: &&Tenant| devices.of(policy, tenant.name()) == on;
    let tenants = policy.tenants().filter(is_on);
    tenants.filter(move |tenant| may_be_here(tenant, this))
}

/// Warns of cards on which partitions do not tell tenants apart.
pub(super) fn partitions(policy: &Policy, devices: &Devices, this: Option<&LocalHost>) {
    for (device, tenants) in mixed(policy, devices, this) {
        tracing::warn!(
            device,
            tenants = tenants.join(" "),
            "the card sends for all of these tenants by its default partition: between hosts no \
             P_Key tells them apart, only masqd on each side does; keep others off that network, \
             or give all but one of them another `device`"
        );
    }
}

/// Cards that reach other hosts for several tenants, whose partitions they do not send.
fn mixed(
    policy: &Policy,
    devices: &Devices,
    this: Option<&LocalHost>,
) -> Vec<(String, Vec<String>)> {
    let reaches_hosts = devices
        .iter()
        .filter(|(_, device)| !device.separates_hosts() && device.network().is_some());
    let cards = reaches_hosts.map(|(on, device)| {
        let tenants = tenants_on(on, policy, devices, this);
        let names = tenants.map(|tenant| tenant.name().to_string());
        (device.name().to_owned(), names.collect::<Vec<_>>())
    });
    cards.filter(|(_, tenants)| tenants.len() > 1).collect()
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
