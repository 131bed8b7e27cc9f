//! `masq hook`.

use crate::cli::{HookArgs, Stage};
use crate::output::{Output, printable_lines};
use crate::{CliError, run, runtime};
use masq_container::hook::{self, Host};
use masq_container::runtime::Own;
use masq_container::{Config, State};
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn execute(run_dir: &Path, args: &HookArgs, out: &Output) -> Result<ExitCode, CliError> {
    hook::limit_time();
    if io::stdin().is_terminal() {
        return Err(CliError::Usage(
            "a container runtime runs this, with the container's state on standard input; \
             see `masq hook --help`"
                .to_owned(),
        ));
    }
    let notes = match args.stage {
        Stage::CreateRuntime => {
            let state = State::read(io::stdin())?;
            let host = host(run_dir, args)?;
            hook::create_runtime(&host, &args.devices, args.select, &state)?.notes
        }
        // The runtime writes until it is read.
        Stage::CreateContainer => {
            io::copy(&mut io::stdin(), &mut io::sink())?;
            Vec::new()
        }
        Stage::Poststop => poststop(run_dir),
        Stage::Precreate => {
            precreate(run_dir, args, out)?;
            Vec::new()
        }
    };
    for note in notes {
        anstream::eprintln!("masq: {}", printable_lines(&note));
    }
    Ok(ExitCode::SUCCESS)
}

fn host(run_dir: &Path, args: &HookArgs) -> Result<Host, CliError> {
    let library = run::library(args.library.as_deref())?;
    Ok(Host {
        run_dir: runtime::absolute(run_dir)?,
        lib_dir: library.parent().unwrap_or(Path::new("/")).to_owned(),
    })
}

/// A container that has ended is gone, whatever is wrong here.
fn poststop(run_dir: &Path) -> Vec<String> {
    let host = runtime::absolute(run_dir).map(|run_dir| Host {
        run_dir,
        lib_dir: Default::default(),
    });
    match (host, State::read(io::stdin())) {
        (Ok(host), Ok(state)) => hook::poststop(&host, &state).notes,
        (Err(e), _) => vec![e.to_string()],
        (_, Err(e)) => vec![e.to_string()],
    }
}

fn precreate(run_dir: &Path, args: &HookArgs, out: &Output) -> Result<(), CliError> {
    let mut config = Config::read(io::stdin(), "config.json".into())?;
    let own = Own {
        devices: args.devices.clone(),
        select: args.select,
        ..Own::default()
    };
    let run_dir = runtime::absolute(run_dir)?;
    masq_container::runtime::add(&mut config, &own, &runtime::own_path()?, &run_dir)?;
    out.line(&config.to_json())
}
