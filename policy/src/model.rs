//! The checked model of a policy.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use serde::Serialize;

use crate::{
    address::{Cidr, VirtualAddress},
    container::Containers,
    diagnostic::{Diagnostic, PolicyErrors},
    host::{Home, Host, Partition},
    index::RuleIndex,
    names::{DeviceName, EndpointId, EndpointName, HostName, TenantName},
    quotas::Quotas,
    rule::Rule,
    sets::{QpTypes, RemoteAccess, Verbs},
};

/// Labels: key to value.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// What the endpoints of a tenant may use at all, whoever the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Permissions {
    /// Queue pair types that may be created.
    pub qp_types: QpTypes,
    /// Operations that may be used.
    pub verbs: Verbs,
    /// Rights that a memory region or window may grant to peers.
    pub remote_access: RemoteAccess,
}

impl Default for Permissions {
    fn default() -> Self {
        Self {
            qp_types: QpTypes::ALL,
            verbs: Verbs::ALL,
            remote_access: RemoteAccess::ALL,
        }
    }
}

/// One endpoint of a tenant: a fixed one of the file, or an instance of a class of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub(crate) id: EndpointId,
    /// The class that it is an instance of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<EndpointName>,
    /// The first is at GID index 3; an instance may have none.
    pub(crate) addresses: Vec<VirtualAddress>,
    #[serde(skip_serializing_if = "Home::is_anywhere")]
    pub(crate) home: Home,
    /// Which containers may become it.
    #[serde(skip)]
    pub(crate) containers: Containers,
    pub(crate) labels: Labels,
    pub(crate) quotas: Quotas,
    #[serde(flatten)]
    pub(crate) permissions: Permissions,
}

impl Endpoint {
    /// Tenant and name.
    pub fn id(&self) -> &EndpointId {
        &self.id
    }

    /// The class that it is an instance of, if it is one.
    pub fn class(&self) -> Option<&EndpointName> {
        self.class.as_ref()
    }

    /// The virtual address, never IPv4-mapped; the first one if there are several. An
    /// instance has none while its container has none.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first().map(|address| address.ip())
    }

    /// The virtual addresses in the order of their GIDs.
    pub fn addresses(&self) -> &[VirtualAddress] {
        &self.addresses
    }

    /// Where it lives.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The host on which it lives by the policy, if that says so.
    pub fn host(&self) -> Option<&Host> {
        match &self.home {
            Home::Host(host) => Some(host),
            _ => None,
        }
    }

    /// Whether it is a host of its own that no masqd watches over.
    pub fn is_outside(&self) -> bool {
        matches!(self.home, Home::Outside(_))
    }

    /// Which containers may become it.
    pub fn containers(&self) -> &Containers {
        &self.containers
    }

    /// Whether the rules that speak of `name` speak of it.
    pub(crate) fn is_called(&self, name: &EndpointName) -> bool {
        self.id.name() == name || self.class.as_ref() == Some(name)
    }

    /// The endpoint's labels, the tenant's included.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What this endpoint may hold, within what its tenant may hold altogether.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Queue pair types that it may create.
    pub fn qp_types(&self) -> QpTypes {
        self.permissions.qp_types
    }

    /// Operations that it may use; the data path masks work requests with it.
    pub fn verbs(&self) -> Verbs {
        self.permissions.verbs
    }

    /// Rights that its memory regions and windows may grant to peers.
    pub fn remote_access(&self) -> RemoteAccess {
        self.permissions.remote_access
    }
}

/// A class of endpoints, `address: auto` in the file: each container that asks for it
/// becomes an instance, an endpoint whose addresses are the container's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// What instances begin as; its name is the class's and it has no addresses.
    pub(crate) template: Endpoint,
}

impl Class {
    /// Tenant and name.
    pub fn id(&self) -> &EndpointId {
        self.template.id()
    }

    /// The name.
    pub fn name(&self) -> &EndpointName {
        self.id().name()
    }

    /// What its instances begin as.
    pub fn template(&self) -> &Endpoint {
        &self.template
    }
}

/// One tenant: its endpoints, and the rules between them.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub(crate) name: TenantName,
    pub(crate) description: Option<String>,
    pub(crate) quotas: Quotas,
    pub(crate) permissions: Permissions,
    pub(crate) multicast: Vec<Cidr>,
    pub(crate) partition: Partition,
    /// What carries its data; masqd's first device if the file does not say.
    pub(crate) device: Option<DeviceName>,
    /// Where addresses must lie, if the file says so.
    pub(crate) addresses: Option<Vec<Cidr>>,
    /// Which containers may become its endpoints.
    pub(crate) containers: Containers,
    /// Sorted by name.
    pub(crate) classes: Vec<Class>,
    /// Fixed ones sorted by name, then instances in any order.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) by_name: HashMap<EndpointName, usize>,
    pub(crate) by_address: HashMap<VirtualAddress, usize>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) index: RuleIndex,
}

impl Tenant {
    /// The name.
    pub fn name(&self) -> &TenantName {
        &self.name
    }

    /// Free text for people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// What all endpoints of the tenant may hold together.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// What an endpoint may use unless it is given less.
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Networks of the multicast groups that may be joined.
    pub fn multicast(&self) -> &[Cidr] {
        &self.multicast
    }

    /// Its partition on the wire: what tells tenants apart there
    /// ([`Policy::shared_partition`]).
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The device that carries its data; `None`: the first of the masqd. Which there are,
    /// only masqd knows.
    pub fn device(&self) -> Option<&DeviceName> {
        self.device.as_ref()
    }

    /// Networks in which its endpoints' addresses lie, if the file names any.
    pub fn addresses(&self) -> Option<&[Cidr]> {
        self.addresses.as_deref()
    }

    /// The classes, sorted by name.
    pub fn classes(&self) -> impl ExactSizeIterator<Item = &Class> {
        self.classes.iter()
    }

    /// The class of that name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes
            .binary_search_by(|class| class.name().as_str().cmp(name))
            .ok()
            .and_then(|slot| self.classes.get(slot))
    }

    /// The endpoints: fixed ones sorted by name, then instances in any order.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &Endpoint> {
        self.endpoints.iter()
    }

    /// The endpoint of that name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.by_name
            .get(name)
            .and_then(|slot| self.endpoints.get(*slot))
    }

    /// The endpoint at that address; an address means something within its tenant only.
    pub fn endpoint_at(&self, address: IpAddr) -> Option<&Endpoint> {
        let slot = self.by_address.get(&VirtualAddress::new(address))?;
        self.endpoints.get(*slot)
    }

    /// The rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// A policy that was read and checked.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) hosts: BTreeMap<HostName, Host>,
    pub(crate) tenants: BTreeMap<TenantName, Tenant>,
    pub(crate) warnings: Vec<Diagnostic>,
}

impl Policy {
    /// Reads and checks a policy. `file_name` is for messages only.
    ///
    /// # Errors
    /// Everything that is wrong with the text, each with its place.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, PolicyErrors> {
        crate::read::policy(file_name, text)
    }

    /// What the file probably does not mean to say: rules that never decide, and the like.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The hosts, sorted by name.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = &Host> {
        self.hosts.values()
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name)
    }

    /// The host with that address.
    pub fn host_at(&self, address: IpAddr) -> Option<&Host> {
        let address = address.to_canonical();
        self.hosts().find(|host| host.address == address)
    }

    /// Two tenants with the same partition. There are none in a policy that names hosts;
    /// in one for a single host, names may have equal hashes by chance.
    pub fn shared_partition(&self) -> Option<(&Tenant, &Tenant)> {
        let mut seen = HashMap::new();
        let mut tenants = self.tenants();
        tenants.find_map(|tenant| Some((seen.insert(tenant.partition, tenant)?, tenant)))
    }

    /// The tenant whose partition it is; the full-member bit does not count.
    pub fn tenant_of_partition(&self, key: u16) -> Option<&Tenant> {
        let number = |key: u16| key & !crate::host::FULL_MEMBER;
        self.tenants()
            .find(|tenant| number(tenant.partition.key()) == number(key))
    }

    /// The tenants, sorted by name.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &Tenant> {
        self.tenants.values()
    }

    /// The tenant of that name.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.tenants.get(name)
    }

    /// The endpoints of all tenants.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.tenants().flat_map(Tenant::endpoints)
    }

    /// The endpoint, if the policy has it.
    pub fn endpoint(&self, id: &EndpointId) -> Option<&Endpoint> {
        self.tenant(id.tenant().as_str())?
            .endpoint(id.name().as_str())
    }

    /// What the endpoint may hold; an endpoint that the policy does not have may hold nothing.
    pub fn quotas(&self, id: &EndpointId) -> &Quotas {
        const NOTHING: &Quotas = &Quotas::NOTHING;
        self.endpoint(id).map_or(NOTHING, Endpoint::quotas)
    }
}
