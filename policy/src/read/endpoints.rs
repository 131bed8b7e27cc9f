//! The endpoints of a tenant: fixed ones, and classes of which containers become instances.

use std::collections::{BTreeMap, HashMap};

use crate::{
    address::{Cidr, VirtualAddress},
    container::INSTANCE_SUFFIX,
    diagnostic::{Code, Sink, Span},
    host::Home,
    model::{Class, Endpoint, Labels, Permissions},
    names::{EndpointId, EndpointName, MAX_NAME_LEN, TenantName},
    quotas::Quotas,
    read::{
        containers,
        fields::{Entry, Fields},
        hosts::{self, Hosts},
        tenant::{read_labels, read_permissions, read_quotas},
        values,
    },
    rule::list,
    yaml::{Node, Value},
};

/// Keys of an endpoint.
pub(crate) const ENDPOINT_KEYS: &[&str] = &[
    "address",
    "outside",
    "host",
    "labels",
    "quotas",
    "qp_types",
    "verbs",
    "remote_access",
    "containers",
];

/// Keys of an endpoint that is a host outside.
pub(crate) const OUTSIDE_KEYS: &[&str] = &["outside", "labels", "qp_types"];

/// The longest name of a class: those of its instances are longer.
const CLASS_NAME_LEN: usize = MAX_NAME_LEN - INSTANCE_SUFFIX;

/// What the endpoints of a tenant start from.
pub(super) struct Defaults<'a> {
    pub(super) tenant: &'a TenantName,
    pub(super) what: &'a str,
    pub(super) labels: &'a Labels,
    pub(super) quotas: &'a Quotas,
    pub(super) permissions: Permissions,
    /// Where addresses must lie.
    pub(super) addresses: Option<&'a [Cidr]>,
    /// Those of the policy, if they could be read.
    pub(super) hosts: Option<&'a Hosts>,
    /// Whether the tenant names its partition.
    pub(super) has_pkey: bool,
}

/// The endpoints that could be read, each list sorted by name.
#[derive(Default)]
pub(super) struct Endpoints {
    pub(super) fixed: Vec<Endpoint>,
    pub(super) classes: Vec<Class>,
}

impl Endpoints {
    pub(super) fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.classes.is_empty()
    }
}

/// Addresses of a tenant that are taken.
type Taken = HashMap<VirtualAddress, (Span, EndpointName)>;

impl Defaults<'_> {
    pub(super) fn read(&self, entries: &[Entry<'_>], sink: &mut Sink<'_>) -> Endpoints {
        let mut fixed = BTreeMap::new();
        let mut classes = BTreeMap::new();
        let mut taken = Taken::new();
        let defaults = self;
        for entry in entries {
            let Some(name) = values::name(entry.key, entry.key_span, EndpointName::new, sink)
            else {
                continue;
            };
            let what = format!("endpoint `{name}` of {}", defaults.what);
            let Some(fields) = Fields::read(entry.value, &what, ENDPOINT_KEYS, sink) else {
                continue;
            };
            let mut labels = defaults.labels.clone();
            labels.extend(
                fields
                    .get("labels")
                    .and_then(|node| read_labels(node, sink))
                    .unwrap_or_default(),
            );
            let quotas = read_quotas(
                fields.get("quotas"),
                &what,
                defaults.quotas,
                Some(defaults.what),
                sink,
            );
            let permissions =
                read_permissions(&fields, defaults.permissions, Some(defaults.what), sink);

            let outside = fields.get("outside");
            let node = match outside {
                Some(node) => node,
                None => match require_address(&fields, entry, &what, sink) {
                    Some(node) => node,
                    None => continue,
                },
            };
            let home = fields
                .get("host")
                .and_then(|node| hosts::home(node, self.hosts, sink))
                .unwrap_or_default();
            let containers = fields
                .get("containers")
                .and_then(|node| containers::read(node, sink))
                .unwrap_or_default();
            let mut endpoint = Endpoint {
                id: EndpointId::new(self.tenant.clone(), name.clone()),
                class: None,
                addresses: Vec::new(),
                home,
                containers,
                labels,
                quotas,
                permissions,
            };
            if outside.is_some() {
                self.check_outside(&fields, &what, node, sink);
                if let Some(address) = self.outside(&name, node, &mut taken, sink) {
                    endpoint.home = Home::Outside(address.ip());
                    endpoint.addresses.push(address);
                    fixed.insert(name, endpoint);
                }
                continue;
            }
            let is_class = matches!(&node.value, Value::Scalar { text, .. } if text == "auto");
            if is_class {
                self.check_class(&name, entry, node, sink);
                classes.insert(name, Class { template: endpoint });
            } else if let Some(address) = self.address(&name, node, &mut taken, sink) {
                endpoint.addresses.push(address);
                fixed.insert(name, endpoint);
            }
        }
        Endpoints {
            fixed: fixed.into_values().collect(),
            classes: classes.into_values().collect(),
        }
    }

    /// What `address: auto` needs besides.
    fn check_class(
        &self,
        name: &EndpointName,
        entry: &Entry<'_>,
        node: &Node,
        sink: &mut Sink<'_>,
    ) {
        if name.as_str().len() > CLASS_NAME_LEN {
            let message = format!(
                "the name of an endpoint with `address: auto` has at most {CLASS_NAME_LEN} characters"
            );
            sink.error(Code::BadName, entry.key_span, message)
                .label("its containers are named after it, and by their ids");
        }
        if self.addresses.is_none() && !sink.has_errors() {
            let message = format!("`address: auto` needs `addresses` of {}", self.what);
            sink.error(Code::MissingKey, node.span, message)
            .label("a container takes its address from its own network")
            .help("say in which networks it must lie: `addresses: [10.88.0.0/16]` beside `endpoints`");
        }
    }

    /// A fixed address that the endpoint `name` may have.
    fn address(
        &self,
        name: &EndpointName,
        node: &Node,
        taken: &mut Taken,
        sink: &mut Sink<'_>,
    ) -> Option<VirtualAddress> {
        let address = fit_address(node, sink)?;
        if let Some(networks) = self.addresses
            && !networks.iter().any(|network| network.contains(address))
        {
            let message = format!("{address} lies outside the `addresses` of {}", self.what);
            sink.error(Code::BadAddress, node.span, message)
                .label(format!("expected one within {}", list(networks)));
            return None;
        }
        self.take(address, name, node, taken, sink);
        Some(address)
    }

    /// The address of a host that is an endpoint itself. It lies where that host's network
    /// is, not in the tenant's `addresses`.
    fn outside(
        &self,
        name: &EndpointName,
        node: &Node,
        taken: &mut Taken,
        sink: &mut Sink<'_>,
    ) -> Option<VirtualAddress> {
        let address = fit_address(node, sink)?;
        let mut hosts = self.hosts.into_iter().flat_map(Hosts::values);
        if let Some(host) = hosts.find(|host| host.address == address.ip()) {
            let message = format!("{address} is host `{}`, which runs masqd", host.name);
            sink.error(Code::BadAddress, node.span, message)
                .label("`outside` is for hosts without masqd")
                .help(format!(
                    "for an endpoint that lives there: `{{ address: 10.0.0.1, host: {} }}`",
                    host.name
                ));
            return None;
        }
        self.take(address, name, node, taken, sink);
        Some(address)
    }

    /// What a host outside cannot have, and what its tenant must.
    fn check_outside(&self, fields: &Fields<'_>, what: &str, node: &Node, sink: &mut Sink<'_>) {
        for entry in fields.iter().filter(|e| !OUTSIDE_KEYS.contains(&e.key)) {
            let message = format!("{what} is outside, so it has no `{}`", entry.key);
            let label = match entry.key {
                "address" => "its address is the one after `outside`",
                "host" => "it is a host itself",
                _ => "masq does not run there and cannot hold it to this",
            };
            sink.error(Code::UnknownKey, entry.key_span, message)
                .label(label);
        }
        if !self.has_pkey {
            let message = format!("{what} is outside, but {} has no `pkey`", self.what);
            sink.error(Code::MissingKey, node.span, message)
                .label("only the partition tells to which tenant its packets belong")
                .help(format!(
                    "plain Linux hosts use the default one: write `pkey: 0xffff` beside \
                     `endpoints` of {}; one tenant can have it",
                    self.what
                ));
        }
    }

    /// Notes whose an address is.
    fn take(
        &self,
        address: VirtualAddress,
        name: &EndpointName,
        node: &Node,
        taken: &mut Taken,
        sink: &mut Sink<'_>,
    ) {
        if let Some((earlier, other)) = taken.get(&address) {
            let message = format!(
                "endpoints `{other}` and `{name}` of {} have the same address",
                self.what
            );
            sink.error(Code::DuplicateAddress, node.span, message)
                .label("again here")
                .related(*earlier, "first here")
                .help("addresses are unique within a tenant; other tenants may use them too");
        } else {
            taken.insert(address, (node.span, name.clone()));
        }
    }
}

fn fit_address(node: &Node, sink: &mut Sink<'_>) -> Option<VirtualAddress> {
    let address = values::address(node, sink)?;
    if let Some(why) = address.unfit_for_endpoint() {
        let message = format!("{address} is {why}, which no endpoint can have");
        sink.error(Code::BadAddress, node.span, message);
        return None;
    }
    Some(address)
}

/// A missing address is reported at the endpoint's name: an empty mapping has no place of its own.
fn require_address<'n>(
    fields: &Fields<'n>,
    entry: &Entry<'_>,
    what: &str,
    sink: &mut Sink<'_>,
) -> Option<&'n Node> {
    let found = fields.get("address");
    if found.is_none() {
        sink.error(
            Code::MissingKey,
            entry.key_span,
            format!("{what} has no `address`"),
        )
        .help(format!("write `{}: {{ address: 10.0.0.1 }}`", entry.key));
    }
    found
}
