//! From the tree of nodes to the checked model. Reading goes on after an error wherever what
//! follows still makes sense, so that one run shows as much as possible.

mod containers;
mod endpoints;
mod fields;
mod hosts;
mod rules;
mod tenant;
mod values;

use std::collections::BTreeMap;

use crate::{
    diagnostic::{Code, PolicyErrors, Sink},
    model::Policy,
    names::TenantName,
    yaml::{self, Node},
};
use fields::Fields;
use hosts::{Hosts, Partitions};
pub(crate) use rules::ACTIONS;
pub(crate) use values::AUTO;

/// The version of the format that this build reads.
pub(crate) const VERSION: u64 = 1;
/// Most tenants of a policy, endpoints of a tenant, and rules of a tenant.
pub(crate) const MAX_ITEMS: usize = 16_384;

pub(crate) const ROOT_KEYS: &[&str] = &["version", "hosts", "tenants"];

pub(crate) fn policy(file_name: &str, text: &str) -> Result<Policy, PolicyErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sink = Sink::new(file_name, text);
    let read = yaml::parse(text, &mut sink).and_then(|root| read_root(&root, &mut sink));
    let warnings = sink.finish()?;
    // Without a tree there is an error, so the default stands for nothing here.
    let (hosts, tenants) = read.unwrap_or_default();
    Ok(Policy {
        hosts,
        tenants,
        warnings,
    })
}

type Tenants = BTreeMap<TenantName, crate::model::Tenant>;

fn read_root(root: &Node, sink: &mut Sink<'_>) -> Option<(Hosts, Tenants)> {
    let fields = Fields::read_open(root, "the policy", ROOT_KEYS, sink)?;
    match fields.get("version") {
        None => {
            sink.error(Code::Version, fields.span(), "the policy has no `version`")
                .help(format!("begin the file with `version: {VERSION}`"));
        }
        Some(node) => {
            let version = values::count(node, "the version", sink)?;
            if version != VERSION {
                // Another version may give every key another meaning: read no further.
                sink.error(
                    Code::Version,
                    node.span,
                    format!("version {version} of the policy format is not known"),
                )
                .label(format!("this build reads version {VERSION}"));
                return None;
            }
        }
    }
    let hosts = match fields.get("hosts") {
        Some(node) => hosts::read(node, sink),
        None => Some(Hosts::new()),
    };
    let node = fields.require("tenants", sink)?;
    let entries = fields::entries(node, "`tenants`", sink)?;
    if entries.is_empty() {
        sink.warning(
            Code::NoEffect,
            node.span,
            "the policy has no tenants, so it denies everything",
        );
    }
    fields::check_length(entries.len(), "tenants", node.span, sink)?;
    let mut tenants = BTreeMap::new();
    let mut partitions = Partitions::default();
    partitions.one_host = hosts.as_ref().is_some_and(Hosts::is_empty);
    for entry in entries {
        let Some(name) = values::name(entry.key, entry.key_span, TenantName::new, sink) else {
            continue;
        };
        if let Some(tenant) = tenant::read(&name, &entry, hosts.as_ref(), &mut partitions, sink) {
            tenants.insert(name, tenant);
        }
    }
    Some((hosts.unwrap_or_default(), tenants))
}
