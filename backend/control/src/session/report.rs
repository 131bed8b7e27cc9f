//! What `masq ps` and `masq show` tell of a session.

use super::Session;
use crate::fabric::service;
use crate::ledger::Kind;
use crate::world::World;
use masq_admin::{
    CmIdReport, CqReport, MrReport, PeerReport, QpReport, SessionDetail, SessionReport,
};
use masq_spec::verbs::State;

impl Session {
    pub(crate) fn report(&self, world: &World) -> SessionReport {
        let objects = [
            ("pds", self.pds.len()),
            ("mrs", self.mrs.len()),
            ("mws", self.mws.len()),
            ("cqs", self.cqs.len()),
            ("srqs", self.srqs.len()),
            ("qps", self.qps.len()),
            ("ahs", self.ahs.len()),
            ("cm_ids", world.fabric.count(&self.endpoint, self.id)),
        ];
        SessionReport {
            id: self.id,
            endpoint: self.endpoint.to_string(),
            pid: self.peer.pid,
            uid: self.peer.uid,
            program: self.program.clone(),
            frontend_version: self.frontend_version.clone(),
            device: self.carrier(world).name().to_owned(),
            data_path: self.carrier(world).data_path().to_string(),
            age_seconds: self.opened.elapsed().as_secs(),
            objects: objects
                .map(|(kind, count)| (kind.to_owned(), count as u64))
                .into(),
            pinned_bytes: self.charged.get(Kind::PinnedBytes),
            commands_total: self.commands,
        }
    }

    pub(crate) fn detail(&mut self, world: &World) -> SessionDetail {
        let handles: Vec<_> = self.qps.iter().map(|(handle, _)| handle).collect();
        let queue_pairs = handles
            .into_iter()
            .filter_map(|h| self.qp_report(world, h))
            .collect();
        let completion_queues = self
            .cqs
            .iter()
            .map(|(handle, cq)| CqReport {
                handle,
                cqe: cq.cqe,
                event_queue: cq.event_queue,
            })
            .collect();
        let memory_regions = self
            .mrs
            .iter()
            .map(|(handle, mr)| MrReport {
                handle,
                addr: mr.addr,
                len: mr.len,
                access: mr.access.bits(),
                remote_bytes: mr.remote_bytes,
            })
            .collect();
        SessionDetail {
            session: self.report(world),
            queue_pairs,
            completion_queues,
            memory_regions,
            cm_ids: self.cm_reports(world),
        }
    }

    fn cm_reports(&self, world: &World) -> Vec<CmIdReport> {
        let views = world.fabric.views(&self.endpoint);
        let mine = views.iter().filter(|view| view.owner == self.id);
        let mut reports: Vec<_> = mine
            .map(|view| CmIdReport {
                id: view.id,
                state: view.state.to_owned(),
                service: service(view.port_space, view.port).to_string(),
                source: view.source.to_string(),
                destination: view.destination.map(|to| to.to_string()),
                initiator: view.initiator,
                qpn: view.local_qpn,
                peer_qpn: view.remote_qpn,
            })
            .collect();
        reports.sort_by_key(|report| report.id);
        reports
    }

    fn qp_report(&mut self, world: &World, handle: u32) -> Option<QpReport> {
        let report = self.device.query_qp(handle).ok()?;
        let qp = self.qps.get(handle)?;
        let peer = qp.connection.as_ref().map(|connection| {
            let tenant = world.policy.tenant(self.endpoint.tenant().as_str());
            let name = tenant.and_then(|t| t.endpoint_at(connection.to));
            PeerReport {
                endpoint: name.map(|e| e.id().to_string()).unwrap_or_default(),
                address: connection.to.to_string(),
                host: name.and_then(|e| world.host_of(e)),
                qpn: connection.qpn,
                rule: connection.rule.clone(),
            }
        });
        let c = &report.counters;
        let counters = [
            ("tx_messages", c.tx_messages),
            ("tx_bytes", c.tx_bytes),
            ("rx_messages", c.rx_messages),
            ("rx_bytes", c.rx_bytes),
            ("rnr_waits", c.rnr_waits),
            ("retries", c.retries),
            ("remote_errors", c.remote_errors),
            ("dropped", c.dropped),
        ];
        let state = State::from_raw(report.attr.qp_state).unwrap_or_default();
        Some(QpReport {
            handle,
            qpn: report.qpn,
            qp_type: format!("{:?}", report.qp_type).to_uppercase(),
            state: format!("{state:?}").to_uppercase(),
            cause: report.cause.map(str::to_owned),
            peer,
            send_queue: report.send_queue,
            counters: counters
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        })
    }
}
