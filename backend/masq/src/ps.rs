//! `masq ps`: the sessions of this host.

use crate::CliError;
use crate::output::{DIM, Output, age, bytes, printable, table};
use masq_admin::{Answer, Overview, Request};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Asks masqd for everything in short.
pub(crate) fn overview(run_dir: &Path) -> Result<Overview, CliError> {
    match masq_admin::call(run_dir, &Request::Overview)? {
        Answer::Overview(overview) => Ok(*overview),
        _ => Err(CliError::WrongAnswer),
    }
}

pub(crate) fn print(run_dir: &Path, out: &Output) -> Result<ExitCode, CliError> {
    let overview = overview(run_dir)?;
    out.emit(&overview.sessions, || render(&overview))?;
    Ok(ExitCode::SUCCESS)
}

fn render(overview: &Overview) -> String {
    if overview.sessions.is_empty() {
        return format!(
            "no sessions; {} endpoints wait\n{DIM}start one: masq run --endpoint {} -- CMD{DIM:#}",
            overview
                .endpoints
                .iter()
                .filter(|e| e.host.is_none())
                .count(),
            overview
                .endpoints
                .iter()
                .find(|e| e.class.is_none() && e.host.is_none())
                .map_or("TENANT/NAME", |e| &e.endpoint),
        );
    }
    // Of one device there is nothing to tell.
    let several = overview.devices.len() > 1;
    let rows = overview.sessions.iter().map(|s| {
        let mut row = vec![
            s.id.to_string(),
            s.endpoint.clone(),
            s.pid.to_string(),
            printable(&s.program),
            objects(&s.objects),
            bytes(s.pinned_bytes),
            age(s.age_seconds),
        ];
        if several {
            row.push(s.device.clone());
        }
        row
    });
    let mut columns = vec![
        ">SESSION", "ENDPOINT", ">PID", "PROGRAM", "OBJECTS", ">PINNED", ">AGE",
    ];
    if several {
        columns.push("DEVICE");
    }
    table(&columns, rows.collect())
}

/// `2 qp, 1 cq`; kinds of which there are none are left out.
pub(crate) fn objects(objects: &BTreeMap<String, u64>) -> String {
    let parts: Vec<_> = objects
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if parts.is_empty() {
        "-".to_owned()
    } else {
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_admin::{DeviceReport, EndpointReport, SessionReport};

    #[test]
    fn an_idle_host_says_what_to_do_next() {
        let overview = Overview {
            endpoints: vec![EndpointReport {
                endpoint: "blue/a".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let text = render(&overview);
        assert!(text.contains("no sessions; 1 endpoints wait"), "{text}");
        assert!(text.contains("masq run --endpoint blue/a"), "{text}");
    }

    #[test]
    fn a_session_is_one_line_with_its_objects() {
        let overview = Overview {
            sessions: vec![SessionReport {
                id: 3,
                endpoint: "blue/a".into(),
                pid: 42,
                program: "ib_write\x1bbw".into(),
                objects: [("qp".into(), 2), ("cq".into(), 1), ("mr".into(), 0)].into(),
                pinned_bytes: 8192,
                age_seconds: 61,
                ..Default::default()
            }],
            ..Default::default()
        };
        let text = anstream::adapter::strip_str(&render(&overview)).to_string();
        let line: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            line,
            "3 blue/a 42 ib_write?bw 1 cq, 2 qp 8 KiB 1m 1s"
                .split(' ')
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_session_names_its_device_if_there_are_several() {
        let mut overview = Overview {
            sessions: vec![SessionReport {
                device: "rxe0".into(),
                ..Default::default()
            }],
            devices: vec![DeviceReport::default()],
            ..Default::default()
        };
        assert!(!render(&overview).contains("rxe0"));
        overview.devices.push(DeviceReport::default());
        let text = render(&overview);
        assert!(text.contains("DEVICE") && text.contains("rxe0"), "{text}");
    }
}
