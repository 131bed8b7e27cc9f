//! Whether the host can hold what the policy promises (docs/limits.md).

use masq_policy::{Policy, Quotas};
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
pub(super) fn compare(policy: &Policy) {
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
