//! Who uses how much of which quota.

use masq_policy::{EndpointId, Policy, Quotas, TenantName};
use std::collections::{BTreeMap, HashMap};

/// A quota that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub(crate) enum Kind {
    Containers,
    Sessions,
    Pds,
    Qps,
    Cqs,
    Srqs,
    Mrs,
    Mws,
    Ahs,
    Multicast,
    EventQueues,
    CmIds,
    Windows,
    PinnedBytes,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Containers,
        Self::Sessions,
        Self::Pds,
        Self::Qps,
        Self::Cqs,
        Self::Srqs,
        Self::Mrs,
        Self::Mws,
        Self::Ahs,
        Self::Multicast,
        Self::EventQueues,
        Self::CmIds,
        Self::Windows,
        Self::PinnedBytes,
    ];

    /// Its key in the policy file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Sessions => "sessions",
            Self::Pds => "pds",
            Self::Qps => "qps",
            Self::Cqs => "cqs",
            Self::Srqs => "srqs",
            Self::Mrs => "mrs",
            Self::Mws => "mws",
            Self::Ahs => "ahs",
            Self::Multicast => "multicast",
            Self::EventQueues => "event_queues",
            Self::CmIds => "cm_ids",
            Self::Windows => "windows",
            Self::PinnedBytes => "pinned",
        }
    }

    pub(crate) fn limit(self, quotas: &Quotas) -> u64 {
        match self {
            Self::Containers => quotas.containers,
            Self::Sessions => quotas.sessions,
            Self::Pds => quotas.pds,
            Self::Qps => quotas.qps,
            Self::Cqs => quotas.cqs,
            Self::Srqs => quotas.srqs,
            Self::Mrs => quotas.mrs,
            Self::Mws => quotas.mws,
            Self::Ahs => quotas.ahs,
            Self::Multicast => quotas.multicast,
            Self::EventQueues => quotas.event_queues,
            Self::CmIds => quotas.cm_ids,
            Self::Windows => quotas.windows,
            Self::PinnedBytes => quotas.pinned_bytes,
        }
    }
}

/// Amounts by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts([u64; 14]);

impl Amounts {
    pub(crate) fn get(&self, kind: Kind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or(0)
    }

    fn cell(&mut self, kind: Kind) -> Option<&mut u64> {
        self.0.get_mut(kind as usize)
    }

    pub(crate) fn add(&mut self, kind: Kind, amount: u64) {
        if let Some(cell) = self.cell(kind) {
            *cell = cell.saturating_add(amount);
        }
    }

    pub(crate) fn sub(&mut self, kind: Kind, amount: u64) {
        if let Some(cell) = self.cell(kind) {
            *cell = cell.saturating_sub(amount);
        }
    }
}

/// A charge that a quota does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// `quota qps of blue/a` or `quota qps of tenant blue`.
    pub(crate) rule: String,
    pub(crate) used: u64,
    pub(crate) limit: u64,
    pub(crate) wanted: u64,
}

/// What every endpoint and tenant uses.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    endpoints: HashMap<EndpointId, Amounts>,
    tenants: BTreeMap<TenantName, Amounts>,
}

impl Ledger {
    /// Charges `amount` to an endpoint and its tenant, or to neither.
    pub(crate) fn charge(
        &mut self,
        policy: &Policy,
        id: &EndpointId,
        kind: Kind,
        amount: u64,
    ) -> Result<(), Exceeded> {
        let check = |used: u64, limit: u64, rule: String| {
            if used.checked_add(amount).is_some_and(|sum| sum <= limit) {
                Ok(())
            } else {
                Err(Exceeded {
                    rule,
                    used,
                    limit,
                    wanted: amount,
                })
            }
        };
        let used = self.endpoints.get(id).map_or(0, |a| a.get(kind));
        let limit = kind.limit(policy.quotas(id));
        check(used, limit, format!("quota {} of {id}", kind.key()))?;
        let tenant = id.tenant();
        let used = self.tenants.get(tenant).map_or(0, |a| a.get(kind));
        let limit = policy
            .tenant(tenant.as_str())
            .map_or(0, |t| kind.limit(t.quotas()));
        check(
            used,
            limit,
            format!("quota {} of tenant {tenant}", kind.key()),
        )?;
        self.endpoints
            .entry(id.clone())
            .or_default()
            .add(kind, amount);
        self.tenants
            .entry(tenant.clone())
            .or_default()
            .add(kind, amount);
        Ok(())
    }

    /// Gives back what was charged.
    pub(crate) fn refund(&mut self, id: &EndpointId, kind: Kind, amount: u64) {
        if let Some(used) = self.endpoints.get_mut(id) {
            used.sub(kind, amount);
            if *used == Amounts::default() {
                self.endpoints.remove(id);
            }
        }
        if let Some(used) = self.tenants.get_mut(id.tenant()) {
            used.sub(kind, amount);
            if *used == Amounts::default() {
                self.tenants.remove(id.tenant());
            }
        }
    }

    /// What an endpoint and its tenant use.
    pub(crate) fn used(&self, id: &EndpointId, kind: Kind) -> (u64, u64) {
        let of = |amounts: Option<&Amounts>| amounts.map_or(0, |a| a.get(kind));
        (
            of(self.endpoints.get(id)),
            of(self.tenants.get(id.tenant())),
        )
    }

    /// Whether nobody uses anything.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.tenants.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "
version: 1
tenants:
  blue:
    quotas: { qps: 3 }
    endpoints:
      a: { address: 10.0.0.1, quotas: { qps: 2 } }
      b: { address: 10.0.0.2 }
";

    #[test]
    fn a_charge_beyond_endpoint_or_tenant_changes_nothing() {
        let policy = Policy::parse("p", POLICY).unwrap();
        let (a, b): (EndpointId, EndpointId) =
            ("blue/a".parse().unwrap(), "blue/b".parse().unwrap());
        let mut ledger = Ledger::default();
        ledger.charge(&policy, &a, Kind::Qps, 2).unwrap();
        let over = ledger.charge(&policy, &a, Kind::Qps, 1).unwrap_err();
        assert_eq!(
            (over.rule.as_str(), over.used, over.limit),
            ("quota qps of blue/a", 2, 2)
        );
        ledger.charge(&policy, &b, Kind::Qps, 1).unwrap();
        let over = ledger.charge(&policy, &b, Kind::Qps, 1).unwrap_err();
        assert_eq!(over.rule, "quota qps of tenant blue");
        assert!(
            ledger
                .charge(&policy, &b, Kind::PinnedBytes, u64::MAX)
                .is_err(),
            "no wrap"
        );
        assert_eq!(ledger.used(&b, Kind::Qps), (1, 3));
        ledger.refund(&a, Kind::Qps, 2);
        ledger.refund(&b, Kind::Qps, 1);
        assert!(ledger.is_empty(), "nothing is left behind");
    }
}
