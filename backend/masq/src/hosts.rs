//! `masq hosts`: the hosts, what lives on each, and how the directory fares.

use crate::output::{BAD, DIM, GOOD, HEAD, Output, WARN, age, printable, table};
use crate::{CliError, ps};
use masq_admin::{DirectoryReport, EndpointReport, HostsReport, Overview, WireReport};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

/// Endpoints of a host that are named; the others are counted.
const NAMED: usize = 20;

pub(crate) fn print(run_dir: &Path, out: &Output) -> Result<ExitCode, CliError> {
    let overview = ps::overview(run_dir)?;
    let endpoints: BTreeMap<_, _> = overview
        .endpoints
        .iter()
        .map(|endpoint| (&endpoint.endpoint, endpoint.host))
        .collect();
    let value = serde_json::json!({ "hosts": overview.hosts, "endpoints": endpoints });
    out.emit(&value, || render(&overview))?;
    Ok(ExitCode::SUCCESS)
}

/// The host where an endpoint lives, in words; `None` if it lives here.
pub(crate) fn place(overview: &Overview, endpoint: &EndpointReport) -> Option<String> {
    let host = endpoint.host?;
    let hosts = overview.hosts.as_ref();
    let call = hosts.map_or_else(|| host.to_string(), |hosts| hosts.call(host));
    Some(match endpoint.outside {
        true => format!("is the host {host} itself, which no masqd watches over"),
        false => format!("lives on host {call}"),
    })
}

fn render(overview: &Overview) -> String {
    let Some(hosts) = &overview.hosts else {
        return format!(
            "this host is the only one\n{DIM}several: name them under `hosts` of the policy, and \
             start masqd with --host{DIM:#}"
        );
    };
    let mut out = listed(overview, hosts);
    directory(&mut out, hosts);
    for (device, report) in &hosts.wires {
        // Of one device there is nothing to tell.
        let name = Some(device.as_str()).filter(|_| overview.devices.len() > 1);
        wire(&mut out, name, report);
    }
    let local = overview.devices.iter().filter(|d| !d.reaches_hosts);
    for device in local.filter(|d| !d.tenants.is_empty()) {
        let _ = write!(
            out,
            "\n\n{HEAD}device {}{HEAD:#}  {WARN}reaches this host only{WARN:#}: tenants {}",
            device.name,
            device.tenants.join(" ")
        );
    }
    out
}

/// What went over the wire; of reasons only those that there were.
fn wire(out: &mut String, device: Option<&str>, report: &WireReport) {
    let device = device.map_or(String::new(), |device| format!(" of {device}"));
    let _ = write!(
        out,
        "\n\n{HEAD}packets{device}{HEAD:#}  {} sent, {} received",
        report.sent_packets, report.received_packets
    );
    for (what, reasons) in [("not sent", &report.not_sent), ("dropped", &report.dropped)] {
        let reasons = reasons.iter().filter(|(_, count)| **count > 0);
        let words: Vec<_> = reasons
            .map(|(reason, count)| format!("{count} {}", reason.replace('_', " ")))
            .collect();
        if !words.is_empty() {
            let _ = write!(out, "\n{WARN}{what}{WARN:#}  {}", words.join(", "));
        }
    }
}

fn listed(overview: &Overview, hosts: &HostsReport) -> String {
    let this = hosts.this;
    let mut lives: BTreeMap<IpAddr, (Vec<&str>, bool)> = BTreeMap::new();
    for address in hosts.names.values().copied().chain(this) {
        lives.entry(address).or_default();
    }
    for endpoint in &overview.endpoints {
        if let Some(host) = endpoint.host.or(this) {
            let (names, outside) = lives.entry(host).or_default();
            names.push(&endpoint.endpoint);
            *outside |= endpoint.outside;
        }
    }
    let rows = lives.into_iter().map(|(address, (endpoints, outside))| {
        let name = hosts.names.iter().find(|(_, has)| **has == address);
        let what = match (Some(address) == this, outside) {
            (true, _) => "this host",
            (_, true) => "outside",
            _ => "",
        };
        let more = endpoints.len().saturating_sub(NAMED);
        let mut list: Vec<_> = endpoints
            .iter()
            .take(NAMED)
            .map(|e| (*e).to_owned())
            .collect();
        if more > 0 {
            list.push(format!("and {more} more"));
        }
        let list = match list.as_slice() {
            [] => "-".to_owned(),
            list => list.join(" "),
        };
        vec![
            name.map_or("-".to_owned(), |(name, _)| name.clone()),
            address.to_string(),
            what.to_owned(),
            list,
        ]
    });
    table(&["HOST", "ADDRESS", "", "ENDPOINTS"], rows.collect())
}

fn directory(out: &mut String, hosts: &HostsReport) {
    let directory = &hosts.directory;
    let DirectoryReport { kind, place, .. } = directory;
    let _ = write!(out, "\n\n{HEAD}directory{HEAD:#}  ");
    if kind == "embedded" {
        let _ = write!(
            out,
            "the policy{DIM}: an endpoint without `host` is known to its own host only; \
             --directory etcd://… tells the others{DIM:#}"
        );
        return;
    }
    match directory.away_seconds {
        None => {
            let _ = write!(out, "{place}  {GOOD}ok{GOOD:#}");
        }
        Some(seconds) => {
            let error = directory.error.as_deref().unwrap_or("no answer");
            let _ = write!(
                out,
                "{place}  {BAD}away{BAD:#} for {}: {}\n{DIM}what was known then goes on \
                 counting{DIM:#}",
                age(seconds),
                printable(error)
            );
        }
    }
    let _ = write!(
        out,
        "\n  {} addresses of other hosts, {} of this one, {} malformed entries, lost {} times",
        directory.entries, directory.claims, directory.malformed_total, directory.losses_total
    );
    for conflict in &directory.conflicts {
        let _ = write!(
            out,
            "\n{WARN}conflict{WARN:#}  {} of {} is {} on {} for other hosts, which registered \
             first",
            conflict.address,
            conflict.endpoint,
            conflict.holder,
            hosts.call(conflict.host)
        );
    }
    for ignored in &directory.ignored {
        let _ = write!(
            out,
            "\n{WARN}ignored{WARN:#}  {} on {} with {}: {}",
            ignored.endpoint,
            hosts.call(ignored.host),
            ignored.address,
            ignored.reason
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_admin::{ConflictReport, DeviceReport, IgnoredReport};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn text(overview: &Overview) -> String {
        anstream::adapter::strip_str(&render(overview)).to_string()
    }

    fn overview() -> Overview {
        let endpoint = |name: &str, host: Option<&str>, outside| EndpointReport {
            endpoint: name.into(),
            host: host.map(ip),
            outside,
            ..Default::default()
        };
        Overview {
            endpoints: vec![
                endpoint("blue/a", None, false),
                endpoint("blue/b", Some("192.0.2.2"), false),
                endpoint("red/filer", Some("192.0.2.9"), true),
            ],
            hosts: Some(HostsReport {
                this: Some(ip("192.0.2.1")),
                names: [("alpha", "192.0.2.1"), ("beta", "192.0.2.2")]
                    .map(|(name, address)| (name.to_owned(), ip(address)))
                    .into(),
                directory: DirectoryReport {
                    kind: "etcd".into(),
                    place: "etcd://e:2379/masq".into(),
                    ..Default::default()
                },
                wires: [(
                    "soft".to_owned(),
                    WireReport {
                        sent_packets: 7,
                        received_packets: 9,
                        dropped: [("bad_icrc".to_owned(), 2), ("overrun".to_owned(), 0)].into(),
                        ..Default::default()
                    },
                )]
                .into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn each_host_has_a_line_with_what_lives_there() {
        let text = text(&overview());
        let lines: Vec<Vec<_>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["alpha", "192.0.2.1", "this", "host", "blue/a"]);
        assert_eq!(lines[2], ["beta", "192.0.2.2", "blue/b"]);
        assert_eq!(lines[3], ["-", "192.0.2.9", "outside", "red/filer"]);
        assert!(text.contains("etcd://e:2379/masq  ok"), "{text}");
    }

    #[test]
    fn what_is_wrong_with_the_directory_is_said() {
        let mut overview = overview();
        let directory = &mut overview.hosts.as_mut().unwrap().directory;
        directory.away_seconds = Some(61);
        directory.error = Some("refused\x1b".into());
        directory.conflicts.push(ConflictReport {
            endpoint: "blue/x".into(),
            address: ip("10.0.0.7"),
            host: ip("192.0.2.2"),
            holder: "blue/y".into(),
        });
        directory.ignored.push(IgnoredReport {
            endpoint: "green/z".into(),
            address: ip("10.0.0.8"),
            host: ip("192.0.2.7"),
            reason: "the policy has no such tenant".into(),
        });
        let text = text(&overview);
        for part in [
            "away for 1m 1s: refused?",
            "goes on counting",
            "10.0.0.7 of blue/x is blue/y on beta (192.0.2.2) for other hosts",
            "green/z on 192.0.2.7 with 10.0.0.8: the policy has no such tenant",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn packets_that_were_dropped_are_counted_by_the_reason() {
        let text = text(&overview());
        assert!(text.contains("packets  7 sent, 9 received"), "{text}");
        assert!(text.contains("dropped  2 bad icrc\n") || text.ends_with("dropped  2 bad icrc"));
        assert!(!text.contains("not sent"), "{text}");
    }

    #[test]
    fn packets_are_counted_by_the_device_if_there_are_several() {
        let device = |name: &str, reaches_hosts| DeviceReport {
            name: name.into(),
            reaches_hosts,
            tenants: vec!["red".into()],
            ..Default::default()
        };
        let mut overview = overview();
        overview.devices = vec![
            device("soft", true),
            device("siw0", true),
            device("rxe0", false),
        ];
        let report = WireReport {
            sent_packets: 3,
            ..Default::default()
        };
        let hosts = overview.hosts.as_mut().unwrap();
        hosts.wires.insert("siw0".into(), report);
        let text = text(&overview);
        for part in [
            "packets of soft  7 sent, 9 received",
            "packets of siw0  3 sent, 0 received",
            "device rxe0  reaches this host only: tenants red",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_single_host_is_told_how_there_are_several() {
        let text = text(&Overview::default());
        assert!(text.contains("--host"), "{text}");
    }

    #[test]
    fn a_place_is_said_in_words() {
        let overview = overview();
        let words: Vec<_> = overview
            .endpoints
            .iter()
            .map(|e| place(&overview, e))
            .collect();
        assert_eq!(words[0], None);
        assert_eq!(words[1].as_deref(), Some("lives on host beta (192.0.2.2)"));
        assert!(words[2].as_ref().unwrap().contains("no masqd"));
    }
}
