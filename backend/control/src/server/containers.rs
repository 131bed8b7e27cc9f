//! Containers: each has a directory and a socket of its own, is an endpoint as long as
//! its init process lives, and has the addresses of its network namespace.

use super::{Server, ServerError, ServerHandle, Token};
use crate::container::{Before, ContainerDir, Prepared, Record, Watcher};
use crate::identity::Peer;
use crate::ledger::Kind;
use crate::refusal::Refused;
use masq_admin::{ContainerId, ContainerReport, ProcessId, Registration};
use masq_policy::{
    Container as Facts, Endpoint, EndpointId, EndpointName, Home, Placement, Policy, instance_name,
};
use masq_spec::command::Status;
use rustix::event::epoll;
use slab::Slab;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A container's place in the list, and its generation: places are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContainerKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ContainerKey {
    fn to_raw(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_raw(raw: u64) -> Self {
        Self {
            index: raw as u32,
            generation: (raw >> 32) as u32,
        }
    }
}

/// A registered container.
pub(super) struct Container {
    generation: u32,
    registration: Registration,
    init: ProcessId,
    pidfd: OwnedFd,
    namespaces: crate::container::Namespaces,
    pub(super) placement: Placement,
    pub(super) endpoint: EndpointId,
    /// Addresses that it had when it was placed: what `network` in a policy is held to.
    placed_at: Vec<IpAddr>,
    /// All that its network namespace has now.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) dir: ContainerDir,
    pub(super) listener: UnixListener,
}

/// The registered containers.
pub(super) struct Containers {
    pub(super) root: PathBuf,
    list: Slab<Container>,
    pub(super) by_id: HashMap<String, ContainerKey>,
    generation: u32,
    watcher: Watcher,
}

impl Containers {
    pub(super) fn new(run_dir: &Path, server: ServerHandle) -> Result<Self, ServerError> {
        let root = run_dir.join("containers");
        // Containers have it mounted; nobody else of the host's needs the way there.
        let make = || {
            std::fs::create_dir_all(&root)?;
            std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700))
        };
        make().map_err(|source| ServerError::Path {
            path: root.clone(),
            source,
            remedy: "choose a --run-dir that masqd may write",
        })?;
        let tell = move |key, addresses| server.send(super::Message::Addresses(key, addresses));
        let watcher = Watcher::start(tell).map_err(|source| ServerError::Host {
            what: "start a thread",
            source,
        })?;
        Ok(Self {
            root,
            list: Slab::new(),
            by_id: HashMap::new(),
            generation: 0,
            watcher,
        })
    }

    pub(super) fn get(&self, key: ContainerKey) -> Option<&Container> {
        let found = self.list.get(key.index as usize);
        found.filter(|container| container.generation == key.generation)
    }

    pub(super) fn reports<'a>(&'a self, policy: &'a Policy) -> Vec<ContainerReport> {
        let all = self.list.iter();
        all.map(|(_, container)| container.report(policy)).collect()
    }

    /// The first container that is this endpoint.
    pub(super) fn of(&self, id: &EndpointId) -> Option<&Container> {
        let mut all = self.list.iter().map(|(_, container)| container);
        all.find(|container| container.endpoint == *id)
    }

    pub(super) fn get_mut(&mut self, key: ContainerKey) -> Option<&mut Container> {
        let found = self.list.get_mut(key.index as usize);
        found.filter(|container| container.generation == key.generation)
    }

    pub(super) fn keys(&self, wanted: impl Fn(&Container) -> bool) -> Vec<ContainerKey> {
        let found = self.list.iter().filter(|(_, c)| wanted(c));
        found
            .map(|(index, container)| ContainerKey {
                index: index as u32,
                generation: container.generation,
            })
            .collect()
    }
}

impl Container {
    fn report(&self, policy: &Policy) -> ContainerReport {
        ContainerReport {
            container: self.registration.container.clone(),
            endpoint: self.endpoint.to_string(),
            pid: self.init.pid,
            addresses: held(policy, &self.endpoint),
            dir: self.dir.path().to_owned(),
        }
    }

    /// What a masqd after this one has to know of it.
    pub(super) fn record(&self, policy: &Policy) -> Record {
        Record {
            init: self.init,
            registration: self.registration.clone(),
            before: Before {
                net: self.namespaces.net,
                placed_at: self.placed_at.clone(),
                held: held(policy, &self.endpoint),
            },
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.socket()
    }

    pub(super) fn place_again(&self, policy: &Policy) -> Result<(), String> {
        match policy.place(&facts(&self.registration, &self.placed_at)) {
            Ok(placement) if placement == self.placement => Ok(()),
            Ok(_) => Err("the policy makes it another endpoint now".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The addresses of an endpoint.
fn held(policy: &Policy, id: &EndpointId) -> Vec<IpAddr> {
    let endpoint = policy.endpoint(id);
    let addresses = endpoint.map_or(&[][..], |endpoint| endpoint.addresses());
    addresses.iter().map(|address| address.ip()).collect()
}

fn facts<'a>(registration: &'a Registration, addresses: &[IpAddr]) -> Facts<'a> {
    let labels = registration.labels.iter();
    Facts {
        tenant: registration.tenant.as_deref(),
        endpoint: registration.endpoint.as_deref(),
        image: registration.image.as_deref(),
        labels: labels.map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        addresses: addresses.to_vec(),
    }
}

impl Server {
    /// Makes a container an endpoint.
    ///
    /// # Errors
    /// For whoever starts the container: why it is none. Nothing is left then.
    pub(super) fn register(&mut self, prepared: Prepared) -> Result<ContainerReport, String> {
        let result = self.try_register(prepared);
        match &result {
            Ok(report) => {
                tracing::info!(container = report.container, endpoint = report.endpoint, pid = report.pid, addresses = ?report.addresses, "container registered");
            }
            Err(reason) => tracing::warn!(reason, "container refused"),
        }
        result
    }

    fn try_register(&mut self, prepared: Prepared) -> Result<ContainerReport, String> {
        let asked = &prepared.registration;
        if ContainerId::new(&asked.container).is_err() {
            return Err(format!(
                "`{}` cannot be the id of a container: it has 1 to 128 letters, digits, `-`, \
                 `_`, `.` and `+`, and does not begin with `.`",
                asked.container.escape_debug()
            ));
        }
        if self.deadline.is_some() {
            return Err("masqd is stopping".into());
        }
        if let Some(report) = self.known(&prepared)? {
            return Ok(report);
        }
        let facts = facts(asked, prepared.placed_at());
        let placement = self.world.policy.place(&facts).map_err(|error| {
            self.count_refusal(asked, &error.to_string());
            error.to_string()
        })?;
        self.check_home(placement.template(&self.world.policy))?;
        let endpoint = match &placement {
            Placement::Fixed(id) => self.hold(id, &prepared)?,
            Placement::InstanceOf(class) => self.instance(class, &prepared)?,
        };
        let made = self.open_container(prepared, placement, &endpoint);
        made.inspect_err(|_| self.leave_endpoint(&endpoint))
    }

    /// The report of a container that is registered already: a hook may run twice.
    fn known(&mut self, prepared: &Prepared) -> Result<Option<ContainerReport>, String> {
        let asked = &prepared.registration;
        let Some(key) = self.containers.by_id.get(&asked.container).copied() else {
            return Ok(None);
        };
        let Some(known) = self.containers.get(key) else {
            return Ok(None);
        };
        if known.init == prepared.init {
            let is = &known.registration;
            if (&is.tenant, &is.endpoint) != (&asked.tenant, &asked.endpoint) {
                return Err(format!(
                    "the container asks for two endpoints, but can only be one: it is {} already",
                    known.endpoint
                ));
            }
            return Ok(Some(known.report(&self.world.policy)));
        }
        if !crate::container::has_ended(known.pidfd.as_fd()) {
            return Err(format!(
                "another container is called {} and runs, with process {}",
                asked.container, known.init.pid
            ));
        }
        self.unregister(key, "a new container has its name");
        Ok(None)
    }

    /// Whether an endpoint may live here.
    pub(super) fn check_home(&self, endpoint: Option<&Endpoint>) -> Result<(), String> {
        let elsewhere = endpoint.filter(|endpoint| !self.world.may_live_here(endpoint));
        match elsewhere.and_then(|endpoint| Some((endpoint.id(), endpoint.host()?))) {
            None => Ok(()),
            Some((id, host)) => {
                let this = self.world.this.as_ref();
                let this = this.map_or("no host of its".to_owned(), ToString::to_string);
                Err(format!(
                    "by the policy, {id} lives on host {host}, and this is {this}; start the \
                     container there, or change `host` of the endpoint"
                ))
            }
        }
    }

    /// Counts that the policy refused a container; a tenant that it does not have is
    /// logged only, so that made-up names do not fill the counters.
    fn count_refusal(&mut self, asked: &Registration, reason: &str) {
        let tenant = asked.tenant.as_deref().and_then(|name| {
            let tenant = self.world.policy.tenant(name)?;
            Some(tenant.name().clone())
        });
        if let (Some(tenant), Ok(name)) = (tenant, EndpointName::new("containers")) {
            let refused = Refused::new(Status::Denied, "containers", reason.to_owned())
                .about(format!("container {}", asked.container));
            let id = EndpointId::new(tenant, name);
            self.world.refusals.record(&id, 0, "register", &refused);
        }
    }

    /// A fixed endpoint is one container's at a time, or those of one network namespace.
    fn hold(&self, id: &EndpointId, prepared: &Prepared) -> Result<EndpointId, String> {
        let net = prepared.namespaces.net;
        let mut others = self.containers.list.iter().map(|(_, c)| c);
        match others.find(|c| c.endpoint == *id && c.namespaces.net != net) {
            None => Ok(id.clone()),
            Some(other) => Err(format!(
                "container {} is {id}, which can be one at a time; use an endpoint with \
                 `address: auto` for several",
                other.registration.container
            )),
        }
    }

    /// The instance of a class that the container becomes: that of another one in the
    /// same network namespace, or a new one.
    fn instance(&mut self, class: &EndpointId, prepared: &Prepared) -> Result<EndpointId, String> {
        let id = &prepared.registration.container;
        let placement = Placement::InstanceOf(class.clone());
        let net = prepared.namespaces.net;
        let mut others = self.containers.list.iter().map(|(_, c)| c);
        if let Some(other) = others.find(|c| c.placement == placement && c.namespaces.net == net) {
            return Ok(other.endpoint.clone());
        }
        let name = instance_name(class.name(), id)
            .ok_or_else(|| format!("no endpoint can be named after the container {id}"))?;
        let (endpoint, refused) = self.world.change_policy(class.tenant(), |policy| {
            // One of another host may have been given this name; it gets another.
            let known = EndpointId::new(class.tenant().clone(), name.clone());
            let found = policy.endpoint(&known);
            if found.is_some_and(|e| matches!(e.home(), Home::Elsewhere(_))) {
                policy.remove_instance(&known);
            }
            let endpoint = policy
                .add_instance(class, name)
                .map_err(|e| e.to_string())?;
            let refused = policy.set_addresses(&endpoint, &prepared.first_addresses());
            Ok::<_, String>((endpoint, refused))
        })?;
        let reasons: Vec<_> = refused
            .iter()
            .map(|(address, why)| format!("{address}: {why}"))
            .collect();
        let has_none = self
            .world
            .policy
            .endpoint(&endpoint)
            .and_then(|e| e.address())
            .is_none();
        // One that runs already may have none for a while.
        if has_none && !reasons.is_empty() && prepared.before.is_none() {
            self.world
                .change_policy(class.tenant(), |policy| policy.remove_instance(&endpoint));
            return Err(format!(
                "none of the container's addresses can be {class}'s: {}",
                reasons.join("; ")
            ));
        }
        if !reasons.is_empty() {
            tracing::warn!(%endpoint, refused = reasons.join("; "), "addresses passed over");
        }
        self.world.refusals.count_as(&endpoint, class.name());
        Ok(endpoint)
    }

    /// Its directory, its socket, its place in the list.
    fn open_container(
        &mut self,
        prepared: Prepared,
        placement: Placement,
        endpoint: &EndpointId,
    ) -> Result<ContainerReport, String> {
        let id = prepared.registration.container.clone();
        self.world
            .charge(endpoint, Kind::Containers, 1)
            .map_err(|refused| {
                let reason = format!("{}: {}", refused.rule, refused.reason);
                self.world
                    .refusals
                    .record(endpoint, 0, "register", &refused);
                reason
            })?;
        let gids = self.world.gids(endpoint);
        let placed_at = prepared.placed_at().to_vec();
        let addresses = prepared.first_addresses();
        let dir = ContainerDir::of(&self.containers.root, &id);
        let record = Record {
            init: prepared.init,
            registration: prepared.registration.clone(),
            before: Before {
                net: prepared.namespaces.net,
                placed_at: placed_at.clone(),
                held: held(&self.world.policy, endpoint),
            },
        };
        let files = || -> std::io::Result<_> {
            dir.make()?;
            dir.write_record(&record)?;
            if let Some(gids) = &gids {
                dir.write_sysfs(&self.world.identity.name, gids)?;
            }
            dir.listen()
        };
        let entry = self.containers.list.vacant_entry();
        self.containers.generation = (self.containers.generation + 1) & 0x0fff_ffff;
        let key = ContainerKey {
            index: entry.key() as u32,
            generation: self.containers.generation,
        };
        let opened = files().and_then(|listener| {
            let (index, generation) = (key.index, key.generation);
            let flags = epoll::EventFlags::IN;
            let token = Token::Container(index, generation).data();
            epoll::add(&self.epoll, &listener, token, flags)?;
            let token = Token::Init(index, generation).data();
            epoll::add(&self.epoll, &prepared.pidfd, token, flags)?;
            Ok(listener)
        });
        let listener = opened.map_err(|error| {
            self.world.ledger.refund(endpoint, Kind::Containers, 1);
            let _ = dir.remove();
            format!("{}: {error}", dir.path().display())
        })?;
        let container = Container {
            generation: key.generation,
            registration: prepared.registration,
            init: prepared.init,
            pidfd: prepared.pidfd,
            namespaces: prepared.namespaces,
            placement,
            endpoint: endpoint.clone(),
            placed_at,
            addresses,
            dir,
            listener,
        };
        let report = container.report(&self.world.policy);
        entry.insert(container);
        self.containers.by_id.insert(id, key);
        self.containers
            .watcher
            .watch(key.to_raw(), prepared.netlink);
        self.follow_view(endpoint.tenant());
        self.recheck_tenant(endpoint.tenant());
        self.announce(endpoint);
        Ok(report)
    }

    /// What a hook asks for at the end of a container. Two runtimes may give the same id:
    /// the end of one container is not that of another which runs.
    pub(super) fn unregister_by_id(&mut self, id: &str, pid: Option<i32>) -> bool {
        let key = self.containers.by_id.get(id).copied();
        let meant = |container: &Container| {
            pid == Some(container.init.pid) || crate::container::has_ended(container.pidfd.as_fd())
        };
        key.filter(|key| self.containers.get(*key).is_some_and(meant))
            .is_some_and(|key| self.unregister(key, "its runtime says so"))
    }

    /// Ends a container's sessions and removes what was made for it.
    pub(super) fn unregister(&mut self, key: ContainerKey, reason: &str) -> bool {
        if self.containers.get(key).is_none() {
            return false;
        }
        let container = self.containers.list.remove(key.index as usize);
        let id = &container.registration.container;
        self.containers.by_id.remove(id);
        self.containers.watcher.forget(key.to_raw());
        let _ = epoll::delete(&self.epoll, &container.listener);
        let _ = epoll::delete(&self.epoll, &container.pidfd);
        let conns = self.conns.iter().filter(|(_, c)| c.container == Some(key));
        let conns: Vec<usize> = conns.map(|(index, _)| index).collect();
        for index in conns {
            self.close(index, "its container ended");
        }
        self.world
            .ledger
            .refund(&container.endpoint, Kind::Containers, 1);
        tracing::info!(container = id, endpoint = %container.endpoint, reason, "container forgotten");
        if let Err(error) = container.dir.remove() {
            let dir = container.dir.path().display();
            tracing::warn!(%dir, %error, "the container's directory was not removed");
        }
        self.leave_endpoint(&container.endpoint);
        true
    }

    /// Removes an instance that is nobody's any more; others may want its addresses.
    fn leave_endpoint(&mut self, id: &EndpointId) {
        let endpoint = self.world.policy.endpoint(id);
        let is_fixed = endpoint.is_some_and(|endpoint| endpoint.class().is_none());
        let had = endpoint.map_or(Vec::new(), |endpoint| endpoint.addresses().to_vec());
        if is_fixed || self.containers.of(id).is_some() {
            self.announce(id);
            return;
        }
        self.world
            .change_policy(id.tenant(), |policy| policy.remove_instance(id));
        self.world.forget_moved();
        self.world.forget_endpoint(id);
        self.announce(id);
        self.offer_addresses(id, &had);
        self.follow_view(id.tenant());
    }

    /// Takes one connection of a container.
    pub(super) fn accept_container(&mut self, key: ContainerKey) {
        let Some(container) = self.containers.get(key) else {
            return;
        };
        let id = container.endpoint.clone();
        let Some(socket) = super::connection::take(
            &container.listener,
            &id,
            &mut self.spare,
            &mut self.accept_failed,
        ) else {
            return;
        };
        if self.deadline.is_some() {
            return;
        }
        let admitted = Peer::of(&socket).and_then(|peer| {
            let admitted = container.namespaces.admit(peer.pid)?;
            // What was read of its number was about it, if it lives now.
            Ok(admitted && !crate::container::has_ended(peer.pidfd.as_fd()))
        });
        match admitted {
            Ok(true) => self.admit(&id, socket, Some(key)),
            other => {
                let name = &container.registration.container;
                let reason = match other {
                    Err(error) => format!("the process cannot be identified: {error}"),
                    Ok(_) => "the process is not of the container".to_owned(),
                };
                let refused = Refused::new(Status::Denied, "container identity", reason)
                    .about(format!("socket of container {name}"));
                self.world.refusals.record(&id, 0, "connect", &refused);
            }
        }
    }
}
