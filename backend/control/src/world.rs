//! What all sessions share: policy, devices, quotas, refusals, addresses.

use crate::devices::{DeviceId, Devices};
use crate::fabric::Fabric;
use crate::gid::GidTable;
use crate::ledger::{Kind, Ledger};
use crate::refusal::{Refusals, Refused};
use crate::underlay::{Owners, Proofs, Publication, UnderlayCounters};
use masq_device::{Destination, Device, DomainKey, EndpointKey};
use masq_directory::{Directory, LocalHost, View};
use masq_policy::{
    Endpoint, EndpointId, Home, Policy, Request, RuleRef, Tenant, TenantName, Verdict,
    VirtualAddress,
};
use masq_spec::command::Status;
use masq_spec::device::{Config, QUEUE_LAYOUT_MASQ, SPEC_VERSION, version_text};
use masq_spec::verbs::Gid;
use masq_wire::PKey;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Version of this masqd, for people.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Addresses that others had and left, of which note is taken.
const MOST_LEFT: usize = 1 << 16;

/// What programs see of the device.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    /// Name, as in `ibv_devices`.
    pub name: String,
    /// PCI-style vendor id.
    pub vendor_id: u32,
    /// Part id.
    pub vendor_part_id: u32,
    /// Hardware revision.
    pub hw_ver: u32,
}

impl Default for DeviceIdentity {
    fn default() -> Self {
        Self {
            name: "masq0".into(),
            vendor_id: 0x6d71,
            vendor_part_id: 1,
            hw_ver: 1,
        }
    }
}

/// Shared state of the control side; one thread owns it.
pub(crate) struct World {
    pub(crate) policy: Arc<Policy>,
    pub(crate) devices: Devices,
    pub(crate) identity: DeviceIdentity,
    pub(crate) ledger: Ledger,
    pub(crate) refusals: Refusals,
    pub(crate) fabric: Fabric,
    /// Which host this is; `None`: the only one.
    pub(crate) this: Option<LocalHost>,
    pub(crate) directory: Box<dyn Directory>,
    /// What other hosts say.
    pub(crate) view: View,
    pub(crate) underlay: HashMap<DeviceId, UnderlayCounters>,
    pub(crate) publication: Publication,
    pub(crate) owners: Owners,
    /// Whose queue pairs of other hosts are.
    pub(crate) proofs: Proofs,
    /// Addresses that other hosts had, of which nothing is said any more.
    left: HashSet<(TenantName, IpAddr)>,
    /// First addresses of a tenant's endpoints by their other GIDs.
    others: HashMap<TenantName, HashMap<Gid, IpAddr>>,
    domains: HashMap<String, DomainKey>,
    endpoints: HashMap<EndpointId, EndpointKey>,
    last_endpoint: u32,
    last_session: u64,
}

impl World {
    pub(crate) fn new(
        policy: Arc<Policy>,
        devices: Devices,
        identity: DeviceIdentity,
        this: Option<LocalHost>,
        directory: Box<dyn Directory>,
    ) -> Self {
        Self {
            this,
            directory,
            view: View::default(),
            left: HashSet::new(),
            others: other_gids(&policy),
            policy,
            devices,
            identity,
            ledger: Ledger::default(),
            refusals: Refusals::default(),
            fabric: Fabric::default(),
            underlay: HashMap::new(),
            publication: Publication::default(),
            owners: Owners::default(),
            proofs: Proofs::default(),
            domains: HashMap::new(),
            endpoints: HashMap::new(),
            last_endpoint: 0,
            last_session: 0,
        }
    }

    /// Whether an endpoint can live here: the policy does not say that it lives elsewhere.
    pub(crate) fn may_live_here(&self, endpoint: &Endpoint) -> bool {
        LocalHost::may_have(self.this.as_ref(), endpoint)
    }

    /// The host where an endpoint lives, if that is another one. What is present here is
    /// reached here, whatever others say.
    pub(crate) fn host_of(&self, endpoint: &Endpoint) -> Option<IpAddr> {
        match endpoint.home() {
            Home::Host(host) if self.may_live_here(endpoint) => {
                debug_assert_eq!(self.this.as_ref().map(|h| h.address), Some(host.address()));
                None
            }
            Home::Host(host) => Some(host.address()),
            Home::Outside(address) | Home::Elsewhere(address) => Some(*address),
            _ if endpoint.class().is_some() || self.is_present(endpoint) => None,
            _ => {
                let address = endpoint.address()?;
                self.view
                    .lookup(&self.policy, endpoint.id().tenant(), address)
            }
        }
    }

    /// RConnrename: where an endpoint is. `None` if it is nowhere that is known.
    pub(crate) fn destination(&mut self, id: &EndpointId) -> Result<Option<Destination>, Refused> {
        let nobody = || Refused::invalid("no endpoint has this address");
        let endpoint = self.policy.endpoint(id).ok_or_else(nobody)?;
        let Some(host) = self.host_of(endpoint) else {
            if self.may_be_elsewhere(endpoint) {
                return Ok(None);
            }
            return Ok(Some(Destination::Endpoint(self.endpoint_key(id))));
        };
        if self.this.is_none() {
            let reason = format!(
                "{id} lives on host {host}, and this masqd serves one host only; start it with \
                 --host"
            );
            return Err(Refused::new(Status::Unreachable, "directory", reason));
        }
        let device = self.carrier(id);
        if device.network().is_none() {
            let (tenant, device) = (id.tenant(), device.name());
            let reason = format!(
                "{id} lives on host {host}, and {device}, the device of tenant {tenant}, reaches \
                 this host only"
            );
            return Err(Refused::new(Status::Unreachable, "device", reason));
        }
        Ok(Some(Destination::Host(host)))
    }

    /// Whether an endpoint that no host is known to have may yet have one.
    fn may_be_elsewhere(&self, endpoint: &Endpoint) -> bool {
        *endpoint.home() == Home::Anywhere
            && self.directory.hears_others()
            && !self.is_present(endpoint)
    }

    /// Whether the news that somebody of the tenant has come up at an address may be on its
    /// way: nobody is known to be there, but an endpoint or a container of a class could.
    pub(crate) fn may_come_up(&self, tenant: &TenantName, address: IpAddr) -> bool {
        let Some(tenant) = self.policy.tenant(tenant.as_str()) else {
            return false;
        };
        if let Some(endpoint) = tenant.endpoint_at(address) {
            return self.may_be_elsewhere(endpoint) && self.host_of(endpoint).is_none();
        }
        let address = VirtualAddress::new(address);
        let mut networks = tenant.addresses().unwrap_or_default().iter();
        let this = self.this.as_ref().map(|this| this.address);
        let is_bound = |home: &Home| matches!(home, Home::Host(at) if Some(at.address()) == this);
        self.directory.hears_others()
            && networks.any(|network| network.contains(address))
            && tenant.classes().any(|c| !is_bound(c.template().home()))
    }

    /// Notes that of an address nothing is said any more, or something again.
    pub(crate) fn note_left(&mut self, tenant: &TenantName, address: IpAddr, left: bool) {
        let place = (tenant.clone(), address);
        if !left {
            self.left.remove(&place);
        } else if self.left.len() < MOST_LEFT {
            self.left.insert(place);
        }
    }

    /// What was refused only because a host no longer says that it has the address: a
    /// directory that is out of step cuts no connections. The device notices a peer that
    /// is gone, and a changed policy counts at once.
    pub(crate) fn is_only_left(&self, id: &EndpointId, peer: IpAddr, refused: &Refused) -> bool {
        refused.rule == RuleRef::NoSuchEndpoint.to_string()
            && self.left.contains(&(id.tenant().clone(), peer))
    }

    /// The device that an endpoint's tenant is on.
    pub(crate) fn device_of(&self, id: &EndpointId) -> DeviceId {
        self.devices.of(&self.policy, id.tenant())
    }

    /// The same itself.
    pub(crate) fn carrier(&self, id: &EndpointId) -> &Arc<dyn Device> {
        self.devices.get(self.device_of(id))
    }

    /// Tenants that a policy puts on another device than they are on, with both names.
    pub(crate) fn moves(&self, policy: &Policy) -> HashMap<TenantName, (String, String)> {
        let tenants = self.policy.tenants().map(Tenant::name);
        let kept = tenants.filter(|tenant| policy.tenant(tenant.as_str()).is_some());
        let moved = kept.filter_map(|tenant| {
            let before = self.devices.of(&self.policy, tenant);
            let after = self.devices.of(policy, tenant);
            let name = |on| self.devices.get(on).name().to_owned();
            (before != after).then(|| (tenant.clone(), (name(before), name(after))))
        });
        moved.collect()
    }

    /// A tenant's partition on the wire, if this host and the tenant's device are on one.
    pub(crate) fn partition(&self, id: &EndpointId) -> Option<PKey> {
        self.carrier(id).network()?;
        self.partition_by_policy(id)
    }

    /// The same, whatever the device.
    pub(crate) fn partition_by_policy(&self, id: &EndpointId) -> Option<PKey> {
        self.this.as_ref()?;
        let tenant = self.policy.tenant(id.tenant().as_str())?;
        Some(PKey(tenant.partition().key()))
    }

    /// Has the devices ask again whose datagrams arrive.
    pub(crate) fn forget_senders(&self) {
        for (_, device) in self.devices.iter() {
            if let Some(network) = device.network() {
                network.forget_senders();
            }
        }
    }

    /// Puts another policy in force.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.left.clear();
        self.others = other_gids(&policy);
        self.policy = Arc::new(policy);
        self.note_relistened(None);
        self.name_strangers();
    }

    pub(crate) fn next_session(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }

    /// The isolation domain of a tenant; the same as long as masqd runs.
    pub(crate) fn domain(&mut self, id: &EndpointId) -> DomainKey {
        let next = DomainKey(self.domains.len() as u32);
        *self.domains.entry(id.tenant().to_string()).or_insert(next)
    }

    /// The device's name for an endpoint; the same as long as the endpoint exists,
    /// and no other's afterwards.
    pub(crate) fn endpoint_key(&mut self, id: &EndpointId) -> EndpointKey {
        if let Some(key) = self.endpoints.get(id) {
            return *key;
        }
        let key = EndpointKey(self.last_endpoint);
        self.last_endpoint += 1;
        self.endpoints.insert(id.clone(), key);
        key
    }

    /// Changes a tenant's endpoints in the policy in force.
    pub(crate) fn change_policy<T>(
        &mut self,
        tenant: &TenantName,
        change: impl FnOnce(&mut Policy) -> T,
    ) -> T {
        let result = change(Arc::make_mut(&mut self.policy));
        self.note_relistened(Some(tenant));
        if let Some(changed) = self.policy.tenant(tenant.as_str()) {
            self.others.insert(tenant.clone(), gids_of(changed));
        }
        result
    }

    /// Forgets all that was kept of an endpoint that no longer exists.
    pub(crate) fn forget_endpoint(&mut self, id: &EndpointId) {
        self.endpoints.remove(id);
        self.refusals.forget(id);
    }

    /// GIDs of an endpoint.
    pub(crate) fn gids(&self, id: &EndpointId) -> Option<GidTable> {
        self.policy
            .endpoint(id)
            .map(|endpoint| GidTable::new(id, endpoint.addresses()))
    }

    /// The address that a GID stands for in a tenant: the first one of the endpoint that
    /// has it, by which the policy is asked.
    pub(crate) fn address_of(&self, id: &EndpointId, gid: Gid) -> IpAddr {
        let found = self.others.get(id.tenant()).and_then(|t| t.get(&gid));
        found.map_or_else(|| VirtualAddress::from_gid(gid).ip(), |address| *address)
    }

    /// The address by which the policy knows one of its endpoints, which may be
    /// named by its link-local one.
    pub(crate) fn canonical(&self, id: &EndpointId, address: IpAddr) -> IpAddr {
        self.canonical_in(id.tenant(), address)
    }

    /// The same for an endpoint of a tenant.
    pub(crate) fn canonical_in(&self, tenant: &TenantName, address: IpAddr) -> IpAddr {
        let gid = VirtualAddress::new(address).gid();
        let found = self.others.get(tenant).and_then(|t| t.get(&gid));
        found.copied().unwrap_or(address)
    }

    /// Asks the policy.
    pub(crate) fn decide(&self, request: &Request<'_>) -> Result<Verdict, Refused> {
        let verdict = self.policy.decide(request);
        if verdict.allowed {
            Ok(verdict)
        } else {
            Err(Refused::policy(&verdict))
        }
    }

    pub(crate) fn charge(&mut self, id: &EndpointId, kind: Kind, n: u64) -> Result<(), Refused> {
        Ok(self.ledger.charge(&self.policy, id, kind, n)?)
    }

    /// How much more an endpoint may use.
    pub(crate) fn left(&self, id: &EndpointId, kind: Kind) -> u64 {
        let (used, tenant_used) = self.ledger.used(id, kind);
        let tenant = self.policy.tenant(id.tenant().as_str());
        let of_tenant = tenant.map_or(0, |t| kind.limit(t.quotas()));
        let of_endpoint = kind.limit(self.policy.quotas(id));
        of_endpoint
            .saturating_sub(used)
            .min(of_tenant.saturating_sub(tenant_used))
    }

    /// The configuration space that an endpoint's frontends read.
    pub(crate) fn config(&self, id: &EndpointId) -> Config {
        let mut device_name = [0; 32];
        for (to, from) in device_name
            .iter_mut()
            .zip(self.identity.name.bytes().take(31))
        {
            *to = from;
        }
        let queues = self.policy.quotas(id).event_queues;
        Config {
            spec_version: SPEC_VERSION,
            queue_layout: QUEUE_LAYOUT_MASQ,
            node_guid: self.gids(id).map_or(0, |gids| gids.node_guid()),
            vendor_id: self.identity.vendor_id,
            vendor_part_id: self.identity.vendor_part_id,
            hw_ver: self.identity.hw_ver,
            max_event_queues: queues.min(masq_spec::device::MAX_QUEUES as u64 - 2) as u32,
            doorbell_len: masq_spec::doorbell::PAGE_LEN as u32,
            max_command_len: masq_spec::command::MAX_COMMAND_LEN as u32,
            device_name,
            backend_version: version_text(VERSION),
        }
    }
}

/// The GIDs of endpoints that are not of their first addresses.
fn other_gids(policy: &Policy) -> HashMap<TenantName, HashMap<Gid, IpAddr>> {
    let tenants = policy.tenants();
    tenants
        .map(|tenant| (tenant.name().clone(), gids_of(tenant)))
        .collect()
}

fn gids_of(tenant: &Tenant) -> HashMap<Gid, IpAddr> {
    let mut found = HashMap::new();
    for endpoint in tenant.endpoints() {
        if let Some(address) = endpoint.address() {
            let gids = GidTable::new(endpoint.id(), endpoint.addresses());
            let further = endpoint.addresses().iter().skip(1).map(|a| a.gid());
            found.extend(further.map(|gid| (gid, address)));
            // That of a host outside is not derived from its name.
            if !endpoint.is_outside() {
                found.insert(gids.link_local(), address);
            }
        }
    }
    found
}
