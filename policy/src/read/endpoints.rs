//! The endpoints of a tenant: fixed ones, and classes of which containers become instances.

use std::collections::{BTreeMap, HashMap};

use crate::{
    address::{Cidr, VirtualAddress},
    container::INSTANCE_SUFFIX,
    diagnostic::{Code, Sink, Span},
    model::{Class, Endpoint, Labels, Permissions},
    names::{EndpointId, EndpointName, MAX_NAME_LEN, TenantName},
    quotas::Quotas,
    read::{
        containers,
        fields::{Entry, Fields},
        tenant::{read_labels, read_permissions, read_quotas},
        values,
    },
    rule::list,
    yaml::{Node, Value},
};

/// Keys of an endpoint.
pub(crate) const ENDPOINT_KEYS: &[&str] = &[
    "address",
    "labels",
    "quotas",
    "qp_types",
    "verbs",
    "remote_access",
    "containers",
];

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

            let Some(node) = require_address(&fields, entry, &what, sink) else {
                continue;
            };
            let containers = fields
                .get("containers")
                .and_then(|node| containers::read(node, sink))
                .unwrap_or_default();
            let mut endpoint = Endpoint {
                id: EndpointId::new(self.tenant.clone(), name.clone()),
                class: None,
                addresses: Vec::new(),
                containers,
                labels,
                quotas,
                permissions,
            };
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
        let address = values::address(node, sink)?;
        if let Some(why) = address.unfit_for_endpoint() {
            let message = format!("{address} is {why}, which no endpoint can have");
            sink.error(Code::BadAddress, node.span, message);
            return None;
        }
        if let Some(networks) = self.addresses
            && !networks.iter().any(|network| network.contains(address))
        {
            let message = format!("{address} lies outside the `addresses` of {}", self.what);
            sink.error(Code::BadAddress, node.span, message)
                .label(format!("expected one within {}", list(networks)));
            return None;
        }
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
        Some(address)
    }
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
