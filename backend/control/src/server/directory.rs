//! In step with the directory: what lives here is announced, what lives on other hosts
//! becomes part of the policy in force.

use super::Server;
use crate::ledger::Kind;
use masq_directory::{Claim, Slot};
use masq_policy::{Endpoint, EndpointId, Policy, TenantName};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

/// An endpoint that comes and goes more often than this within [`WINDOW`] is no news to
/// other hosts each time: its withdrawal waits for a second.
const OFTEN: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// What this host has announced.
#[derive(Default)]
pub(super) struct Announced {
    claims: HashMap<EndpointId, Claim>,
    /// How often endpoints were withdrawn since a time.
    withdrawn: HashMap<EndpointId, (Instant, u32)>,
    /// To be looked at again.
    later: HashSet<EndpointId>,
    /// Entries that are not believed, so that each is logged once.
    ignored: BTreeSet<Slot>,
}

impl Announced {
    /// Counts a withdrawal, unless there were too many.
    fn may_withdraw(&mut self, id: &EndpointId) -> bool {
        let now = Instant::now();
        let (since, count) = self.withdrawn.entry(id.clone()).or_insert((now, 0));
        if since.elapsed() >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= OFTEN
    }
}

impl Server {
    /// Tells the directory of an endpoint that came, went or has other addresses.
    pub(super) fn announce(&mut self, id: &EndpointId) {
        if !self.world.directory.hears_others() {
            return;
        }
        let endpoint = self.world.policy.endpoint(id);
        let claim = endpoint.filter(|e| self.is_to_be_announced(e)).map(claim);
        let before = self.announced.claims.get(id).cloned();
        match (before, claim) {
            (Some(before), Some(claim)) if before == claim => {
                self.announced.later.remove(id);
            }
            (_, Some(claim)) => {
                self.announced.later.remove(id);
                self.world.directory.announce(claim.clone());
                self.announced.claims.insert(id.clone(), claim);
            }
            (Some(_), None) if self.announced.may_withdraw(id) => {
                self.announced.later.remove(id);
                self.announced.claims.remove(id);
                self.world.directory.withdraw(id);
            }
            (Some(_), None) => {
                self.announced.later.insert(id.clone());
            }
            (None, None) => {}
        }
    }

    /// A fixed endpoint that the policy places nowhere is announced while a container or a
    /// program of this host is it; an instance as long as it is one.
    fn is_to_be_announced(&self, endpoint: &Endpoint) -> bool {
        let placed = endpoint.host().is_some() && endpoint.class().is_none();
        self.world.may_live_here(endpoint) && !placed && self.world.is_present(endpoint)
    }

    /// Announces what had to wait.
    pub(super) fn announce_later(&mut self) {
        let withdrawn = &mut self.announced.withdrawn;
        withdrawn.retain(|_, (since, _)| since.elapsed() < WINDOW);
        for id in std::mem::take(&mut self.announced.later) {
            self.announce(&id);
        }
    }

    /// Announces everything anew, after the policy has changed.
    pub(super) fn announce_all(&mut self) {
        let announced = self.announced.claims.keys();
        let endpoints = self.world.policy.endpoints().map(Endpoint::id);
        let all: HashSet<EndpointId> = announced.chain(endpoints).cloned().collect();
        for id in all {
            self.announce(&id);
        }
    }

    /// Takes news of other hosts.
    pub(super) fn on_directory(&mut self) {
        let changes = self.world.directory.changes();
        let mut tenants = BTreeSet::new();
        for change in changes {
            tenants.insert(change.slot.tenant.clone());
            let slot = change.slot.clone();
            let is_gone = change.entry.is_none();
            self.world.view.apply(change);
            self.world.note_left(&slot.tenant, slot.address, is_gone);
            self.announced.ignored.remove(&slot);
            self.judge(&slot);
        }
        for tenant in &tenants {
            self.follow_view(tenant);
        }
        if !tenants.is_empty() {
            self.world.forget_senders();
        }
    }

    /// Logs an entry that is not believed.
    fn judge(&mut self, slot: &Slot) {
        let ignored = self.world.view.judge(&self.world.policy, slot);
        if let Some(why) = ignored
            && self.announced.ignored.insert(slot.clone())
        {
            tracing::warn!(tenant = %slot.tenant, address = %slot.address, %why, "an entry of the directory is passed over");
        }
    }

    /// Brings the policy in force in step with what other hosts say of a tenant.
    pub(super) fn follow_view(&mut self, tenant: &TenantName) {
        if !self.world.directory.hears_others() {
            return;
        }
        let view = std::mem::take(&mut self.world.view);
        let changed = self
            .world
            .change_policy(tenant, |policy| view.bring_in_step(policy, tenant));
        self.world.view = view;
        if changed {
            self.recheck_tenant(tenant);
        }
    }

    /// Makes what other hosts have part of a policy that is about to be in force.
    pub(super) fn bring_view(&self, policy: &mut Policy) {
        let tenants: Vec<_> = self.world.view.tenants().cloned().collect();
        for tenant in tenants {
            self.world.view.bring_in_step(policy, &tenant);
        }
    }
}

impl crate::world::World {
    /// Whether a container or a program of this host is an endpoint now.
    pub(crate) fn is_present(&self, endpoint: &Endpoint) -> bool {
        let uses = |kind| self.ledger.used(endpoint.id(), kind).0 > 0;
        uses(Kind::Sessions) || uses(Kind::Containers)
    }
}

fn claim(endpoint: &Endpoint) -> Claim {
    Claim {
        id: endpoint.id().clone(),
        class: endpoint.class().cloned(),
        addresses: endpoint.addresses().iter().map(|a| a.ip()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_and_goes_all_the_time_is_withdrawn_ever_later() {
        let mut announced = Announced::default();
        let (busy, other) = ("t/a".parse().unwrap(), "t/b".parse().unwrap());
        let at_once = (0..1000).filter(|_| announced.may_withdraw(&busy)).count();
        assert_eq!(at_once, OFTEN as usize);
        assert!(announced.may_withdraw(&other));
        let long_ago = Instant::now().checked_sub(WINDOW).unwrap();
        announced.withdrawn.insert(busy.clone(), (long_ago, 1000));
        assert!(announced.may_withdraw(&busy));
    }
}
