//! Operators: a socket, a thread that serves it, and the answers.

use super::capture::Captures;
use super::{Message, Server, ServerError, ServerHandle};
use crate::container::Prepared;
use crate::devices::DeviceId;
use crate::ledger::Kind;
use crate::underlay::UnderlayCounters;
use crate::world::{VERSION, World};
use masq_admin::{
    Answer, ConflictReport, DeviceReport, DirectoryReport, EndpointReport, HostsReport,
    IgnoredReport, Overview, QuotaUse, Request, SOCKET_NAME, WireReport,
};
use masq_policy::{Endpoint, EndpointId};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Longest request: a container's annotations may be long.
const MAX_REQUEST: u64 = 1 << 20;
/// How long an operator's program may take to ask or to listen.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the socket, for its owner only, and serves it.
pub(super) fn serve(run_dir: &Path, server: ServerHandle) -> Result<(), ServerError> {
    let path = run_dir.join(SOCKET_NAME);
    let remedy = "the operators' socket cannot be made there";
    let failed = |source| ServerError::Path {
        path: path.clone(),
        source,
        remedy,
    };
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let serve = move || {
        let captures = Captures::default();
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(&stream, &server, &captures) {
                tracing::debug!(%error, "an operator's request was not answered");
            }
        }
    };
    std::thread::Builder::new()
        .name("masq-admin".into())
        .spawn(serve)
        .map_err(failed)?;
    Ok(())
}

fn answer(stream: &UnixStream, server: &ServerHandle, captures: &Captures) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_REQUEST)).read_line(&mut line)?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(Request::Capture {
            endpoint,
            snap,
            view,
        }) => match captures.begin(stream, server, &endpoint, snap, view) {
            Ok(()) => return Ok(()),
            Err(reason) => Answer::Error(reason),
        },
        Err(error) => Answer::Error(format!("not a request: {error}")),
        Ok(request) => ask(request, server),
    };
    write_answer(stream, &answer)
}

pub(super) fn write_answer(mut stream: &UnixStream, answer: &Answer) -> std::io::Result<()> {
    let mut text = serde_json::to_string(answer)?;
    text.push('\n');
    stream.write_all(text.as_bytes())
}

fn ask(request: Request, server: &ServerHandle) -> Answer {
    let (sender, receiver) = channel();
    server.send(match request {
        Request::Register(registration) => match Prepared::new(registration) {
            Ok(prepared) => Message::Register(Box::new(prepared), sender),
            Err(reason) => return Answer::Error(reason),
        },
        other => Message::Admin(other, sender),
    });
    receiver
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Answer::Error("masqd is busy; try again".into()))
}

impl Server {
    pub(super) fn answer(&mut self, request: &Request) -> Answer {
        match request {
            Request::Overview => Answer::Overview(Box::new(self.overview())),
            Request::Session { id } => {
                let world = &self.world;
                let found = self
                    .conns
                    .iter_mut()
                    .filter_map(|(_, conn)| conn.session_mut())
                    .find(|session| session.id == *id);
                match found {
                    Some(session) => Answer::Detail(vec![session.detail(world)], None),
                    None => Answer::Error(format!(
                        "there is no session {id}; `masq ps` lists those there are"
                    )),
                }
            }
            Request::Endpoint { endpoint } => {
                let id = endpoint.parse::<EndpointId>().ok();
                let Some(id) = id.filter(|id| self.world.policy.endpoint(id).is_some()) else {
                    return Answer::Error(format!("the policy has no endpoint {endpoint}"));
                };
                let report = self.endpoint_report(&id);
                let world = &self.world;
                let sessions = self
                    .conns
                    .iter_mut()
                    .filter_map(|(_, conn)| conn.session_mut())
                    .filter(|session| session.endpoint == id)
                    .map(|session| session.detail(world))
                    .collect();
                Answer::Detail(sessions, Some(report))
            }
            Request::Reload => Answer::Error("a reload is answered later".into()),
            Request::Register(_) => Answer::Error("a registration is answered later".into()),
            Request::Unregister { container, pid } => {
                Answer::Unregistered(self.unregister_by_id(container, *pid))
            }
            Request::Capture { .. } => Answer::Error("a capture has a connection".into()),
            Request::Containers => Answer::Containers(self.containers.reports(&self.world.policy)),
        }
    }

    fn overview(&self) -> Overview {
        let ids = self
            .world
            .policy
            .endpoints()
            .map(|endpoint| endpoint.id().clone());
        let mut sessions: Vec<_> = self
            .conns
            .iter()
            .filter_map(|(_, c)| c.session())
            .map(|s| s.report(&self.world))
            .collect();
        sessions.sort_by_key(|session| session.id);
        Overview {
            version: VERSION.to_owned(),
            pid: std::process::id(),
            device: self
                .world
                .devices
                .names()
                .next()
                .unwrap_or_default()
                .to_owned(),
            devices: self.device_reports(),
            policy_file: self.config.policy_file.display().to_string(),
            endpoints: ids.map(|id| self.endpoint_report(&id)).collect(),
            sessions,
            refusals_total: self.world.refusals.counts(),
            hosts: self.hosts_report(),
        }
    }

    fn device_reports(&self) -> Vec<DeviceReport> {
        let World {
            policy, devices, ..
        } = &self.world;
        let tenants_on = |on: DeviceId| {
            let names = policy.tenants().map(|tenant| tenant.name());
            let there = names.filter(|name| devices.of(policy, name) == on);
            there.map(ToString::to_string).collect()
        };
        let reports = devices.iter().map(|(on, device)| DeviceReport {
            name: device.name().to_owned(),
            data_path: device.data_path().to_string(),
            reaches_hosts: device.network().is_some(),
            tenants: tenants_on(on),
        });
        reports.collect()
    }

    /// `None` if this host is the only one.
    fn hosts_report(&self) -> Option<HostsReport> {
        let this = self.world.this.as_ref()?;
        let policy = &self.world.policy;
        let state = self.world.directory.state();
        let conflicts = state.conflicts.into_iter().map(|conflict| ConflictReport {
            endpoint: conflict.wanted_by.to_string(),
            address: conflict.slot.address,
            host: conflict.host,
            holder: EndpointId::new(conflict.slot.tenant, conflict.endpoint).to_string(),
        });
        let ignored = self.world.view.entries().filter_map(|(slot, entry)| {
            let reason = self.world.view.judge(policy, &slot)?.to_string();
            Some(IgnoredReport {
                endpoint: EndpointId::new(slot.tenant, entry.endpoint.clone()).to_string(),
                address: slot.address,
                host: entry.host,
                reason,
            })
        });
        let names = policy.hosts();
        let wires = self.wire_reports();
        let mut wire = WireReport::default();
        wires.values().for_each(|one| wire.add(one));
        Some(HostsReport {
            this: Some(this.address),
            names: names
                .map(|host| (host.name().to_string(), host.address()))
                .collect(),
            directory: DirectoryReport {
                kind: state.kind.to_owned(),
                place: state.place,
                away_seconds: state.away_seconds,
                error: state.error,
                entries: state.entries as u64,
                claims: state.claims as u64,
                conflicts: conflicts.collect(),
                ignored: ignored.collect(),
                malformed_total: state.malformed_total,
                losses_total: state.losses_total,
            },
            wire,
            wires,
        })
    }

    fn wire_reports(&self) -> BTreeMap<String, WireReport> {
        let devices = self.world.devices.iter();
        let reports = devices.filter_map(|(on, device)| {
            let counted = device.network()?.report();
            Some((device.name().to_owned(), self.wire_report(on, counted)))
        });
        reports.collect()
    }

    /// What a device counted, and what control did.
    fn wire_report(&self, on: DeviceId, counted: masq_device::WireReport) -> WireReport {
        let named = |reasons: BTreeMap<&str, u64>| -> BTreeMap<String, u64> {
            let reasons = reasons.into_iter();
            reasons.map(|(name, n)| (name.to_owned(), n)).collect()
        };
        let mut dropped = named(counted.dropped);
        let underlay = self.world.underlay.get(&on).copied().unwrap_or_default();
        let UnderlayCounters { unknown, misplaced } = underlay;
        dropped.insert("unknown_management".to_owned(), unknown);
        dropped.insert("misplaced".to_owned(), misplaced);
        WireReport {
            sent_packets: counted.sent_packets,
            sent_bytes: counted.sent_bytes,
            received_packets: counted.received_packets,
            received_bytes: counted.received_bytes,
            not_sent: named(counted.not_sent),
            dropped,
        }
    }

    fn endpoint_report(&self, id: &EndpointId) -> EndpointReport {
        let policy = &self.world.policy;
        let tenant = policy.tenant(id.tenant().as_str());
        let quotas: BTreeMap<String, QuotaUse> = Kind::ALL
            .iter()
            .map(|kind| {
                let (used, tenant_used) = self.world.ledger.used(id, *kind);
                let limit = kind.limit(policy.quotas(id));
                let tenant_limit = tenant.map_or(0, |t| kind.limit(t.quotas()));
                (
                    kind.key().to_owned(),
                    QuotaUse {
                        used,
                        limit,
                        tenant_used,
                        tenant_limit,
                    },
                )
            })
            .collect();
        let endpoint = policy.endpoint(id);
        let in_container = self.containers.of(id).map(|container| container.socket());
        let host = endpoint.and_then(|endpoint| self.world.host_of(endpoint));
        let may_be_here = endpoint.is_some_and(|endpoint| self.world.may_live_here(endpoint));
        let socket = match in_container {
            Some(socket) => socket,
            None if may_be_here => self.endpoints.path(id),
            None => PathBuf::new(),
        };
        EndpointReport {
            endpoint: id.to_string(),
            address: endpoint
                .and_then(|e| e.address())
                .map(|address| address.to_string())
                .unwrap_or_default(),
            class: endpoint.and_then(|e| e.class()).map(ToString::to_string),
            addresses: endpoint
                .map(|e| e.addresses().iter().map(|a| a.ip()).collect())
                .unwrap_or_default(),
            host,
            outside: endpoint.is_some_and(Endpoint::is_outside),
            device: self.world.carrier(id).name().to_owned(),
            data_path: self.world.carrier(id).data_path().to_string(),
            socket: socket.display().to_string(),
            quotas,
            refusals: self.world.refusals.latest(id),
        }
    }
}
