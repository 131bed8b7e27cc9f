//! The decision with its reasoning, for `masq policy explain`.

use std::fmt;

use serde::Serialize;

use crate::{
    decide::{Request, Stage, Verdict},
    model::Policy,
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
        explanation.target = Some(connection.to.id.clone());
        let (from, to) = (connection.from, connection.to);
        let mut first = None;
        for (number, rule) in connection.tenant.rules.iter().enumerate() {
            let mismatch = rule.mismatch(from, to, qp_type, service);
            let why = match mismatch {
                None if rule.action == Action::Allow => "matches and allows".to_owned(),
                None => "matches and denies".to_owned(),
                Some(why) => skipped(rule, why, &from.id, &to.id, qp_type, service),
            };
            let matched = mismatch.is_none();
            explanation.considered.push(Considered {
                rule: rule.id.clone(),
                matched,
                why,
            });
            if matched {
                first = Some(number);
                break;
            }
        }
        // From the scan, not from the index: an explanation that disagreed would be seen.
        explanation.verdict = connection.verdict(first);
        explanation
    }

    /// Explains a connection to the address of `to`, as seen from `from`: an endpoint of another
    /// tenant has an address, but not one that means it in the asker's tenant.
    ///
    /// `None` if the policy has no endpoint `to`.
    pub fn explain_between(
        &self,
        from: &EndpointId,
        to: &EndpointId,
        qp_type: QpType,
        service: Service,
    ) -> Option<Explanation> {
        let address = self.endpoint(to)?.address();
        let mut explanation = self.explain(&Request::Connect {
            from,
            to: address,
            qp_type,
            service,
        });
        if from.tenant() != to.tenant() {
            explanation.notes.push(format!(
                "{to} belongs to another tenant: whatever the rules of {} say, no address in it means {to}",
                from.tenant()
            ));
        }
        Some(explanation)
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
