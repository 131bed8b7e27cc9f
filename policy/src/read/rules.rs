//! A tenant's rules, and warnings about those that never decide.

use std::sync::Arc;

use crate::{
    diagnostic::{Code, Sink, Span},
    index::{Compiled, RuleIndex},
    names::{EndpointId, EndpointName, TenantName},
    read::{
        endpoints::Endpoints,
        fields::{self, Fields},
        tenant::{qp_types, read_labels},
        values,
    },
    rule::{Action, Rule, RuleId, Selector, ServiceError, ServiceMatch},
    sets::{QpType, QpTypes},
    yaml::{Node, Value, shorten},
};

pub(crate) const RULE_KEYS: &[&str] = &[
    "name",
    "from",
    "to",
    "both_ways",
    "qp_types",
    "service",
    "action",
];
pub(crate) const SELECTOR_KEYS: &[&str] = &["endpoint", "address", "cidr", "labels"];
pub(crate) const ACTIONS: &[&str] = &["allow", "deny"];

/// Most pairs of rules that are compared in search of shadowed ones.
const MAX_COMPARISONS: usize = 1_000_000;

/// What a rule may name.
struct Scope<'a> {
    tenant: &'a TenantName,
    /// Names of the tenant's endpoints, sorted; `None` if they could not be read.
    names: Option<Vec<&'a str>>,
}

pub(super) fn read(
    tenant: &TenantName,
    names: Option<Vec<&str>>,
    node: &Node,
    sink: &mut Sink<'_>,
) -> Option<Vec<(Rule, Span)>> {
    let names = names.map(|mut names| {
        names.sort_unstable();
        names
    });
    let scope = Scope { tenant, names };
    let items = fields::items(node, &format!("`rules` of tenant `{tenant}`"), sink)?;
    fields::check_length(items.len(), "rules", node.span, sink)?;
    let rules = items.iter().enumerate();
    Some(
        rules
            .filter_map(|(index, node)| Some((scope.rule(index, node, sink)?, node.span)))
            .collect(),
    )
}

impl Scope<'_> {
    fn rule(&self, index: usize, node: &Node, sink: &mut Sink<'_>) -> Option<Rule> {
        let what = format!("rule {} of tenant `{}`", index + 1, self.tenant);
        let fields = Fields::read(node, &what, RULE_KEYS, sink)?;
        let name = fields
            .get("name")
            .and_then(|node| values::word(node, "a rule's name", sink));
        let from = fields
            .require("from", sink)
            .and_then(|node| self.selectors(node, sink));
        let to = fields
            .require("to", sink)
            .and_then(|node| self.selectors(node, sink));
        let both_ways = fields
            .get("both_ways")
            .map_or(Some(false), |node| boolean(node, "`both_ways`", sink));
        let qp_types = match fields.get("qp_types") {
            Some(node) => qp_types(QpType::ALL.to_vec(), None).read(node, sink),
            None => Some(QpTypes::ALL),
        };
        let services = fields
            .get("service")
            .map_or(Some(vec![ServiceMatch::Any]), |node| services(node, sink));
        let action = fields
            .require("action", sink)
            .and_then(|node| action(node, sink));
        let id = RuleId {
            tenant: self.tenant.clone(),
            index,
            name: name.map(Arc::from),
        };
        Some(Rule {
            id,
            from: from?,
            to: to?,
            both_ways: both_ways?,
            qp_types: qp_types?,
            services: services?,
            action: action?,
        })
    }

    /// One selector or a list of them.
    fn selectors(&self, node: &Node, sink: &mut Sink<'_>) -> Option<Vec<Selector>> {
        let Value::Sequence(items) = &node.value else {
            return self.selector(node, sink).map(|selector| vec![selector]);
        };
        if items.is_empty() {
            sink.error(Code::BadValue, node.span, "an empty list means no endpoint")
                .help("write `any` for all");
            return None;
        }
        let read: Vec<_> = items.iter().map(|item| self.selector(item, sink)).collect();
        read.into_iter().collect()
    }

    fn selector(&self, node: &Node, sink: &mut Sink<'_>) -> Option<Selector> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => self.short_selector(text, node, sink),
            Value::Mapping(_) => self.long_selector(node, sink),
            _ => {
                let message = format!(
                    "expected an endpoint, an address, a network, labels or `any`, not {}",
                    node.describe()
                );
                sink.error(Code::WrongType, node.span, message);
                None
            }
        }
    }

    /// `any`, `a`, `10.0.0.1`, `10.0.0.0/8`: names never look like addresses.
    fn short_selector(&self, text: &str, node: &Node, sink: &mut Sink<'_>) -> Option<Selector> {
        if text == "any" {
            return Some(Selector::Any);
        }
        let has_letter = text.chars().any(|c| c.is_ascii_alphabetic());
        if let (true, Ok(id)) = (has_letter, text.parse::<EndpointId>()) {
            let draft = sink.error(
                Code::UnknownEndpoint,
                node.span,
                format!("a rule cannot name `{text}`"),
            );
            if id.tenant() == self.tenant {
                draft.help(format!(
                    "within its tenant the endpoint is called `{}`",
                    id.name()
                ));
            } else {
                draft.label("a rule speaks of the endpoints of its own tenant only");
            }
            return None;
        }
        if text.contains('/') {
            return values::cidr(node, sink).map(Selector::Network);
        }
        let like_address = text.contains(':') || (text.contains('.') && !has_letter);
        if like_address {
            return values::address(node, sink).map(Selector::Address);
        }
        self.endpoint(text, node, sink)
    }

    fn endpoint(&self, text: &str, node: &Node, sink: &mut Sink<'_>) -> Option<Selector> {
        if let Some(names) = &self.names
            && names.binary_search(&text).is_err()
        {
            let message = format!(
                "tenant `{}` has no endpoint `{}`",
                self.tenant,
                shorten(text)
            );
            let mut draft = sink.error(Code::UnknownEndpoint, node.span, message);
            if (1..10).contains(&names.len()) {
                draft = draft.label(format!("expected one of: {}", names.join(", ")));
            }
            draft.suggest(text, names.iter().copied());
            return None;
        }
        values::name(text, node.span, EndpointName::new, sink).map(Selector::Endpoint)
    }

    fn long_selector(&self, node: &Node, sink: &mut Sink<'_>) -> Option<Selector> {
        let fields = Fields::read(node, "a selector", SELECTOR_KEYS, sink)?;
        let mut entries = fields.iter();
        let (Some(entry), None) = (entries.next(), entries.next()) else {
            let message = format!(
                "a selector has exactly one of: {}",
                SELECTOR_KEYS.join(", ")
            );
            sink.error(Code::BadValue, node.span, message);
            return None;
        };
        let value = entry.value;
        match entry.key {
            "endpoint" => self.endpoint(values::text(value, "an endpoint", sink)?, value, sink),
            "address" => values::address(value, sink).map(Selector::Address),
            "cidr" => values::cidr(value, sink).map(Selector::Network),
            _ => {
                let labels = read_labels(value, sink)?;
                if labels.is_empty() {
                    sink.error(Code::BadValue, value.span, "no labels to look for")
                        .help("write `any` for all");
                    return None;
                }
                Some(Selector::Labels(labels))
            }
        }
    }
}

fn boolean(node: &Node, what: &str, sink: &mut Sink<'_>) -> Option<bool> {
    match &node.value {
        Value::Scalar { text, plain: true } if text == "true" => Some(true),
        Value::Scalar { text, plain: true } if text == "false" => Some(false),
        _ => {
            let message = format!("{what} must be true or false, not {}", node.describe());
            sink.error(Code::WrongType, node.span, message);
            None
        }
    }
}

fn action(node: &Node, sink: &mut Sink<'_>) -> Option<Action> {
    match values::text(node, "`action`", sink)? {
        "allow" => Some(Action::Allow),
        "deny" => Some(Action::Deny),
        other => {
            sink.error(
                Code::BadValue,
                node.span,
                format!("`{}` is not an action", shorten(other)),
            )
            .label("expected `allow` or `deny`")
            .suggest(other, ACTIONS.iter().copied());
            None
        }
    }
}

fn services(node: &Node, sink: &mut Sink<'_>) -> Option<Vec<ServiceMatch>> {
    let items = match &node.value {
        Value::Sequence(items) if !items.is_empty() => items,
        _ => std::slice::from_ref(node),
    };
    let read: Vec<_> = items.iter().map(|item| service(item, sink)).collect();
    read.into_iter().collect()
}

fn service(node: &Node, sink: &mut Sink<'_>) -> Option<ServiceMatch> {
    let text = values::text(node, "a service", sink)?;
    text.parse()
        .map_err(|error: ServiceError| {
            sink.error(
                Code::BadValue,
                node.span,
                format!("`{}` is not a service", shorten(text)),
            )
            .label(error.to_string())
            .suggest(text, ["any", "verbs", "rdma_cm"]);
        })
        .ok()
}

/// Warns of rules that match nothing, or only what an earlier rule decides.
pub(super) fn warn(rules: &[Rule], spans: &[Span], endpoints: &Endpoints, sink: &mut Sink<'_>) {
    // A class stands for its instances.
    let templates = endpoints.classes.iter().map(|class| &class.template);
    let all: Vec<_> = endpoints.fixed.iter().chain(templates).cloned().collect();
    let compiled = &RuleIndex::build(&all, rules);
    // Whom such a rule means, containers will decide.
    let unknown = |rule: &Rule| {
        let by_address = |s: &Selector| matches!(s, Selector::Address(_) | Selector::Network(_));
        !endpoints.classes.is_empty() && rule.from.iter().chain(&rule.to).any(by_address)
    };
    let mut comparisons = 0;
    for (later, (rule, span)) in rules.iter().zip(spans).enumerate() {
        if unknown(rule) {
            continue;
        }
        let Some((from, to)) = compiled.meant.get(later) else {
            continue;
        };
        let (Some(a), Some(b)) = (from.first(), to.first()) else {
            let side = if from.is_empty() { "from" } else { "to" };
            sink.warning(Code::NoEffect, *span, format!("{} has no effect", rule.id))
                .label(format!(
                    "no endpoint of the tenant is meant by its `{side}`"
                ));
            continue;
        };
        if rule.qp_types.is_empty() {
            sink.warning(Code::NoEffect, *span, format!("{} has no effect", rule.id))
                .label("it is for no queue pair type");
            continue;
        }
        // Only a rule that speaks of this pair of endpoints can speak of all pairs.
        for earlier in compiled
            .index
            .between(*a, *b)
            .take_while(|earlier| *earlier < later)
        {
            comparisons += 1;
            if comparisons > MAX_COMPARISONS {
                return;
            }
            if !rules.get(earlier).is_some_and(unknown)
                && covers(rules, compiled, earlier, later)
                && let (Some(other), Some(other_span)) = (rules.get(earlier), spans.get(earlier))
            {
                sink.warning(
                    Code::ShadowedRule,
                    *span,
                    format!("{} never decides", rule.id),
                )
                .label("every connection it speaks of is decided earlier")
                .related(*other_span, format!("by {}", other.id));
                break;
            }
        }
    }
}

fn covers(rules: &[Rule], compiled: &Compiled, earlier: usize, later: usize) -> bool {
    let (Some(a), Some(b)) = (rules.get(earlier), rules.get(later)) else {
        return false;
    };
    let (Some((a_from, a_to)), Some((b_from, b_to))) =
        (compiled.meant.get(earlier), compiled.meant.get(later))
    else {
        return false;
    };
    let subset = |inner: &[usize], outer: &[usize]| {
        inner.iter().all(|slot| outer.binary_search(slot).is_ok())
    };
    let forward = subset(b_from, a_from) && subset(b_to, a_to);
    let backward = subset(b_from, a_to) && subset(b_to, a_from);
    let endpoints = match (a.both_ways, b.both_ways) {
        (false, false) => forward,
        (true, _) => forward || backward,
        (false, true) => forward && backward,
    };
    endpoints
        && b.qp_types.is_subset(a.qp_types)
        && b.services
            .iter()
            .all(|inner| a.services.iter().any(|outer| outer.covers(inner)))
}
