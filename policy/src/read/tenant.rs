//! One tenant: settings, endpoints, and the compilation of its rules.

use std::sync::Arc;

use crate::{
    address::Cidr,
    diagnostic::{Code, Sink},
    index::RuleIndex,
    model::{Labels, Permissions, Tenant},
    names::TenantName,
    quotas::{QUOTAS, QuotaKey, Quotas, Unit, format_quota, parse_bytes},
    read::{
        containers,
        endpoints::{Defaults, Endpoints},
        fields::{self, Entry, Fields},
        hosts::{Hosts, Partitions},
        rules,
        values::{self, SetOf},
    },
    sets::{QpType, RemoteRight, Verb},
    yaml::{Node, Value},
};

pub(crate) const TENANT_KEYS: &[&str] = &[
    "description",
    "labels",
    "quotas",
    "qp_types",
    "verbs",
    "remote_access",
    "multicast",
    "pkey",
    "device",
    "addresses",
    "containers",
    "endpoints",
    "rules",
];

/// All multicast groups: what a tenant may join unless it says otherwise.
const ALL_GROUPS: [&str; 2] = ["224.0.0.0/4", "ff00::/8"];

/// `hosts`: those of the policy; `None` if they could not be read.
pub(super) fn read(
    name: &TenantName,
    entry: &Entry<'_>,
    hosts: Option<&Hosts>,
    partitions: &mut Partitions,
    sink: &mut Sink<'_>,
) -> Option<Tenant> {
    let what = format!("tenant `{name}`");
    let fields = Fields::read(entry.value, &what, TENANT_KEYS, sink)?;
    let description = fields
        .get("description")
        .and_then(|node| values::description(node, sink));
    let labels = fields
        .get("labels")
        .and_then(|node| read_labels(node, sink))
        .unwrap_or_default();
    let quotas = read_quotas(fields.get("quotas"), &what, &Quotas::default(), None, sink);
    let permissions = read_permissions(&fields, Permissions::default(), None, sink);
    let multicast = match fields.get("multicast") {
        Some(node) => read_groups(node, sink).unwrap_or_default(),
        None => all_groups(),
    };

    let pkey = fields.get("pkey");
    let partition = partitions.read(name, entry.key_span, pkey, sink);
    let device = fields
        .get("device")
        .and_then(|node| values::device(node, sink));
    let addresses = fields
        .get("addresses")
        .and_then(|node| containers::networks(node, sink));
    let chosen = fields
        .get("containers")
        .and_then(|node| containers::read(node, sink))
        .unwrap_or_default();

    let defaults = Defaults {
        tenant: name,
        what: &what,
        labels: &labels,
        quotas: &quotas,
        permissions,
        addresses: addresses.as_deref(),
        hosts,
        has_pkey: pkey.is_some(),
    };
    let mut endpoints = Endpoints::default();
    let mut names = Some(Vec::new());
    if let Some(node) = fields.get("endpoints") {
        let entries = fields::entries(node, &format!("`endpoints` of {what}"), sink)?;
        fields::check_length(entries.len(), "endpoints", node.span, sink)?;
        endpoints = defaults.read(&entries, sink);
        names = Some(entries.iter().map(|entry| entry.key).collect());
    } else if sink.has_errors() {
        // The key is probably misspelt: do not call every name in the rules unknown as well.
        names = None;
    }
    if endpoints.is_empty() && !sink.has_errors() {
        sink.warning(
            Code::EmptyTenant,
            entry.key_span,
            format!("{what} has no endpoints"),
        )
        .help("add one: `endpoints: { a: { address: 10.0.0.1 } }`");
    }
    let rules = match fields.get("rules") {
        Some(node) => rules::read(name, names, node, sink)?,
        None => Vec::new(),
    };
    if sink.has_errors() {
        return None;
    }

    let (rules, spans): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    rules::warn(&rules, &spans, &endpoints, sink);
    let Endpoints { fixed, classes } = endpoints;
    let index = RuleIndex::build(&fixed, &rules).index;
    let slots = || fixed.iter().enumerate();
    Some(Tenant {
        name: name.clone(),
        description: description.map(str::to_owned),
        quotas,
        permissions,
        multicast,
        partition: partition?,
        device,
        by_name: slots()
            .map(|(slot, e)| (e.id.name().clone(), slot))
            .collect(),
        by_address: slots()
            .flat_map(|(slot, e)| e.addresses.iter().map(move |address| (*address, slot)))
            .collect(),
        addresses,
        containers: chosen,
        classes,
        endpoints: fixed,
        rules,
        index,
    })
}

pub(super) fn read_labels(node: &Node, sink: &mut Sink<'_>) -> Option<Labels> {
    let mut labels = Labels::new();
    for entry in fields::entries(node, "`labels`", sink)? {
        let key_is_fit = values::check_word(
            entry.key,
            entry.key_span,
            "a label's key",
            values::LABEL_LEN,
            sink,
        );
        if let (Some(value), true) = (
            values::word(entry.value, "a label's value", sink),
            key_is_fit,
        ) {
            labels.insert(Arc::from(entry.key), Arc::from(value));
        }
    }
    Some(labels)
}

pub(super) fn read_quotas(
    node: Option<&Node>,
    owner: &str,
    base: &Quotas,
    within: Option<&str>,
    sink: &mut Sink<'_>,
) -> Quotas {
    let mut quotas = base.clone();
    let known: Vec<_> = QUOTAS.iter().map(|row| row.key).collect();
    let what = format!("`quotas` of {owner}");
    let Some(fields) = node.and_then(|node| Fields::read(node, &what, &known, sink)) else {
        return quotas;
    };
    for entry in fields.iter() {
        let Some(row) = QUOTAS.iter().find(|row| row.key == entry.key) else {
            continue;
        };
        let Some(value) = read_quota(row, entry.value, sink) else {
            continue;
        };
        let most = (row.get)(base);
        if let Some(tenant) = within
            && value > most
        {
            let (value, most) = (format_quota(row.unit, value), format_quota(row.unit, most));
            sink.error(
                Code::BadQuota,
                entry.value.span,
                format!("{value} is more than the {most} of {tenant}"),
            )
            .label("an endpoint's quota lies within its tenant's");
            continue;
        }
        (row.set)(&mut quotas, value);
    }
    quotas
}

fn read_quota(row: &QuotaKey, node: &Node, sink: &mut Sink<'_>) -> Option<u64> {
    let what = format!("the quota `{}`", row.key);
    let value = match (&node.value, row.unit) {
        (Value::Scalar { text, .. }, Unit::Bytes) if parse_bytes(text).is_some() => {
            parse_bytes(text)?
        }
        (_, Unit::Bytes) => {
            let message = format!("{what} must be a size, not {}", node.describe());
            let draft = sink
                .error(Code::WrongType, node.span, message)
                .label("expected bytes, or a whole number with KiB, MiB, GiB or TiB");
            if let Value::Scalar { text, .. } = &node.value
                && let Some(meant) = binary_size(text)
            {
                draft.help(format!("did you mean `{meant}`?"));
            }
            return None;
        }
        (_, Unit::Count) => values::count(node, &what, sink)?,
    };
    if !(row.min..=row.max).contains(&value) {
        let (least, most) = (
            format_quota(row.unit, row.min),
            format_quota(row.unit, row.max),
        );
        let draft = sink
            .error(
                Code::BadQuota,
                node.span,
                format!("{what} cannot be {}", format_quota(row.unit, value)),
            )
            .label(format!("expected {least} to {most}"));
        if value == 0 {
            draft.help("to keep a tenant out, remove its endpoints");
        }
        return None;
    }
    Some(value)
}

/// What `4GB`, `4G` or `4gib` was probably meant to be.
fn binary_size(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text.get(digits.len()..)?.trim_start().chars().next()?;
    let meant = format!("{digits}{}iB", unit.to_ascii_uppercase());
    parse_bytes(&meant).map(|_| meant)
}

pub(super) fn read_permissions(
    fields: &Fields<'_>,
    base: Permissions,
    within: Option<&str>,
    sink: &mut Sink<'_>,
) -> Permissions {
    let owner = || within.map(str::to_owned);
    let mut read = base;
    if let Some(node) = fields.get("qp_types") {
        let set = qp_types(base.qp_types.iter().collect(), owner());
        read.qp_types = set.read(node, sink).unwrap_or(base.qp_types);
    }
    if let Some(node) = fields.get("verbs") {
        let set = SetOf {
            what: "`verbs`",
            members: Verb::ALL,
            name: Verb::name,
            base: base.verbs.iter().collect(),
            within: owner(),
        };
        read.verbs = set.read(node, sink).unwrap_or(base.verbs);
    }
    if let Some(node) = fields.get("remote_access") {
        let set = SetOf {
            what: "`remote_access`",
            members: RemoteRight::ALL,
            name: RemoteRight::name,
            base: base.remote_access.iter().collect(),
            within: owner(),
        };
        read.remote_access = set.read(node, sink).unwrap_or(base.remote_access);
    }
    read
}

pub(super) fn qp_types(base: Vec<QpType>, within: Option<String>) -> SetOf<QpType> {
    SetOf {
        what: "`qp_types`",
        members: QpType::ALL,
        name: QpType::name,
        base,
        within,
    }
}

fn all_groups() -> Vec<Cidr> {
    ALL_GROUPS
        .iter()
        .filter_map(|text| Cidr::parse(text).ok())
        .collect()
}

/// Reads `any`, `none`, or networks of multicast groups.
fn read_groups(node: &Node, sink: &mut Sink<'_>) -> Option<Vec<Cidr>> {
    let nodes = match &node.value {
        Value::Scalar { text, .. } if text == "any" => return Some(all_groups()),
        Value::Scalar { text, .. } if text == "none" => return Some(Vec::new()),
        Value::Scalar { .. } if !node.is_null() => std::slice::from_ref(node),
        _ => fields::items(node, "`multicast`", sink)?,
    };
    let all = all_groups();
    let mut groups = Vec::new();
    for node in nodes {
        let Some(cidr) = values::cidr(node, sink) else {
            continue;
        };
        let (first, last) = cidr.bounds();
        if all
            .iter()
            .any(|groups| groups.contains(first) && groups.contains(last))
        {
            groups.push(cidr);
        } else {
            sink.error(
                Code::BadAddress,
                node.span,
                format!("{cidr} is not a network of multicast groups"),
            )
            .label(format!(
                "expected networks within {}",
                ALL_GROUPS.join(" or ")
            ));
        }
    }
    Some(groups)
}
