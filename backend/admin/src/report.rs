//! Requests and reports. Counts are of now; `_total` only ever grows.

use crate::CaptureView;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// A question to masqd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// Endpoints, sessions and refusals.
    Overview,
    /// One session, all its objects.
    Session {
        /// Its id.
        id: u64,
    },
    /// One endpoint, with its sessions in detail.
    Endpoint {
        /// `tenant/name`.
        endpoint: String,
    },
    /// Read the policy file again.
    Reload,
    /// A container is about to start.
    Register(Registration),
    /// A container has ended, or does not start; no error if it is not known.
    Unregister {
        /// Id that the runtime gave it.
        container: String,
        /// Its init process, if that may still run. Without it, a container whose process
        /// runs is another of the same id, and stays.
        #[serde(default)]
        pid: Option<i32>,
    },
    /// The containers that are registered.
    Containers,
    /// The packets of an endpoint, from now on: see [`capture`](crate::capture()).
    Capture {
        /// `tenant/name`.
        endpoint: String,
        /// Bytes of a packet that are kept, within [`SNAP`](crate::SNAP).
        snap: u32,
        /// By which addresses.
        view: CaptureView,
    },
}

/// What a runtime's hook tells of a container before its program starts. All of it but
/// the process is the word of whoever started the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Id that the runtime gave it.
    pub container: String,
    /// Its init process, as the host numbers it.
    pub pid: i32,
    /// Tenant that it asks for; without one, the policy's selectors choose.
    pub tenant: Option<String>,
    /// Endpoint or class of endpoints within the tenant that it asks for.
    pub endpoint: Option<String>,
    /// Name of the image, if the runtime tells.
    pub image: Option<String>,
    /// Annotations of the container.
    pub labels: BTreeMap<String, String>,
}

/// A container that masqd serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Id that the runtime gave it.
    pub container: String,
    /// `tenant/name`.
    pub endpoint: String,
    /// Its init process, as the host numbers it.
    pub pid: i32,
    /// Virtual addresses, the first at GID index 3; none yet, perhaps.
    pub addresses: Vec<IpAddr>,
    /// Directory with what is mounted into the container: `run/` (its socket), `sys/`
    /// and `dev/` (what `/sys/class/infiniband` and `/dev/infiniband` show there).
    pub dir: PathBuf,
}

/// An answer of masqd.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer", content = "body")]
pub enum Answer {
    /// To [`Request::Overview`].
    Overview(Box<Overview>),
    /// To [`Request::Session`] and [`Request::Endpoint`].
    Detail(Vec<SessionDetail>, Option<EndpointReport>),
    /// To [`Request::Reload`].
    Reloaded(ReloadReport),
    /// To [`Request::Register`].
    Registered(ContainerReport),
    /// To [`Request::Unregister`]: whether it was known.
    Unregistered(bool),
    /// To [`Request::Containers`].
    Containers(Vec<ContainerReport>),
    /// To [`Request::Capture`]: records follow.
    Capturing,
    /// In words.
    Error(String),
}

/// The whole host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Overview {
    /// Version of masqd.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The device that carries the data of tenants whose policy names none.
    pub device: String,
    /// All devices, that one first.
    #[serde(default)]
    pub devices: Vec<DeviceReport>,
    /// File that the policy was read from.
    pub policy_file: String,
    /// Endpoints of the policy.
    pub endpoints: Vec<EndpointReport>,
    /// Open sessions.
    pub sessions: Vec<SessionReport>,
    /// Refusals since the start, by tenant, endpoint, verb and rule.
    pub refusals_total: Vec<RefusalCount>,
    /// The hosts, if this one is one of several.
    #[serde(default)]
    pub hosts: Option<HostsReport>,
}

/// A device of masqd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// `soft`, or the name of a card.
    pub name: String,
    /// How it carries payload: `direct copy` or `relay`.
    pub data_path: String,
    /// Whether its tenants reach other hosts.
    pub reaches_hosts: bool,
    /// Tenants that are on it.
    pub tenants: Vec<String>,
}

/// The hosts and what tells them of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsReport {
    /// Address of this one on the network between hosts.
    pub this: Option<IpAddr>,
    /// Those that the policy names, by name.
    pub names: BTreeMap<String, IpAddr>,
    /// The directory.
    pub directory: DirectoryReport,
    /// Packets to and from other hosts, by all devices.
    #[serde(default)]
    pub wire: WireReport,
    /// The same by the device, of those that reach other hosts.
    #[serde(default)]
    pub wires: BTreeMap<String, WireReport>,
}

/// Packets to and from other hosts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireReport {
    /// Packets sent.
    pub sent_packets: u64,
    /// Their bytes, from BTH to ICRC.
    pub sent_bytes: u64,
    /// Packets received whole.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets that were not sent, by the reason.
    pub not_sent: BTreeMap<String, u64>,
    /// Packets that were dropped on arrival, by the reason.
    pub dropped: BTreeMap<String, u64>,
}

impl WireReport {
    /// Adds what another device did.
    pub fn add(&mut self, other: &Self) {
        self.sent_packets += other.sent_packets;
        self.sent_bytes += other.sent_bytes;
        self.received_packets += other.received_packets;
        self.received_bytes += other.received_bytes;
        for (own, more) in [
            (&mut self.not_sent, &other.not_sent),
            (&mut self.dropped, &other.dropped),
        ] {
            for (reason, count) in more {
                *own.entry(reason.clone()).or_default() += count;
            }
        }
    }
}

impl HostsReport {
    /// A host as people call it: by its name, if it has one, and its address.
    pub fn call(&self, address: IpAddr) -> String {
        let name = self.names.iter().find(|(_, has)| **has == address);
        match name {
            Some((name, _)) => format!("{name} ({address})"),
            None => address.to_string(),
        }
    }
}

/// The directory that says which host has which virtual address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryReport {
    /// `embedded` or `etcd`.
    pub kind: String,
    /// Where it is; empty if it is nowhere else.
    pub place: String,
    /// Seconds that it has not been reached for; absent while it is.
    pub away_seconds: Option<u64>,
    /// The latest error, if it is away.
    pub error: Option<String>,
    /// Addresses that other hosts have.
    pub entries: u64,
    /// Addresses that this host has in it.
    pub claims: u64,
    /// Addresses that another host registered before this one.
    pub conflicts: Vec<ConflictReport>,
    /// Entries that are not believed.
    pub ignored: Vec<IgnoredReport>,
    /// Entries since the start that made no sense.
    pub malformed_total: u64,
    /// How often it was lost since the start.
    pub losses_total: u64,
}

/// An address that another host registered before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictReport {
    /// `tenant/name` of the endpoint of this host.
    pub endpoint: String,
    /// The virtual address.
    pub address: IpAddr,
    /// The host that has it.
    pub host: IpAddr,
    /// `tenant/name` of its endpoint there.
    pub holder: String,
}

/// An entry of the directory that is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredReport {
    /// `tenant/name` of the endpoint that it speaks of.
    pub endpoint: String,
    /// The virtual address.
    pub address: IpAddr,
    /// The host that is said to have it.
    pub host: IpAddr,
    /// Why it is not believed.
    pub reason: String,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EndpointReport {
    /// `tenant/name`.
    pub endpoint: String,
    /// The class that it is an instance of.
    #[serde(default)]
    pub class: Option<String>,
    /// Virtual address, the one at GID index 3; empty while it has none.
    pub address: String,
    /// All its virtual addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Address of the host where it lives, if that is another one.
    #[serde(default)]
    pub host: Option<IpAddr>,
    /// It is a host that no masqd watches over.
    #[serde(default)]
    pub outside: bool,
    /// The device that its tenant is on.
    #[serde(default)]
    pub device: String,
    /// How that carries payload: `direct copy` or `relay`.
    #[serde(default)]
    pub data_path: String,
    /// Where its sessions connect; empty if it lives on another host.
    pub socket: String,
    /// Quotas and what is used of them.
    pub quotas: BTreeMap<String, QuotaUse>,
    /// Latest refusals, newest last.
    pub refusals: Vec<Refusal>,
}

/// A quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUse {
    /// In use by the endpoint.
    pub used: u64,
    /// Limit of the endpoint.
    pub limit: u64,
    /// In use by all endpoints of the tenant.
    pub tenant_used: u64,
    /// Limit of the tenant.
    pub tenant_limit: u64,
}

/// A session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionReport {
    /// Id, unique since the start of masqd.
    pub id: u64,
    /// `tenant/name`.
    pub endpoint: String,
    /// Process, as the host numbers it.
    pub pid: i32,
    /// User of the process, as the host numbers it.
    pub uid: u32,
    /// Name that the process gives itself; for people.
    pub program: String,
    /// Version of its library.
    pub frontend_version: String,
    /// The device that it is on.
    #[serde(default)]
    pub device: String,
    /// How that carries payload: `direct copy` or `relay`.
    #[serde(default)]
    pub data_path: String,
    /// Seconds since it opened.
    pub age_seconds: u64,
    /// Objects by kind.
    pub objects: BTreeMap<String, u64>,
    /// Bytes registered.
    pub pinned_bytes: u64,
    /// Control commands served.
    pub commands_total: u64,
}

/// A session with all its objects.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionDetail {
    /// The summary.
    pub session: SessionReport,
    /// Queue pairs.
    pub queue_pairs: Vec<QpReport>,
    /// Completion queues.
    pub completion_queues: Vec<CqReport>,
    /// Memory regions.
    pub memory_regions: Vec<MrReport>,
    /// rdma_cm ids: listeners and connections.
    pub cm_ids: Vec<CmIdReport>,
}

/// An rdma_cm id.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CmIdReport {
    /// Number in its session.
    pub id: u32,
    /// What it is doing: `listening`, `connected` …
    pub state: String,
    /// `rdma_cm/tcp/7471`: the service it offers, uses or gives.
    pub service: String,
    /// Local address and port.
    pub source: String,
    /// Address and port of the peer.
    pub destination: Option<String>,
    /// Whether this side asked for the connection.
    pub initiator: bool,
    /// Its queue pair, 0 if none is known.
    pub qpn: u32,
    /// The peer's queue pair, 0 if none is known.
    pub peer_qpn: u32,
}

/// A queue pair.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct QpReport {
    /// Handle in its session.
    pub handle: u32,
    /// Number on the wire.
    pub qpn: u32,
    /// RC, UC or UD.
    pub qp_type: String,
    /// RESET … ERR.
    pub state: String,
    /// Why it is in ERR or SQE.
    pub cause: Option<String>,
    /// Whom it is connected to.
    pub peer: Option<PeerReport>,
    /// Work requests posted and not completed.
    pub send_queue: u32,
    /// What it did, by counter name.
    pub counters: BTreeMap<String, u64>,
}

/// The other side of a connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PeerReport {
    /// `tenant/name`.
    pub endpoint: String,
    /// Virtual address.
    pub address: String,
    /// Address of the host where it lives, if that is another one.
    #[serde(default)]
    pub host: Option<IpAddr>,
    /// Number of its queue pair.
    pub qpn: u32,
    /// The rule that allows it.
    pub rule: String,
}

/// A completion queue.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CqReport {
    /// Handle in its session.
    pub handle: u32,
    /// Completions that may wait.
    pub cqe: u32,
    /// Event queue of its completion channel.
    pub event_queue: Option<u32>,
}

/// A memory region.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MrReport {
    /// Handle in its session.
    pub handle: u32,
    /// Address in the process.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Rights, as `ibv_access_flags`.
    pub access: u32,
    /// Bytes reached through the address space of the process only.
    pub remote_bytes: u64,
}

/// A refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Seconds since the epoch.
    pub time: u64,
    /// `tenant/name`.
    pub endpoint: String,
    /// Session.
    pub session: u64,
    /// Command.
    pub verb: String,
    /// What it spoke of.
    pub object: String,
    /// What decided: a rule, a quota, the device.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// Errno that the program got.
    pub errno: i32,
}

/// A counter of refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalCount {
    /// Tenant.
    pub tenant: String,
    /// Endpoint within the tenant.
    pub endpoint: String,
    /// Command.
    pub verb: String,
    /// What decided.
    pub rule: String,
    /// How often.
    pub count: u64,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReloadReport {
    /// In words, one line each.
    pub changes: Vec<String>,
    /// Connections that were cut.
    pub connections_cut: u64,
    /// Sessions that were closed.
    pub sessions_closed: u64,
}
