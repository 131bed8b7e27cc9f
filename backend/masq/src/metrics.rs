//! `masq metrics`: masqd's reports in the text format of Prometheus.

use crate::output::Output;
use crate::{CliError, ps};
use masq_admin::{DirectoryReport, Overview, WireReport};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::process::ExitCode;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Endpoint {
    tenant: String,
    endpoint: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Quota {
    tenant: String,
    endpoint: String,
    quota: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refusal {
    tenant: String,
    endpoint: String,
    verb: String,
    rule: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Device {
    device: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Path {
    device: String,
    data_path: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    device: String,
    reason: String,
}

pub(crate) fn print(run_dir: &std::path::Path, out: &Output) -> Result<ExitCode, CliError> {
    out.line(&exposition(&ps::overview(run_dir)?))?;
    Ok(ExitCode::SUCCESS)
}

fn split(endpoint: &str) -> Endpoint {
    let (tenant, name) = endpoint.split_once('/').unwrap_or(("", endpoint));
    Endpoint {
        tenant: tenant.to_owned(),
        endpoint: name.to_owned(),
    }
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn exposition(overview: &Overview) -> String {
    let mut registry = Registry::with_prefix("masq");
    let info = Info::new(vec![
        ("version", overview.version.clone()),
        ("device", overview.device.clone()),
    ]);
    registry.register("build", "Version of masqd and its device", info);

    let tenants = Family::<Path, Gauge>::default();
    for device in &overview.devices {
        let labels = Path {
            device: device.name.clone(),
            data_path: device.data_path.clone(),
        };
        tenants
            .get_or_create(&labels)
            .set(gauge(device.tenants.len() as u64));
    }
    registry.register("device_tenants", "Tenants that are on the device", tenants);

    let sessions = Family::<Endpoint, Gauge>::default();
    let pinned = Family::<Endpoint, Gauge>::default();
    let commands = Family::<Endpoint, Gauge>::default();
    let used = Family::<Quota, Gauge>::default();
    let limit = Family::<Quota, Gauge>::default();
    for endpoint in &overview.endpoints {
        let labels = split(&endpoint.endpoint);
        sessions.get_or_create(&labels).set(0);
        pinned.get_or_create(&labels).set(0);
        for (quota, count) in &endpoint.quotas {
            let labels = Quota {
                tenant: labels.tenant.clone(),
                endpoint: labels.endpoint.clone(),
                quota: quota.clone(),
            };
            used.get_or_create(&labels).set(gauge(count.used));
            limit.get_or_create(&labels).set(gauge(count.limit));
        }
    }
    for session in &overview.sessions {
        let labels = split(&session.endpoint);
        sessions.get_or_create(&labels).inc();
        pinned
            .get_or_create(&labels)
            .inc_by(gauge(session.pinned_bytes));
        commands
            .get_or_create(&labels)
            .inc_by(gauge(session.commands_total));
    }
    let refusals = Family::<Refusal, Counter>::default();
    for refusal in &overview.refusals_total {
        let labels = Refusal {
            tenant: refusal.tenant.clone(),
            endpoint: refusal.endpoint.clone(),
            verb: refusal.verb.clone(),
            rule: refusal.rule.clone(),
        };
        refusals.get_or_create(&labels).inc_by(refusal.count);
    }
    registry.register("sessions", "Open sessions", sessions);
    registry.register_with_unit("registered", "Registered memory", Unit::Bytes, pinned);
    registry.register(
        "session_commands",
        "Control commands served for the sessions that are open",
        commands,
    );
    registry.register("quota_used", "Used of the quota of the endpoint", used);
    registry.register("quota_limit", "Quota of the endpoint", limit);
    registry.register("refusals", "Refused commands", refusals);
    if let Some(hosts) = &overview.hosts {
        directory(&mut registry, &hosts.directory);
        wire(&mut registry, &hosts.wires);
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

fn directory(registry: &mut Registry, report: &DirectoryReport) {
    let mut add = |name: &str, help: &str, value: u64| {
        let metric = Gauge::<i64>::default();
        metric.set(gauge(value));
        registry.register(name, help, metric);
    };
    let up = u64::from(report.away_seconds.is_none());
    add("directory_up", "Whether the directory can be reached", up);
    let away = report.away_seconds.unwrap_or(0);
    add("directory_away_seconds", "For how long it cannot", away);
    let help = "Addresses of other hosts that are known";
    add("directory_entries", help, report.entries);
    let help = "Addresses of this host that are registered";
    add("directory_claims", help, report.claims);
    let help = "Addresses of this host that another registered first";
    add("directory_conflicts", help, report.conflicts.len() as u64);
    let help = "Entries that the policy does not allow";
    add("directory_ignored", help, report.ignored.len() as u64);
    for (name, help, value) in [
        (
            "directory_malformed",
            "Entries that made no sense",
            report.malformed_total,
        ),
        (
            "directory_losses",
            "Times that it was lost",
            report.losses_total,
        ),
    ] {
        let metric = Counter::<u64>::default();
        metric.inc_by(value);
        registry.register(name, help, metric);
    }
}

fn wire(registry: &mut Registry, reports: &BTreeMap<String, WireReport>) {
    type Count = fn(&WireReport) -> u64;
    let rows: [(&str, &str, Count); 4] = [
        ("wire_sent_packets", "Packets sent to other hosts", |r| {
            r.sent_packets
        }),
        (
            "wire_received_packets",
            "Packets received from other hosts",
            |r| r.received_packets,
        ),
        ("wire_sent_bytes", "Bytes sent, from BTH to ICRC", |r| {
            r.sent_bytes
        }),
        (
            "wire_received_bytes",
            "Bytes received, from BTH to ICRC",
            |r| r.received_bytes,
        ),
    ];
    for (name, help, count) in rows {
        let family = Family::<Device, Counter>::default();
        for (device, report) in reports {
            let device = device.clone();
            let metric = family.get_or_create(&Device { device });
            metric.inc_by(count(report));
        }
        registry.register(name, help, family);
    }
    type Reasons = fn(&WireReport) -> &BTreeMap<String, u64>;
    let rows: [(&str, &str, Reasons); 2] = [
        ("wire_not_sent", "Packets that were not sent", |r| {
            &r.not_sent
        }),
        (
            "wire_dropped",
            "Packets that were dropped on arrival",
            |r| &r.dropped,
        ),
    ];
    for (name, help, reasons) in rows {
        let family = Family::<Reason, Counter>::default();
        for (device, report) in reports {
            for (reason, count) in reasons(report) {
                let (device, reason) = (device.clone(), reason.clone());
                let metric = family.get_or_create(&Reason { device, reason });
                metric.inc_by(*count);
            }
        }
        registry.register(name, help, family);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_admin::{
        DeviceReport, EndpointReport, HostsReport, QuotaUse, RefusalCount, SessionReport,
    };

    #[test]
    fn sessions_quotas_and_refusals_have_their_labels() {
        let quota = QuotaUse {
            used: 3,
            limit: 128,
            ..Default::default()
        };
        let overview = Overview {
            devices: vec![DeviceReport {
                name: "soft".into(),
                data_path: "direct copy".into(),
                tenants: vec!["blue".into(), "red".into()],
                ..Default::default()
            }],
            endpoints: vec![EndpointReport {
                endpoint: "blue/a".into(),
                quotas: [("qps".to_owned(), quota)].into(),
                ..Default::default()
            }],
            sessions: vec![SessionReport {
                endpoint: "blue/a".into(),
                pinned_bytes: 4096,
                ..Default::default()
            }],
            refusals_total: vec![RefusalCount {
                tenant: "red".into(),
                endpoint: "b".into(),
                verb: "modify_qp".into(),
                rule: "default deny".into(),
                count: 5,
            }],
            hosts: Some(HostsReport {
                directory: DirectoryReport {
                    away_seconds: Some(7),
                    malformed_total: 2,
                    ..Default::default()
                },
                wires: [(
                    "soft".to_owned(),
                    WireReport {
                        sent_packets: 11,
                        dropped: [("bad_icrc".to_owned(), 2)].into(),
                        ..Default::default()
                    },
                )]
                .into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = exposition(&overview);
        for line in [
            "masq_directory_up 0",
            "masq_directory_away_seconds 7",
            "masq_directory_malformed_total 2",
            "masq_sessions{tenant=\"blue\",endpoint=\"a\"} 1",
            "masq_registered_bytes{tenant=\"blue\",endpoint=\"a\"} 4096",
            "masq_quota_used{tenant=\"blue\",endpoint=\"a\",quota=\"qps\"} 3",
            "masq_quota_limit{tenant=\"blue\",endpoint=\"a\",quota=\"qps\"} 128",
            "masq_refusals_total{tenant=\"red\",endpoint=\"b\",verb=\"modify_qp\",rule=\"default deny\"} 5",
            "# TYPE masq_refusals counter",
            "masq_device_tenants{device=\"soft\",data_path=\"direct copy\"} 2",
            "masq_wire_sent_packets_total{device=\"soft\"} 11",
            "masq_wire_dropped_total{device=\"soft\",reason=\"bad_icrc\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
