//! `masq containers`: the containers that are endpoints.

use crate::CliError;
use crate::output::{DIM, Output, printable, table};
use masq_admin::{Answer, ContainerReport, Request};
use std::path::Path;
use std::process::ExitCode;

/// Characters of an id that are shown; engines take them for the whole.
const SHORT_ID: usize = 12;

pub(crate) fn print(run_dir: &Path, out: &Output) -> Result<ExitCode, CliError> {
    let containers = match masq_admin::call(run_dir, &Request::Containers)? {
        Answer::Containers(containers) => containers,
        _ => return Err(CliError::WrongAnswer),
    };
    out.emit(&containers, || render(&containers))?;
    Ok(ExitCode::SUCCESS)
}

fn render(containers: &[ContainerReport]) -> String {
    if containers.is_empty() {
        return format!(
            "no containers\n{DIM}start one: podman run --device masq.dev/endpoint=TENANT …{DIM:#}"
        );
    }
    let rows = containers.iter().map(|c| {
        let addresses: Vec<_> = c.addresses.iter().map(ToString::to_string).collect();
        vec![
            printable(&c.container.chars().take(SHORT_ID).collect::<String>()),
            c.endpoint.clone(),
            c.pid.to_string(),
            if addresses.is_empty() {
                "-".to_owned()
            } else {
                addresses.join(", ")
            },
        ]
    });
    table(
        &["CONTAINER", "ENDPOINT", ">PID", "ADDRESSES"],
        rows.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_one_line_with_its_addresses() {
        let report = ContainerReport {
            container: "0123456789abcdef".into(),
            endpoint: "blue/pod.0123456789ab".into(),
            pid: 42,
            addresses: vec!["10.88.0.2".parse().unwrap()],
            dir: "/run/masq/containers/x".into(),
        };
        let text = anstream::adapter::strip_str(&render(&[report])).to_string();
        let line: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            line,
            ["0123456789ab", "blue/pod.0123456789ab", "42", "10.88.0.2"]
        );
    }

    #[test]
    fn a_host_without_containers_says_what_to_do_next() {
        assert!(render(&[]).contains("--device masq.dev/endpoint="));
    }
}
