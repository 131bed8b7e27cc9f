//! `hosts`, `host` and `pkey`: where endpoints live, and what tells tenants apart between
//! hosts.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crate::{
    diagnostic::{Code, Sink, Span},
    host::{FULL_MEMBER, Home, Host, Partition},
    names::{HostName, TenantName},
    read::{
        fields::{self, Fields},
        values,
    },
    yaml::{Node, shorten},
};

/// Keys of a host.
pub(crate) const HOST_KEYS: &[&str] = &["address"];

/// The hosts of a policy.
pub(super) type Hosts = BTreeMap<HostName, Host>;

/// `None` if one of them could not be read: then names of hosts cannot be judged.
pub(super) fn read(node: &Node, sink: &mut Sink<'_>) -> Option<Hosts> {
    let entries = fields::entries(node, "`hosts`", sink)?;
    fields::check_length(entries.len(), "hosts", node.span, sink)?;
    let mut hosts = Some(Hosts::new());
    let mut taken: HashMap<IpAddr, (Span, HostName)> = HashMap::new();
    for entry in entries {
        let name = values::name(entry.key, entry.key_span, HostName::new, sink);
        let what = format!("host `{}`", shorten(entry.key));
        let fields = Fields::read(entry.value, &what, HOST_KEYS, sink);
        let node = fields.and_then(|fields| {
            let found = fields.get("address");
            if found.is_none() {
                let message = format!("{what} has no `address`");
                sink.error(Code::MissingKey, entry.key_span, message)
                    .help(format!("write `{}: {{ address: 192.0.2.1 }}`", entry.key));
            }
            found
        });
        let address = node.and_then(|node| Some((node, host_address(node, sink)?)));
        let (Some(name), Some((node, address))) = (name, address) else {
            hosts = None;
            continue;
        };
        if let Some((earlier, other)) = taken.get(&address) {
            let message = format!("hosts `{other}` and `{name}` have the same address");
            sink.error(Code::DuplicateAddress, node.span, message)
                .label("again here")
                .related(*earlier, "first here");
        } else {
            taken.insert(address, (node.span, name.clone()));
        }
        if let Some(hosts) = &mut hosts {
            hosts.insert(name.clone(), Host { name, address });
        }
    }
    hosts
}

/// An address that packets to a host can bear.
fn host_address(node: &Node, sink: &mut Sink<'_>) -> Option<IpAddr> {
    let address = values::address(node, sink)?.ip();
    let why = match address {
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_multicast() => "a multicast group",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        _ => return Some(address),
    };
    let message = format!("{address} is {why}, which no host can have");
    sink.error(Code::BadAddress, node.span, message)
        .label("expected its own address on the network between hosts");
    None
}

/// The host on which an endpoint lives.
pub(super) fn home(node: &Node, hosts: Option<&Hosts>, sink: &mut Sink<'_>) -> Option<Home> {
    let text = values::text(node, "`host`", sink)?;
    let hosts = hosts?;
    if let Some(host) = hosts.get(text) {
        return Some(Home::Host(host.clone()));
    }
    let message = format!("the policy has no host `{}`", shorten(text));
    let mut draft = sink.error(Code::UnknownHost, node.span, message);
    if hosts.is_empty() {
        draft.help(format!(
            "name it at the top of the file: `hosts: {{ {}: {{ address: 192.0.2.1 }} }}`",
            shorten(text)
        ));
        return None;
    }
    let names = || hosts.keys().map(HostName::as_str);
    if hosts.len() < 10 {
        let names: Vec<_> = names().collect();
        draft = draft.label(format!("expected one of: {}", names.join(", ")));
    }
    draft.suggest(text, names());
    None
}

/// The partitions of the tenants that were read.
#[derive(Default)]
pub(super) struct Partitions {
    taken: HashMap<Partition, (Span, TenantName)>,
    /// Whether the policy is for one host: then nothing meets on the wire, and names whose
    /// hashes are equal by chance do no harm.
    pub(super) one_host: bool,
}

impl Partitions {
    /// That of a tenant: the one after `pkey`, or one derived from its name.
    pub(super) fn read(
        &mut self,
        tenant: &TenantName,
        name_span: Span,
        pkey: Option<&Node>,
        sink: &mut Sink<'_>,
    ) -> Option<Partition> {
        let (partition, span) = match pkey {
            Some(node) => (partition(node, sink)?, node.span),
            None => (Partition::derived(tenant), name_span),
        };
        let Some((earlier, other)) = self.taken.get(&partition) else {
            self.taken.insert(partition, (span, tenant.clone()));
            return Some(partition);
        };
        if pkey.is_none() && self.one_host && partition == Partition::derived(other) {
            return Some(partition);
        }
        let derived = |is: bool| if is { ", derived from its name" } else { "" };
        let free = (FULL_MEMBER + 1..=u16::MAX - 1)
            .filter_map(Partition::new)
            .find(|free| !self.taken.contains_key(free))
            .unwrap_or(Partition::DEFAULT);
        let message =
            format!("tenants `{other}` and `{tenant}` have the same partition {partition}");
        let draft = sink
            .error(Code::DuplicatePartition, span, message)
            .label(format!("again here{}", derived(pkey.is_none())))
            .related(*earlier, "first here");
        if partition == Partition::DEFAULT {
            draft.help(
                "the packets of plain hosts bear 0xffff, so it can be one tenant's only; put \
                 all hosts outside into that tenant",
            );
        } else {
            draft.help(format!(
                "packets are told apart by it: write `pkey: {free}` in tenant `{tenant}`, on \
                 all hosts"
            ));
        }
        None
    }
}

fn partition(node: &Node, sink: &mut Sink<'_>) -> Option<Partition> {
    let key = values::pkey(node, sink)?;
    let partition = Partition::new(key);
    if partition.is_none() {
        let draft = sink.error(
            Code::BadValue,
            node.span,
            format!("{key:#06x} cannot be a tenant's partition"),
        );
        match Partition::new(key | FULL_MEMBER) {
            Some(meant) => draft
                .label("its endpoints must be full members, which the highest bit says")
                .help(format!("did you mean `{meant}`?")),
            None => draft.label("expected 0x8001 to 0xffff"),
        };
    }
    partition
}
