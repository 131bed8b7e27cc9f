//! Names that no other test has, and the removal of what killed tests left.

use crate::command::{command, output_of};
use crate::lock::Lock;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "masqt-";

/// A name that holds this process's id and a number: letters, digits and hyphens.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", std::process::id())
}

/// Whether `name` was made by [`unique`] in a process that has ended.
fn is_orphan(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let pid = rest.split('-').next().unwrap_or_default();
    pid.parse::<u32>()
        .is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Removes containers, networks, network namespaces and CDI files of tests that were
/// killed.
///
/// # Errors
/// The lock cannot be taken. What cannot be removed stays.
pub fn sweep() -> anyhow::Result<()> {
    let _lock = Lock::take("sweep")?;
    let lists = [
        (
            &["podman", "ps", "-a", "--format", "{{.Names}}"][..],
            &["podman", "rm", "-f", "-t", "0"][..],
        ),
        (
            &["podman", "network", "ls", "--format", "{{.Name}}"],
            &["podman", "network", "rm", "-f"],
        ),
        (&["ls", "/run/netns"], &["ip", "netns", "delete"]),
    ];
    for (list, remove) in lists {
        let names = output_of(command(list)).unwrap_or_default();
        for name in names.lines().filter(|name| is_orphan(name)) {
            quietly(command(remove.iter().copied().chain([name])));
        }
    }
    for file in std::fs::read_dir(crate::cdi::DIR).into_iter().flatten() {
        let Ok(file) = file else { continue };
        if file.file_name().to_str().is_some_and(is_orphan) {
            let _ = std::fs::remove_file(file.path());
        }
    }
    Ok(())
}

/// Runs it; a failure changes nothing.
pub(crate) fn quietly(mut command: Command) {
    let _ = command.output();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_made_is_an_orphan() {
        assert!(!is_orphan(&unique()));
        assert!(is_orphan("masqt-4194305-0"));
        assert!(!is_orphan("masqt-x"));
        assert!(!is_orphan("web-4194305-0"));
    }
}
