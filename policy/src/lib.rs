//! Tenant policy: YAML to a checked model to a pure decision.
//!
//! [`Policy::parse`] reads and checks a file as a whole; [`Policy::decide`] answers a [`Request`]
//! with a [`Verdict`]; [`Policy::explain`] says why, rule by rule; [`Policy::diff`] says what a
//! reload changes. Nothing here does I/O, reads a clock or starts a thread, and no text makes it
//! panic.
//!
//! ```
//! use masq_policy::{EndpointId, Policy, QpType, Request, Service};
//!
//! let policy = Policy::parse(
//!     "policy.yaml",
//!     "
//! version: 1
//! tenants:
//!   blue:
//!     endpoints:
//!       a: { address: 10.0.0.1 }
//!       b: { address: 10.0.0.2 }
//!     rules:
//!       - { name: a-to-b, from: a, to: b, qp_types: RC, action: allow }
//! ",
//! )?;
//! let a: EndpointId = "blue/a".parse()?;
//! let to = "10.0.0.2".parse()?;
//! let request = |qp_type| Request::Connect { from: &a, to, qp_type, service: Service::Verbs };
//!
//! let verdict = policy.decide(&request(QpType::Rc));
//! assert!(verdict.allowed);
//! assert_eq!(verdict.rule.to_string(), "blue rule 1 \"a-to-b\"");
//! assert!(!policy.decide(&request(QpType::Ud)).allowed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What the caller has to know
//! - A verbs connection is a [`Request::Connect`] by each of its two sides, at its own RTR.
//! - [`Endpoint::quotas`] bounds an endpoint, [`Tenant::quotas`] the sum over its endpoints; both
//!   hold.
//! - [`Request::RegisterMemory`] covers regions. A bound window grants rights of its own: check
//!   them against [`Endpoint::remote_access`], as work requests against [`Endpoint::verbs`].
//! - A multicast datagram goes to those members that its sender may reach by UD: ask
//!   [`Request::Connect`] for each.
//! - A name is up to 63 bytes, so a socket path with two of them can exceed `sun_path`; bind
//!   relative to a directory descriptor.
#![forbid(unsafe_code)]

mod address;
mod container;
mod decide;
mod diagnostic;
mod diff;
mod explain;
mod host;
mod index;
mod instance;
mod model;
mod names;
mod quotas;
mod read;
mod rule;
mod schema;
mod sets;
mod yaml;

pub use address::{Cidr, VirtualAddress};
pub use container::{
    Container, ContainerSelector, Containers, PlaceError, Placement, instance_name,
};
pub use decide::{Reason, Request, RuleRef, Verdict, decide};
pub use diagnostic::{Code, Diagnostic, Place, PolicyErrors, Severity};
pub use diff::{EndpointChange, PolicyDiff};
pub use explain::{Considered, Explanation};
pub use host::{Home, Host, Partition};
pub use instance::{AddressRefusal, InstanceError, MAX_ADDRESSES, Refused};
pub use model::{Class, Endpoint, Labels, Permissions, Policy, Tenant};
pub use names::{
    DeviceName, EndpointId, EndpointName, HostName, MAX_NAME_LEN, NameError, TenantName,
};
pub use quotas::Quotas;
pub use rule::{Action, PortSpace, Rule, RuleId, Selector, Service, ServiceError, ServiceMatch};
pub use schema::json_schema;
pub use sets::{QpType, QpTypes, RemoteAccess, RemoteRight, UnknownWord, Verb, Verbs};
pub use yaml::MAX_TEXT;
