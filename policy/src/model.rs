//! The checked model of a policy.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use serde::Serialize;

use crate::{
    address::{Cidr, VirtualAddress},
    diagnostic::{Diagnostic, PolicyErrors},
    index::RuleIndex,
    names::{EndpointId, EndpointName, TenantName},
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

/// One endpoint of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub(crate) id: EndpointId,
    pub(crate) address: VirtualAddress,
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

    /// The virtual address, never IPv4-mapped.
    pub fn address(&self) -> IpAddr {
        self.address.ip()
    }

    /// The virtual address as the type that knows its vGID.
    pub fn virtual_address(&self) -> VirtualAddress {
        self.address
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

/// One tenant: its endpoints, and the rules between them.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub(crate) name: TenantName,
    pub(crate) description: Option<String>,
    pub(crate) quotas: Quotas,
    pub(crate) permissions: Permissions,
    pub(crate) multicast: Vec<Cidr>,
    /// Sorted by name.
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

    /// The endpoints, sorted by name.
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
