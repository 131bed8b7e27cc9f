//! Refusals: what the program gets, what the operator sees.

use crate::ledger::Exceeded;
use masq_admin::{Refusal, RefusalCount};
use masq_device::DeviceError;
use masq_memory::MemoryError;
use masq_policy::{EndpointId, EndpointName, Verdict};
use masq_spec::command::{Opcode, Status};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Refusals that are remembered of each endpoint.
const REMEMBERED: usize = 32;
/// Refusals of one endpoint that are logged in a second; the rest is counted.
const LOGGED_PER_SECOND: u32 = 20;

/// Why a command is refused.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// What decided.
    pub(crate) rule: String,
    pub(crate) reason: String,
    /// What it spoke of.
    pub(crate) object: String,
}

impl Refused {
    pub(crate) fn new(status: Status, rule: &str, reason: impl Into<String>) -> Self {
        Self {
            status,
            rule: rule.into(),
            reason: reason.into(),
            object: String::new(),
        }
    }

    /// The request breaks the interface's rules.
    pub(crate) fn invalid(reason: &'static str) -> Self {
        Self::new(Status::Invalid, "interface", reason)
    }

    pub(crate) fn unsupported(reason: &'static str) -> Self {
        Self::new(Status::Unsupported, "device", reason)
    }

    pub(crate) fn no_object(kind: &'static str) -> Self {
        Self::new(
            Status::NoSuchObject,
            "interface",
            format!("no such {kind} in this session"),
        )
    }

    pub(crate) fn policy(verdict: &Verdict) -> Self {
        Self::new(
            Status::Denied,
            &verdict.rule.to_string(),
            verdict.reason.to_string(),
        )
    }

    /// Names what the command spoke of.
    pub(crate) fn about(mut self, object: impl Into<String>) -> Self {
        self.object = object.into();
        self
    }
}

impl From<Exceeded> for Refused {
    fn from(e: Exceeded) -> Self {
        let reason = format!("{} of {} in use, {} more wanted", e.used, e.limit, e.wanted);
        Self::new(Status::NoMemory, &e.rule, reason)
    }
}

impl From<DeviceError> for Refused {
    fn from(error: DeviceError) -> Self {
        Self::new(error.status(), "device", error.to_string())
    }
}

impl From<MemoryError> for Refused {
    fn from(error: MemoryError) -> Self {
        let status = match &error {
            MemoryError::BadFile(_) | MemoryError::BadRange { .. } => Status::Fault,
            MemoryError::Scattered => Status::Unsupported,
            MemoryError::Host { .. } => Status::NoMemory,
        };
        let rule = if status == Status::NoMemory {
            "host"
        } else {
            "interface"
        };
        Self::new(status, rule, error.to_string())
    }
}

/// All refusals since the start.
#[derive(Default)]
pub(crate) struct Refusals {
    counts: BTreeMap<(String, String, &'static str, String), u64>,
    latest: HashMap<EndpointId, VecDeque<Refusal>>,
    buckets: HashMap<EndpointId, (Instant, u32)>,
    /// Under whose name an instance's refusals are counted: metrics must not grow with
    /// the number of containers that there were.
    classes: HashMap<EndpointId, EndpointName>,
}

impl Refusals {
    /// Counts, remembers and logs one.
    pub(crate) fn record(
        &mut self,
        endpoint: &EndpointId,
        session: u64,
        verb: &'static str,
        refused: &Refused,
    ) {
        let (tenant, name) = (endpoint.tenant().to_string(), endpoint.name().to_string());
        let counted = self.classes.get(endpoint).unwrap_or(endpoint.name());
        let key = (
            tenant.clone(),
            counted.to_string(),
            verb,
            refused.rule.clone(),
        );
        *self.counts.entry(key).or_default() += 1;
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let latest = self.latest.entry(endpoint.clone()).or_default();
        if latest.len() >= REMEMBERED {
            latest.pop_front();
        }
        latest.push_back(Refusal {
            time,
            endpoint: endpoint.to_string(),
            session,
            verb: verb.to_owned(),
            object: refused.object.clone(),
            rule: refused.rule.clone(),
            reason: refused.reason.clone(),
            errno: refused.status.errno(),
        });
        let now = Instant::now();
        let bucket = self.buckets.entry(endpoint.clone()).or_insert((now, 0));
        if now.duration_since(bucket.0).as_secs() >= 1 {
            if bucket.1 > LOGGED_PER_SECOND {
                let unlogged = bucket.1 - LOGGED_PER_SECOND;
                tracing::warn!(tenant, endpoint = name, unlogged, "more refusals");
            }
            *bucket = (now, 0);
        }
        bucket.1 += 1;
        if bucket.1 <= LOGGED_PER_SECOND {
            tracing::warn!(
                tenant,
                endpoint = name,
                session,
                verb,
                object = refused.object,
                rule = refused.rule,
                reason = refused.reason,
                errno = refused.status.errno(),
                "refused"
            );
        }
    }

    pub(crate) fn counts(&self) -> Vec<RefusalCount> {
        self.counts
            .iter()
            .map(|((tenant, endpoint, verb, rule), count)| RefusalCount {
                tenant: tenant.clone(),
                endpoint: endpoint.clone(),
                verb: (*verb).to_owned(),
                rule: rule.clone(),
                count: *count,
            })
            .collect()
    }

    /// Counts an endpoint's refusals under its class.
    pub(crate) fn count_as(&mut self, endpoint: &EndpointId, class: &EndpointName) {
        self.classes.insert(endpoint.clone(), class.clone());
    }

    /// Forgets the latest of an endpoint that no longer exists; the counts stay.
    pub(crate) fn forget(&mut self, endpoint: &EndpointId) {
        self.classes.remove(endpoint);
        self.latest.remove(endpoint);
        self.buckets.remove(endpoint);
    }

    pub(crate) fn latest(&self, endpoint: &EndpointId) -> Vec<Refusal> {
        self.latest
            .get(endpoint)
            .map(|list| list.iter().cloned().collect())
            .unwrap_or_default()
    }
}

/// The name of a command, as operators read it.
pub(crate) fn verb_name(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::Hello => "hello",
        Opcode::Join => "join",
        Opcode::QueryDevice => "query_device",
        Opcode::QueryPort => "query_port",
        Opcode::QueryGidTable => "query_gid_table",
        Opcode::AllocPd => "alloc_pd",
        Opcode::DeallocPd => "dealloc_pd",
        Opcode::RegMr => "reg_mr",
        Opcode::DeregMr => "dereg_mr",
        Opcode::ReregMr => "rereg_mr",
        Opcode::AllocMw => "alloc_mw",
        Opcode::DeallocMw => "dealloc_mw",
        Opcode::CreateCq => "create_cq",
        Opcode::DestroyCq => "destroy_cq",
        Opcode::ResizeCq => "resize_cq",
        Opcode::CreateSrq => "create_srq",
        Opcode::DestroySrq => "destroy_srq",
        Opcode::ModifySrq => "modify_srq",
        Opcode::QuerySrq => "query_srq",
        Opcode::CreateQp => "create_qp",
        Opcode::DestroyQp => "destroy_qp",
        Opcode::ModifyQp => "modify_qp",
        Opcode::QueryQp => "query_qp",
        Opcode::CreateAh => "create_ah",
        Opcode::DestroyAh => "destroy_ah",
        Opcode::AttachMcast => "attach_mcast",
        Opcode::DetachMcast => "detach_mcast",
        Opcode::CmCreateId => "cm_create_id",
        Opcode::CmDestroyId => "cm_destroy_id",
        Opcode::CmBind => "cm_bind",
        Opcode::CmResolveAddr => "cm_resolve_addr",
        Opcode::CmResolveRoute => "cm_resolve_route",
        Opcode::CmQuery => "cm_query",
        Opcode::CmConnect => "cm_connect",
        Opcode::CmListen => "cm_listen",
        Opcode::CmAccept => "cm_accept",
        Opcode::CmReject => "cm_reject",
        Opcode::CmDisconnect => "cm_disconnect",
        Opcode::CmQpAttr => "cm_qp_attr",
        Opcode::CmGetEvent => "cm_get_event",
        Opcode::CmSetOption => "cm_set_option",
        Opcode::CmNotify => "cm_notify",
        Opcode::CmJoin => "cm_join",
        Opcode::CmLeave => "cm_leave",
        Opcode::CmMigrate => "cm_migrate",
        Opcode::CmCloseChannel => "cm_close_channel",
    }
}
