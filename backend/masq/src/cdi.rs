//! `masq cdi generate` and `list`.

use crate::cli::{CdiArgs, CdiCommand};
use crate::output::{DIM, Output, WARN, table};
use crate::{CliError, policy, ps, runtime};
use masq_container::cdi::{self, Settings, Spec};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) fn execute(run_dir: &Path, args: &CdiArgs, out: &Output) -> Result<ExitCode, CliError> {
    match &args.command {
        CdiCommand::Generate {
            policy,
            output,
            kind,
        } => generate(run_dir, policy.as_deref(), output, kind, out),
        CdiCommand::List { file } => list(file, out),
    }
}

fn generate(
    run_dir: &Path,
    file: Option<&Path>,
    output: &Path,
    kind: &str,
    out: &Output,
) -> Result<ExitCode, CliError> {
    let file = match file {
        Some(file) => file.to_owned(),
        None => PathBuf::from(ps::overview(run_dir)?.policy_file),
    };
    let policy = policy::checked(&file)?;
    let mut settings = Settings::of_host(runtime::own_path()?, runtime::absolute(run_dir)?);
    settings.kind = kind.to_owned();
    let generated = cdi::generate(&policy, &settings)?;
    for problem in &generated.left_out {
        anstream::eprintln!("{WARN}left out{WARN:#}: {problem}");
    }
    let spec = generated.spec;
    if output == Path::new("-") {
        out.line(&cdi::to_json(&spec))?;
        return Ok(ExitCode::SUCCESS);
    }
    let changed = cdi::write_file(output, &spec)?;
    out.emit(&names(&spec), || {
        let count = spec.devices.len();
        let path = output.display();
        if changed {
            format!("{path}: {count} devices")
        } else {
            format!("{path}: {count} devices, as before")
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list(file: &Path, out: &Output) -> Result<ExitCode, CliError> {
    let spec = cdi::read_file(file)?;
    let names = names(&spec);
    out.emit(&names, || {
        if names.is_empty() {
            return format!("no devices\n{DIM}the policy has no tenants{DIM:#}");
        }
        table(&["DEVICE"], names.iter().map(|n| vec![n.clone()]).collect())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The devices as engines take them.
fn names(spec: &Spec) -> Vec<String> {
    spec.devices
        .iter()
        .map(|device| format!("{}={}", spec.kind, device.name))
        .collect()
}
