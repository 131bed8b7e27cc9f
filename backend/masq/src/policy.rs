//! `masq policy check`, `explain` and `schema`.

use crate::cli::{ExplainArgs, PolicyArgs, PolicyCommand};
use crate::output::{BAD, GOOD, Output};
use crate::{CliError, hosts, ps};
use masq_admin::{EndpointReport, Overview};
use masq_policy::{EndpointId, EndpointName, Explanation, Home, Policy, PolicyErrors, Request};
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) fn execute(
    run_dir: &Path,
    args: &PolicyArgs,
    out: &Output,
) -> Result<ExitCode, CliError> {
    match &args.command {
        PolicyCommand::Check { file } => check(file, out),
        PolicyCommand::Explain(args) => explain(run_dir, args, out),
        PolicyCommand::Schema => {
            out.line(&serde_json::to_string_pretty(&masq_policy::json_schema())?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads the file; whatever keeps it from being a policy is the inner error.
fn read(file: &Path) -> Result<Result<Policy, PolicyErrors>, CliError> {
    let failed = |source| CliError::Read {
        path: file.to_owned(),
        source,
    };
    let bytes = std::fs::read(file).map_err(failed)?;
    let text = String::from_utf8(bytes)
        .map_err(|e| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))?;
    Ok(Policy::parse(&file.to_string_lossy(), &text))
}

/// The policy in `file`, or what is wrong with it, for people.
pub(crate) fn checked(file: &Path) -> Result<Policy, CliError> {
    read(file)?.map_err(|errors| refused(&errors))
}

fn check(file: &Path, out: &Output) -> Result<ExitCode, CliError> {
    let policy = match read(file)? {
        Ok(policy) => policy,
        Err(errors) if out.is_json() => {
            out.line(&serde_json::to_string_pretty(&errors)?)?;
            return Ok(ExitCode::FAILURE);
        }
        Err(errors) => return Err(refused(&errors)),
    };
    if out.is_json() {
        let value = serde_json::json!({ "errors": [], "warnings": policy.warnings() });
        out.line(&serde_json::to_string_pretty(&value)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for warning in policy.warnings() {
        anstream::eprintln!("{}\n", warning.render(true));
    }
    let rules: usize = policy.tenants().map(|t| t.rules().len()).sum();
    out.line(&format!(
        "{}: {GOOD}good{GOOD:#}, {} tenants, {} endpoints, {rules} rules, {} warnings",
        file.display(),
        policy.tenants().len(),
        policy.endpoints().count(),
        policy.warnings().len(),
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn refused(errors: &PolicyErrors) -> CliError {
    CliError::Policy(errors.render(std::io::stderr().is_terminal()))
}

fn explain(run_dir: &Path, args: &ExplainArgs, out: &Output) -> Result<ExitCode, CliError> {
    let running = match &args.policy {
        Some(_) => None,
        None => Some(ps::overview(run_dir)?),
    };
    let file = match (&args.policy, &running) {
        (Some(file), _) => file.clone(),
        (None, Some(overview)) => PathBuf::from(&overview.policy_file),
        (None, None) => PathBuf::new(),
    };
    let mut policy = checked(&file)?;
    for endpoint in running.iter().flat_map(|overview| &overview.endpoints) {
        add_container(&mut policy, endpoint);
    }
    let mut explanation = ask(&policy, args, &file)?;
    if let Some(overview) = &running {
        explanation
            .notes
            .extend(registered(&policy, overview, &explanation));
    }
    out.emit(&explanation, || render(&explanation))?;
    Ok(if explanation.verdict.allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where the target is registered, if the policy does not say where it lives.
fn registered(policy: &Policy, overview: &Overview, explained: &Explanation) -> Option<String> {
    let target = explained.target.as_ref()?;
    let placed = policy.endpoint(target)?.home() != &Home::Anywhere;
    let name = target.to_string();
    let mut endpoints = overview.endpoints.iter();
    let endpoint = endpoints.find(|e| e.endpoint == name && !placed)?;
    Some(format!("{name} {}", hosts::place(overview, endpoint)?))
}

/// Makes an endpoint that is a container part of the policy, as it is in masqd's.
fn add_container(policy: &mut Policy, endpoint: &EndpointReport) {
    let id = endpoint.endpoint.parse::<EndpointId>();
    let class = endpoint.class.as_deref().map(EndpointName::new);
    if let (Ok(id), Some(Ok(class))) = (id, class) {
        let class = EndpointId::new(id.tenant().clone(), class);
        // A file that has changed since may have no such class.
        let name = id.name().clone();
        let added = match endpoint.host {
            None => policy.add_instance(&class, name),
            Some(host) => policy.add_instance_elsewhere(&class, name, host),
        };
        if added.is_ok() {
            policy.set_addresses(&id, &endpoint.addresses);
        }
    }
}

fn ask(policy: &Policy, args: &ExplainArgs, file: &Path) -> Result<Explanation, CliError> {
    let tenant = policy.tenant(args.from.tenant().as_str());
    let is_class = tenant.is_some_and(|t| t.class(args.from.name().as_str()).is_some());
    if policy.endpoint(&args.from).is_none() && !is_class {
        return Err(unknown(policy, &args.from, file));
    }
    if let Ok(to) = args.to.parse::<IpAddr>() {
        return Ok(policy.explain(&Request::Connect {
            from: &args.from,
            to,
            qp_type: args.qp_type,
            service: args.service,
        }));
    }
    let to: EndpointId = args.to.parse().map_err(|e| {
        CliError::Usage(format!(
            "--to {}: neither an address nor an endpoint TENANT/NAME: {e}",
            args.to
        ))
    })?;
    policy
        .explain_between(&args.from, &to, args.qp_type, args.service)
        .ok_or_else(|| unknown(policy, &to, file))
}

fn unknown(policy: &Policy, id: &EndpointId, file: &Path) -> CliError {
    let classes = policy.tenants().flat_map(|tenant| tenant.classes());
    let endpoints = policy.endpoints().map(|endpoint| endpoint.id());
    let known: Vec<_> = endpoints
        .chain(classes.map(|class| class.id()))
        .map(ToString::to_string)
        .collect();
    CliError::NotFound(format!(
        "{} has no endpoint {id}\n  it has: {}",
        file.display(),
        known.join(", ")
    ))
}

fn render(explanation: &Explanation) -> String {
    let text = explanation.to_string();
    let verdict = explanation.verdict.to_string();
    let style = if explanation.verdict.allowed {
        GOOD
    } else {
        BAD
    };
    text.replacen(&verdict, &format!("{style}{verdict}{style:#}"), 1)
}
