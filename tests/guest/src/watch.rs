//! Commands that take long, with what they say about how far they are.

use anyhow::{Context as _, bail};
use masq_e2e::spawn;
use std::process::Command;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(15);

/// Runs `command` to its end. `far` makes words from its output so far, said now and then.
pub(crate) fn watch(
    command: Command,
    say: &mut dyn FnMut(&str),
    far: impl Fn(&str) -> String,
) -> anyhow::Result<()> {
    let mut running = spawn(command)?;
    let since = Instant::now();
    let mut next = since + EVERY;
    while running.is_running() {
        if Instant::now() > next {
            next += EVERY;
            say(&format!(
                "{:>5} s: {}",
                since.elapsed().as_secs(),
                far(&running.output())
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let done = running.wait(EVERY)?;
    if !done.status.success() {
        bail!("{}: {}\n{}", done.name, done.status, end_of(&done.output));
    }
    Ok(())
}

/// Runs a short command to its end; what it printed.
pub(crate) fn output_of(mut command: Command) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let out = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !out.status.success() {
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        bail!("{name}: {}\n{}", out.status, end_of(&words));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The last lines.
pub(crate) fn end_of(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(25);
    lines.get(from..).unwrap_or_default().join("\n")
}
