//! Tenant policy: YAML to a checked model to a pure decision.
#![forbid(unsafe_code)]

mod address;
mod decide;
mod diagnostic;
mod diff;
mod explain;
mod index;
mod model;
mod names;
mod quotas;
mod read;
mod rule;
mod schema;
mod sets;
mod yaml;

pub use address::{Cidr, VirtualAddress};
pub use decide::{Reason, Request, RuleRef, Verdict, decide};
pub use diagnostic::{Code, Diagnostic, Place, PolicyErrors, Severity};
pub use diff::{EndpointChange, PolicyDiff};
pub use explain::{Considered, Explanation};
pub use model::{Endpoint, Labels, Permissions, Policy, Tenant};
pub use names::{EndpointId, EndpointName, MAX_NAME_LEN, NameError, TenantName};
pub use quotas::Quotas;
pub use rule::{Action, PortSpace, Rule, RuleId, Selector, Service, ServiceError, ServiceMatch};
pub use schema::json_schema;
pub use sets::{QpType, QpTypes, RemoteAccess, RemoteRight, UnknownWord, Verb, Verbs};
pub use yaml::MAX_TEXT;
