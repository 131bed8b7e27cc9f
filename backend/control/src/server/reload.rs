//! Reloading the policy: checked whole or refused.

use super::{Message, Server};
use masq_admin::{Answer, ReloadReport};
use masq_directory::LocalHost;
use masq_policy::Policy;
use std::sync::mpsc::Sender;

impl Server {
    /// Reads and checks the file in a thread of its own: a large policy takes
    /// longer than tenants should wait.
    pub(super) fn begin_reload(&mut self, answer: Option<Sender<Answer>>) {
        let (path, handle) = (self.config.policy_file.clone(), self.handle());
        let read = move || {
            let name = path.display().to_string();
            let parsed = match std::fs::read_to_string(&path) {
                Ok(text) => Policy::parse(&name, &text).map_err(|errors| errors.to_string()),
                Err(error) => Err(format!("{name}: {error}")),
            };
            handle.send(Message::Parsed(Box::new(parsed), answer));
        };
        if let Err(error) = std::thread::Builder::new()
            .name("masq-policy".into())
            .spawn(read)
        {
            tracing::error!(%error, "the policy was not read again");
        }
    }

    pub(super) fn finish_reload(
        &mut self,
        parsed: Result<Policy, String>,
        answer: Option<Sender<Answer>>,
    ) {
        let result = parsed.and_then(|policy| self.apply(policy));
        let reply = match result {
            Ok(report) => {
                tracing::info!(
                    changes = report.changes.len(),
                    connections_cut = report.connections_cut,
                    sessions_closed = report.sessions_closed,
                    "policy reloaded"
                );
                Answer::Reloaded(report)
            }
            Err(error) => {
                tracing::error!(%error, "the policy was refused; the old one stays in force");
                Answer::Error(error)
            }
        };
        if let Some(answer) = answer {
            let _ = answer.send(reply);
        }
    }

    fn apply(&mut self, mut policy: Policy) -> Result<ReloadReport, String> {
        if self.deadline.is_some() {
            return Err("masqd is stopping".into());
        }
        let (devices, this) = (&self.world.devices, self.world.this.as_ref());
        LocalHost::check(this, &policy).map_err(|e| e.to_string())?;
        devices.check(&policy, this).map_err(|e| e.to_string())?;
        let without_place = self.carry_over(&mut policy);
        self.bring_view(&mut policy);
        let diff = Policy::diff(&self.world.policy, &policy);
        let mut report = ReloadReport::default();
        self.endpoints
            .update(&policy, self.world.this.as_ref(), &self.epoll)
            .map_err(|e| e.to_string())?;
        super::limits::compare(&policy, &self.world.devices, self.world.this.as_ref());
        let moves = self.world.moves(&policy);
        self.world.set_policy(policy);
        if let Some(tell) = &self.on_policy {
            tell(&self.world.policy);
        }
        for (ids, what) in [
            (&diff.classes_added, "added"),
            (&diff.classes_removed, "removed"),
            (&diff.classes_changed, "changed"),
        ] {
            let words = ids
                .iter()
                .map(|id| format!("endpoints {id} of containers {what}"));
            report.changes.extend(words);
        }
        for tenant in &diff.places_changed {
            report.changes.push(format!(
                "containers or addresses of tenant {tenant} changed"
            ));
        }
        for id in &diff.endpoints_added {
            report.changes.push(format!("endpoint {id} added"));
        }
        for id in &diff.endpoints_removed {
            report.changes.push(format!("endpoint {id} removed"));
        }
        for change in &diff.endpoints_changed {
            report
                .changes
                .push(format!("endpoint {} changed", change.endpoint));
        }
        for tenant in &diff.rules_changed {
            report
                .changes
                .push(format!("rules of tenant {tenant} changed"));
        }
        for host in &diff.hosts_changed {
            report.changes.push(format!("host {host} changed"));
        }
        for tenant in &diff.partitions_changed {
            report
                .changes
                .push(format!("partition of tenant {tenant} changed"));
        }
        for (tenant, (before, after)) in &moves {
            report.changes.push(format!(
                "tenant {tenant} is on the device {after}, not {before} any more"
            ));
        }
        // A program cannot be given another address while it runs, or another partition or
        // device.
        let policy = &self.world.policy;
        let moved = |id: &masq_policy::EndpointId| {
            diff.endpoints_removed.contains(id)
                || diff.partitions_changed.contains(id.tenant())
                || moves.contains_key(id.tenant())
                || policy
                    .endpoint(id)
                    .is_some_and(|e| !self.world.may_live_here(e))
                || diff
                    .endpoints_changed
                    .iter()
                    .any(|c| c.endpoint == *id && c.addresses)
        };
        let gone: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, conn)| moved(conn.endpoint()))
            .map(|(index, _)| index)
            .collect();
        for index in gone {
            let conn = self.conns.get(index);
            report.sessions_closed += u64::from(conn.is_some_and(|c| c.session().is_some()));
            let reason = match conn.is_some_and(|c| moves.contains_key(c.endpoint().tenant())) {
                true => "the policy gave its tenant another device",
                false => "the policy took its endpoint or address away",
            };
            self.close(index, reason);
        }
        for (key, reason) in without_place {
            self.unregister(key, &reason);
        }
        for change in diff.endpoints_changed.iter().filter(|c| c.addresses) {
            self.write_addresses(&change.endpoint);
        }
        self.world.forget_moved();
        report.connections_cut += self.world.recheck_connections();
        for (_, conn) in &mut self.conns {
            if let Some(session) = conn.session_mut() {
                report.connections_cut += session.recheck(&mut self.world);
            }
        }
        self.world.forget_senders();
        self.announce_all();
        Ok(report)
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
