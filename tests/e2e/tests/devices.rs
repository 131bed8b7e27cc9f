//! What `ibv_devices` and `ibv_devinfo` show.

use masq_e2e::Host;

#[test]
fn ibv_devices_lists_one_device_and_no_more() -> anyhow::Result<()> {
    let host = Host::start()?;
    let out = host
        .run_as("blue/a", "ibv_devices", [] as [&str; 0])?
        .success()?;
    let devices = out.output.lines().skip(2).filter(|l| !l.trim().is_empty());
    assert_eq!(devices.count(), 1, "{out}");
    Ok(())
}

#[test]
fn ibv_devinfo_shows_an_active_port_and_the_gids_of_the_endpoint() -> anyhow::Result<()> {
    let host = Host::start()?;
    let out = host.run_as("blue/b", "ibv_devinfo", ["-v"])?.success()?;
    for part in ["PORT_ACTIVE", "Ethernet", "::ffff:10.0.0.2, RoCE v2"] {
        assert!(out.output.contains(part), "{part} is not in {out}");
    }
    assert!(!out.output.contains("10.0.0.1"), "a foreign GID: {out}");
    Ok(())
}

#[test]
fn name_guid_and_gids_stay_the_same_over_a_restart() -> anyhow::Result<()> {
    let look = || -> anyhow::Result<String> {
        let host = Host::start()?;
        let out = host.run_as("blue/a", "ibv_devinfo", ["-v"])?.success()?;
        let kept = |l: &&str| {
            ["hca_id", "node_guid", "sys_image_guid", "GID["]
                .iter()
                .any(|word| l.contains(word))
        };
        Ok(out
            .output
            .lines()
            .filter(kept)
            .collect::<Vec<_>>()
            .join("\n"))
    };
    let first = look()?;
    assert!(first.contains("node_guid"), "{first}");
    assert_eq!(first, look()?);
    Ok(())
}

/// In a mount namespace, so that the machine keeps its own; needs root.
#[test]
fn put_in_the_place_of_the_distributions_file_it_serves_programs() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: left out");
        return Ok(());
    }
    let host = Host::start()?;
    let theirs = std::fs::canonicalize("/usr/lib/x86_64-linux-gnu/libibverbs.so.1")?;
    let socket = host.run_dir().join("endpoints/blue/a/masq.sock");
    let mut command = std::process::Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$1\" \"$2\" && exec ibv_devinfo",
        "sh",
    ]);
    command.arg(host.binaries().library()).arg(theirs);
    command.env("MASQ_SOCKET", socket);
    let out = masq_e2e::spawn(command)?
        .wait(std::time::Duration::from_secs(20))?
        .success()?;
    assert!(out.output.contains("PORT_ACTIVE"), "{out}");
    Ok(())
}
