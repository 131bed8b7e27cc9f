//! What rdma-core's tests of rdma_cm look for in the system: the device's
//! network interface in sysfs, and the device's address on that interface.
//!
//! Both exist in namespaces of the test's own only: an overlay over
//! /sys/class, and a loopback interface that is down and has one address.

use anyhow::ensure;
use masq_e2e::Host;
use std::process::Command;

/// The endpoint that the tests run as.
pub(crate) const ENDPOINT: &str = "blue/a";
/// The device's name in it.
pub(crate) const DEVICE: &str = "masq0";

/// `sh -c SCRIPT sh ADDRESS DEVICE DIR PROGRAM …`
const SCRIPT: &str = r#"
set -e
ip address add "$1/32" dev lo
mount -t tmpfs masq-sysfs "$3"
mkdir -p "$3/upper/infiniband/$2/device/net/lo" "$3/work"
mount -t overlay masq-sysfs \
    -o "lowerdir=/sys/class,upperdir=$3/upper,workdir=$3/work" /sys/class
shift 3
exec "$@"
"#;

/// The command that runs `program` as [`ENDPOINT`] where its device seems to
/// have a network interface.
///
/// # Errors
/// masqd does not answer.
pub(crate) fn with_interface(host: &Host, program: &str) -> anyhow::Result<Command> {
    let (_, report) = host.endpoint(ENDPOINT)?;
    ensure!(!report.address.is_empty(), "{ENDPOINT} has no address");
    let dir = host.scratch().join("sysfs");
    std::fs::create_dir_all(&dir)?;
    let mut command = host.command(ENDPOINT, "unshare");
    // Without root, in a user namespace as its root.
    let namespaces = if rustix::process::geteuid().is_root() {
        "-mn"
    } else {
        "-Urmn"
    };
    command.args([namespaces, "sh", "-c", SCRIPT, "sh"]);
    command.arg(&report.address).arg(DEVICE).arg(dir);
    command.arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    /// Where namespaces may be made, the overlay and the address appear.
    #[test]
    fn the_interface_is_seen_inside_and_not_outside() {
        let dir = tempfile::tempdir().unwrap();
        let out = std::process::Command::new("unshare")
            .args(["-Urmn", "sh", "-c", super::SCRIPT, "sh"])
            .args(["10.9.8.7", super::DEVICE])
            .arg(dir.path())
            .args(["sh", "-c"])
            .arg("ls /sys/class/infiniband/masq0/device/net && ip -j addr show lo")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        if error.contains("unshare") {
            eprintln!("no namespaces here: left out ({})", error.trim());
            return;
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.starts_with("lo\n"), "{text}{error}");
        assert!(text.contains("10.9.8.7"), "{text}{error}");
        assert!(!std::path::Path::new("/sys/class/infiniband/masq0/device/net/lo").exists());
    }
}
