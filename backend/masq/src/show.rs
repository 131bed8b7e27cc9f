//! `masq show`: one session or one endpoint, with everything it holds.

use crate::CliError;
use crate::cli::ShowArgs;
use crate::output::{BAD, DIM, GOOD, HEAD, Output, WARN, age, bytes, printable, table};
use crate::ps;
use masq_admin::{Answer, EndpointReport, QpReport, Refusal, Request, SessionDetail};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn print(run_dir: &Path, args: &ShowArgs, out: &Output) -> Result<ExitCode, CliError> {
    let request = request(&args.what)?;
    let (sessions, endpoint) = match masq_admin::call(run_dir, &request)? {
        Answer::Detail(sessions, endpoint) => (sessions, endpoint),
        _ => return Err(CliError::WrongAnswer),
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let value = serde_json::json!({ "sessions": sessions, "endpoint": endpoint });
    out.emit(&value, || render(&sessions, endpoint.as_ref(), now))?;
    Ok(ExitCode::SUCCESS)
}

fn request(what: &str) -> Result<Request, CliError> {
    if let Ok(id) = what.parse() {
        return Ok(Request::Session { id });
    }
    if what.contains('/') {
        return Ok(Request::Endpoint {
            endpoint: what.to_owned(),
        });
    }
    Err(CliError::Usage(format!(
        "`{what}` is neither the number of a session nor an endpoint TENANT/NAME\n  \
         `masq ps` lists the sessions"
    )))
}

fn render(sessions: &[SessionDetail], endpoint: Option<&EndpointReport>, now: u64) -> String {
    let mut out = String::new();
    if let Some(endpoint) = endpoint {
        head(&mut out, endpoint);
    }
    for detail in sessions {
        session(&mut out, detail);
    }
    if let Some(endpoint) = endpoint {
        if sessions.is_empty() && endpoint.host.is_none() {
            let _ = writeln!(
                out,
                "no sessions; start one: masq run --endpoint {} -- CMD\n",
                endpoint.endpoint
            );
        }
        quotas(&mut out, endpoint);
        refusals(&mut out, &endpoint.refusals, now);
    }
    out
}

fn head(out: &mut String, endpoint: &EndpointReport) {
    let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
    let addresses = if addresses.is_empty() {
        "none".to_owned()
    } else {
        addresses.join(" ")
    };
    let class = endpoint.class.as_deref();
    let class = class.map_or(String::new(), |class| {
        format!("  a container of class {class}")
    });
    let place = match (endpoint.host, endpoint.outside) {
        (None, _) => format!("{DIM}socket {}{DIM:#}", endpoint.socket),
        (Some(host), false) => format!("lives on host {host}; `masq hosts` lists them"),
        (Some(_), true) => "a host of its own that no masqd watches over".to_owned(),
    };
    let device = match (endpoint.host, endpoint.device.as_str()) {
        (Some(_), _) | (_, "") => String::new(),
        (None, device) => format!("device {device}, data path: {}\n", endpoint.data_path),
    };
    let _ = writeln!(
        out,
        "{HEAD}endpoint {}{HEAD:#}  address {addresses}{class}\n{place}\n{device}",
        endpoint.endpoint
    );
}

fn session(out: &mut String, detail: &SessionDetail) {
    let s = &detail.session;
    let _ = writeln!(
        out,
        "{HEAD}session {}{HEAD:#}  {}  pid {} uid {} {}  library {}  age {}\n\
         {} commands served, {} registered, objects: {}, device: {} ({})\n",
        s.id,
        s.endpoint,
        s.pid,
        s.uid,
        printable(&s.program),
        printable(&s.frontend_version),
        age(s.age_seconds),
        s.commands_total,
        bytes(s.pinned_bytes),
        ps::objects(&s.objects),
        s.device,
        s.data_path
    );
    for qp in &detail.queue_pairs {
        queue_pair(out, qp);
    }
    if !detail.completion_queues.is_empty() {
        let rows = detail.completion_queues.iter().map(|cq| {
            vec![
                cq.handle.to_string(),
                cq.cqe.to_string(),
                cq.event_queue
                    .map_or_else(|| "-".to_owned(), |q| q.to_string()),
            ]
        });
        out.push_str(&table(&[">CQ", ">ENTRIES", ">EVENT QUEUE"], rows.collect()));
        out.push('\n');
    }
    if !detail.cm_ids.is_empty() {
        let rows = detail.cm_ids.iter().map(|id| {
            let qp = |number: u32| match number {
                0 => "-".to_owned(),
                number => format!("{number:#08x}"),
            };
            let peer = id.destination.as_deref().unwrap_or("-");
            vec![
                id.id.to_string(),
                id.state.clone(),
                id.service.clone(),
                id.source.clone(),
                if id.initiator { "->" } else { "<-" }.to_owned(),
                peer.to_owned(),
                qp(id.qpn),
                qp(id.peer_qpn),
            ]
        });
        out.push_str(&table(
            &[
                ">CM ID", "STATE", "SERVICE", "LOCAL", "", "PEER", ">QP", ">PEER QP",
            ],
            rows.collect(),
        ));
        out.push('\n');
    }
    if !detail.memory_regions.is_empty() {
        let rows = detail.memory_regions.iter().map(|mr| {
            vec![
                mr.handle.to_string(),
                format!("{:#x}", mr.addr),
                bytes(mr.len),
                access(mr.access),
                if mr.remote_bytes == 0 {
                    "-".to_owned()
                } else {
                    bytes(mr.remote_bytes)
                },
            ]
        });
        out.push_str(&table(
            &[">MR", ">ADDRESS", ">LENGTH", "ACCESS", ">NOT MOVED"],
            rows.collect(),
        ));
        out.push('\n');
    }
}

fn queue_pair(out: &mut String, qp: &QpReport) {
    let style = match qp.state.as_str() {
        "RTS" => GOOD,
        "ERR" | "SQE" => BAD,
        _ => WARN,
    };
    let _ = write!(
        out,
        "qp {}  number {:#08x}  {}  {style}{}{style:#}",
        qp.handle, qp.qpn, qp.qp_type, qp.state
    );
    if let Some(cause) = &qp.cause {
        let _ = write!(out, " ({cause})");
    }
    out.push('\n');
    match &qp.peer {
        Some(peer) => {
            let host = peer
                .host
                .map_or(String::new(), |host| format!(" on host {host}"));
            let _ = writeln!(
                out,
                "    peer  {} {}{host} qp {:#08x}\n    rule  {}",
                peer.endpoint, peer.address, peer.qpn, peer.rule
            );
        }
        None if qp.qp_type == "UD" => {
            let _ = writeln!(out, "    peer  whoever its address handles name");
        }
        None => {
            let _ = writeln!(out, "    peer  none yet");
        }
    }
    let _ = writeln!(out, "    sends waiting  {}", qp.send_queue);
    let counters: Vec<_> = qp.counters.iter().filter(|(_, n)| **n > 0).collect();
    if !counters.is_empty() {
        let text: Vec<_> = counters.iter().map(|(k, n)| format!("{k} {n}")).collect();
        let _ = writeln!(out, "    counters  {}", text.join(", "));
    }
    out.push('\n');
}

fn quotas(out: &mut String, endpoint: &EndpointReport) {
    if endpoint.quotas.is_empty() {
        return;
    }
    let number = |name: &str, n: u64| {
        if name == "pinned" {
            bytes(n)
        } else {
            n.to_string()
        }
    };
    let rows = endpoint.quotas.iter().map(|(name, quota)| {
        let share =
            |used: u64, limit: u64| format!("{} of {}", number(name, used), number(name, limit));
        let full = quota.used >= quota.limit || quota.tenant_used >= quota.tenant_limit;
        vec![
            name.clone(),
            share(quota.used, quota.limit),
            share(quota.tenant_used, quota.tenant_limit),
            if full { "full" } else { "" }.to_owned(),
        ]
    });
    out.push_str(&table(
        &["QUOTA", ">ENDPOINT", ">TENANT", ""],
        rows.collect(),
    ));
    out.push('\n');
}

fn refusals(out: &mut String, refusals: &[Refusal], now: u64) {
    if refusals.is_empty() {
        out.push_str("no refusals\n");
        return;
    }
    let _ = writeln!(out, "{HEAD}latest refusals{HEAD:#}");
    for refusal in refusals {
        let _ = writeln!(
            out,
            "  {} ago  session {}  {} {}  {BAD}{}{BAD:#} by {}: {}",
            age(now.saturating_sub(refusal.time)),
            refusal.session,
            refusal.verb,
            printable(&refusal.object),
            errno_name(refusal.errno),
            refusal.rule,
            printable(&refusal.reason),
        );
    }
}

/// Names of the errnos that verbs define for refusals.
fn errno_name(errno: i32) -> String {
    match errno {
        libc::EPERM => "EPERM",
        libc::ENOMEM => "ENOMEM",
        libc::EINVAL => "EINVAL",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::ERANGE => "ERANGE",
        libc::EACCES => "EACCES",
        other => return format!("errno {other}"),
    }
    .to_owned()
}

/// `ibv_access_flags` as letters: local write, remote read, write, atomic, bind.
fn access(flags: u32) -> String {
    const NAMES: [(u32, &str); 6] = [
        (1, "local-write"),
        (1 << 2, "remote-read"),
        (1 << 1, "remote-write"),
        (1 << 3, "remote-atomic"),
        (1 << 4, "bind"),
        (1 << 5, "zero-based"),
    ];
    let names: Vec<_> = NAMES
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if names.is_empty() {
        "local-read".to_owned()
    } else {
        names.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_admin::{CmIdReport, PeerReport, QuotaUse, SessionReport};

    #[test]
    fn numbers_are_sessions_and_names_with_a_slash_are_endpoints() {
        assert_eq!(request("7").unwrap(), Request::Session { id: 7 });
        assert_eq!(
            request("blue/a").unwrap(),
            Request::Endpoint {
                endpoint: "blue/a".into()
            }
        );
        assert_eq!(request("blue").unwrap_err().exit_status(), 2);
    }

    #[test]
    fn a_detail_names_state_peer_rule_quota_and_refusal() {
        let detail = SessionDetail {
            session: SessionReport {
                device: "rxe0".into(),
                data_path: "relay".into(),
                ..Default::default()
            },
            queue_pairs: vec![QpReport {
                handle: 1,
                qpn: 0x11,
                qp_type: "RC".into(),
                state: "ERR".into(),
                cause: Some("policy changed".into()),
                peer: Some(PeerReport {
                    endpoint: "blue/b".into(),
                    address: "10.0.0.2".into(),
                    qpn: 0x12,
                    rule: "blue rule 1 \"a-and-b\"".into(),
                    host: None,
                }),
                ..Default::default()
            }],
            cm_ids: vec![CmIdReport {
                id: 1,
                state: "listening".into(),
                service: "rdma_cm/tcp/7471".into(),
                source: "10.0.0.1:7471".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let endpoint = EndpointReport {
            endpoint: "blue/a".into(),
            device: "rxe0".into(),
            data_path: "relay".into(),
            quotas: [(
                "pinned".to_owned(),
                QuotaUse {
                    used: 4096,
                    limit: 4096,
                    tenant_used: 4096,
                    tenant_limit: 8192,
                },
            )]
            .into(),
            refusals: vec![Refusal {
                time: 40,
                verb: "modify_qp".into(),
                rule: "default deny".into(),
                reason: "no rule allows blue/a to reach blue/c".into(),
                errno: 1,
                ..Default::default()
            }],
            ..Default::default()
        };
        let text = render(&[detail], Some(&endpoint), 100);
        let text = anstream::adapter::strip_str(&text).to_string();
        for part in [
            "device rxe0, data path: relay\n",
            "objects: -, device: rxe0 (relay)\n",
            "RC  ERR (policy changed)",
            "peer  blue/b 10.0.0.2 qp 0x000012",
            "rule  blue rule 1 \"a-and-b\"",
            "4 KiB of 4 KiB",
            "full",
            "1m 0s ago",
            "EPERM by default deny: no rule allows blue/a to reach blue/c",
            "listening",
            "rdma_cm/tcp/7471",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn an_endpoint_of_another_host_has_no_device_here() {
        let endpoint = EndpointReport {
            endpoint: "blue/b".into(),
            host: Some([192, 0, 2, 2].into()),
            device: "rxe0".into(),
            ..Default::default()
        };
        let text = render(&[], Some(&endpoint), 0);
        assert!(!text.contains("rxe0"), "{text}");
    }

    #[test]
    fn rights_are_named() {
        assert_eq!(access(0), "local-read");
        assert_eq!(access(7), "local-write remote-read remote-write");
    }
}
