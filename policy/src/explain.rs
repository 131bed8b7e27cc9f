//! The decision with its reasoning, for `masq policy explain`.

use std::fmt;

use serde::Serialize;

use crate::{
    decide::{Connection, Reason, Request, RuleRef, Stage, Verdict},
    model::{Class, Endpoint, Policy, Tenant},
    names::EndpointId,
    rule::{Action, Mismatch, Rule, RuleId, Service, list},
    sets::QpType,
};

/// A rule that was looked at on the way to the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// The rule.
    pub rule: RuleId,
    /// Whether it matched; the last one considered, if any did.
    pub matched: bool,
    /// What it does, or why it does not match.
    pub why: String,
}

/// A verdict with everything that led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The request in words.
    pub request: String,
    /// Whose address the target is, when the tenant has an endpoint there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<EndpointId>,
    /// The rules in order, up to the one that matched.
    pub considered: Vec<Considered>,
    /// What [`Policy::decide`] answers.
    pub verdict: Verdict,
    /// What else is good to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Policy {
    /// Decides as [`Policy::decide`] does, rule by rule, and says why at each.
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let mut explanation = Explanation {
            request: request.to_string(),
            target: None,
            considered: Vec::new(),
            verdict: self.decide(request),
            notes: Vec::new(),
        };
        let (
            Stage::Rules(connection),
            Request::Connect {
                qp_type, service, ..
            },
        ) = (self.before_rules(request), *request)
        else {
            return explanation;
        };
        explanation.scan(&connection, qp_type, service);
        explanation
    }

    /// Explains a connection to the address of `to`, as seen from `from`: an endpoint of another
    /// tenant has an address, but not one that means it in the asker's tenant. Either may be a
    /// class, which stands for any of its instances.
    ///
    /// `None` if the policy has no endpoint or class `to`.
    pub fn explain_between(
        &self,
        from: &EndpointId,
        to: &EndpointId,
        qp_type: QpType,
        service: Service,
    ) -> Option<Explanation> {
        let target = self.endpoint_or_class(to)?;
        let asker = self.endpoint_or_class(from);
        let tenant = self.tenant(from.tenant().as_str());
        let same_tenant = from.tenant() == to.tenant();
        let stands_for_many = asker.is_some() && self.endpoint(from).is_none();
        let mut explanation = match (target.address(), asker, tenant) {
            (None, Some(asker), Some(tenant)) if same_tenant => {
                Explanation::of_class(tenant, asker, target, qp_type, service)
            }
            (Some(_), Some(asker), Some(tenant)) if same_tenant && stands_for_many => {
                Explanation::of_class(tenant, asker, target, qp_type, service)
            }
            (Some(address), _, _) => self.explain(&Request::Connect {
                from,
                to: address,
                qp_type,
                service,
            }),
            (None, _, _) => Explanation::unreachable(from, to, qp_type, service),
        };
        if !same_tenant {
            explanation.notes.push(format!(
                "{to} belongs to another tenant: whatever the rules of {} say, no address in it means {to}",
                from.tenant()
            ));
        }
        for id in [from, to] {
            if self.endpoint(id).is_none() && self.endpoint_or_class(id).is_some() {
                explanation.notes.push(format!(
                    "{id} stands for its containers: rules that name addresses may decide otherwise for one of them"
                ));
            }
        }
        explanation.notes.dedup();
        Some(explanation)
    }

    fn endpoint_or_class(&self, id: &EndpointId) -> Option<&Endpoint> {
        let class = || self.tenant(id.tenant().as_str())?.class(id.name().as_str());
        self.endpoint(id).or_else(|| class().map(Class::template))
    }
}

impl Explanation {
    /// Between a class and another, or two instances of one.
    fn of_class(
        tenant: &Tenant,
        from: &Endpoint,
        to: &Endpoint,
        qp_type: QpType,
        service: Service,
    ) -> Self {
        let connection = Connection {
            tenant,
            from,
            to,
            itself: false,
        };
        let mut explanation = Self {
            request: format!("{} -> {} ({qp_type}, service {service})", from.id, to.id),
            target: None,
            considered: Vec::new(),
            verdict: connection.verdict(None),
            notes: Vec::new(),
        };
        match connection.bad_type(qp_type) {
            Some(verdict) => explanation.verdict = verdict,
            None => explanation.scan(&connection, qp_type, service),
        }
        explanation
    }

    /// To something of another tenant that has no address either.
    fn unreachable(from: &EndpointId, to: &EndpointId, qp_type: QpType, service: Service) -> Self {
        Self {
            request: format!("{from} -> {to} ({qp_type}, service {service})"),
            target: None,
            considered: Vec::new(),
            verdict: Verdict::deny(
                RuleRef::NoSuchEndpoint,
                Reason::NoRuleMatched {
                    from: from.clone(),
                    to: to.clone(),
                },
            ),
            notes: Vec::new(),
        }
    }

    /// Looks at rule after rule, not at the index: a difference would be seen.
    fn scan(&mut self, connection: &Connection<'_>, qp_type: QpType, service: Service) {
        self.target = Some(connection.to.id.clone());
        let (from, to) = (connection.from, connection.to);
        for endpoint in [from, to] {
            if let Some(home) = endpoint.home.describe() {
                self.notes.push(format!("{} {home}", endpoint.id));
            }
        }
        self.notes.dedup();
        if let Some(device) = &connection.tenant.device {
            let tenant = &connection.tenant.name;
            self.notes
                .push(format!("{tenant} is on the device {device}"));
        }
        let mut first = None;
        for (number, rule) in connection.tenant.rules.iter().enumerate() {
            let mismatch = rule.mismatch(from, to, qp_type, service);
            let why = match mismatch {
                None if rule.action == Action::Allow => "matches and allows".to_owned(),
                None => "matches and denies".to_owned(),
                Some(why) => skipped(rule, why, &from.id, &to.id, qp_type, service),
            };
            let matched = mismatch.is_none();
            self.considered.push(Considered {
                rule: rule.id.clone(),
                matched,
                why,
            });
            if matched {
                first = Some(number);
                break;
            }
        }
        self.verdict = connection.verdict(first);
    }
}

fn skipped(
    rule: &Rule,
    mismatch: Mismatch,
    from: &EndpointId,
    to: &EndpointId,
    qp_type: QpType,
    service: Service,
) -> String {
    match mismatch {
        Mismatch::From => format!("is not from {from} (from: {})", list(&rule.from)),
        Mismatch::To => format!("is not to {to} (to: {})", list(&rule.to)),
        Mismatch::Neither => format!(
            "is not between {from} and {to} (between: {} and: {})",
            list(&rule.from),
            list(&rule.to)
        ),
        Mismatch::QpType => format!("is not for {qp_type} (qp_types: {})", rule.qp_types),
        Mismatch::Service => format!("is not for {service} (service: {})", list(&rule.services)),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.request)?;
        if let Some(target) = &self.target {
            write!(f, ", the address of {target}")?;
        }
        writeln!(f)?;
        for considered in &self.considered {
            writeln!(f, "  {} {}", considered.rule, considered.why)?;
        }
        write!(f, "{}", self.verdict)?;
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}
