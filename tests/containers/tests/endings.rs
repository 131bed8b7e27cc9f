//! What ends, and what is left then.

use anyhow::ensure;
use masq_container_tests::{
    Bridge, Bundle, Bundles, Meet, PodNet, RootFs, Runtime, Site, policy, usable,
};
use masq_e2e::Running;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Growth of masqd's memory that hundreds of containers may leave, in KiB: allocators keep
/// some, a leak of even 32 KiB for each would be more.
const SLACK: usize = 3072;

/// Mounts of the host's that show something of this masqd or its library.
fn mounts_of_the_host(site: &Site) -> usize {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let library = site.binaries().library();
    let own = [Some(site.scratch()), library.parent()];
    let own: Vec<_> = own
        .into_iter()
        .flatten()
        .map(Path::to_string_lossy)
        .collect();
    let shows = |line: &&str| own.iter().any(|dir| line.contains(&**dir));
    text.lines().filter(shows).count()
}

#[test]
fn a_hundred_containers_one_after_the_other_leave_nothing() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let runc = Bundles::runc()?;
    let net = PodNet::with_address("10.9.3.1/24")?;
    let site = Site::start(&policy("10.9.3.0/24"))?;
    let edits = site.devices().edits("blue")?;
    let bundle = Bundle::of(&RootFs::debian()?).edits(edits).inside(&net);
    // The first fills caches and pools.
    for _ in 0..5 {
        runc.start(&bundle)?.remove()?;
    }
    let (before, mounts) = (site.footprint()?, mounts_of_the_host(&site));
    for round in 0..100 {
        let container = runc.start(&bundle)?;
        if round % 10 == 0 {
            container.run("ibv_devinfo")?.success()?;
        }
        container.remove()?;
    }
    site.wait_until_back_to(&before)?;
    assert_eq!(mounts_of_the_host(&site), mounts);
    let (then, now) = (before.resident(), site.footprint()?.resident());
    assert!(now < then + SLACK, "resident: {then} KiB, then {now} KiB");
    Ok(())
}

#[test]
fn twenty_containers_at_a_time_leave_nothing() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let runc = Bundles::runc()?;
    let site = Site::start(&policy("10.9.2.0/24"))?;
    let image = RootFs::debian()?;
    let nets: Vec<_> = (1..=20)
        .map(|n| PodNet::with_address(&format!("10.9.2.{n}/24")))
        .collect::<Result<_, _>>()?;
    let start = |net| {
        let edits = site.devices().edits("blue")?;
        runc.start(&Bundle::of(&image).edits(edits).inside(net))
    };
    start(&nets[0])?.remove()?;
    let before = site.footprint()?;
    for round in 0..2 {
        let started: Vec<anyhow::Result<_>> = std::thread::scope(|scope| {
            let threads: Vec<_> = nets.iter().map(|net| scope.spawn(|| start(net))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|result| result.expect("no panic")).collect()
        });
        let containers = started.into_iter().collect::<Result<Vec<_>, _>>()?;
        assert_eq!(site.containers()?.len(), 20);
        for (n, container) in (1..).zip(&containers) {
            assert_eq!(container.gid(3)?, format!("::ffff:10.9.2.{n}"));
        }
        std::thread::scope(|scope| {
            for container in containers {
                // One round ends orderly, the other by kill -9 and a removal afterwards.
                if round == 1 {
                    kill(container.pid());
                }
                scope.spawn(|| container.remove());
            }
        });
        site.wait_until_back_to(&before)?;
    }
    Ok(())
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it runs");
}

#[test]
fn a_container_that_is_killed_is_forgotten_before_its_runtime_says_so() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let launch = bridge.blue(&RootFs::debian()?);
    let [server, client] = bridge.two(&launch)?;
    let before = bridge.site().report_of(&server)?;
    let mut running = Meet::over_tcp("ib_write_bw -x 3 -F -D 30 -p 18515")
        .start_server(bridge.site(), &client)?;
    kill(client.pid());
    client.wait_for_end()?;
    let end = Instant::now() + Duration::from_secs(10);
    let all_gone = |bridge: &Bridge, running: &mut Running| -> anyhow::Result<bool> {
        let sessions = bridge.site().overview()?.sessions;
        let containers = bridge.site().containers()?;
        Ok(sessions.is_empty() && containers.len() == 1 && !running.is_running())
    };
    while !all_gone(&bridge, &mut running)? {
        ensure!(Instant::now() < end, "{:?}", bridge.site().overview()?);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(bridge.site().containers()?, [before]);
    Ok(())
}

#[test]
fn a_masqd_that_comes_back_serves_the_containers_that_still_run() -> anyhow::Result<()> {
    let Some(mut bridge) = Bridge::new()? else {
        return Ok(());
    };
    let [server, client] = bridge.two(&bridge.blue(&RootFs::debian()?))?;
    let endless = Meet::over_tcp("ib_write_bw -x 3 -F -D 60 -p 18515");
    let at_server = endless.start_server(bridge.site(), &server)?;
    let address = server.address()?;
    let at_client = client.start(&format!("ib_write_bw -x 3 -F -D 60 -p 18515 {address}"))?;
    std::thread::sleep(Duration::from_millis(800));
    let endpoints = [&server, &client].map(|c| bridge.site().report_of(c));
    bridge.site_mut().kill();
    // What was open ends with errors, and does not hang.
    for program in [at_server, at_client] {
        let done = program.wait(Duration::from_secs(20))?;
        assert!(!done.status.success(), "{done}");
    }
    bridge.site_mut().restart()?;
    for (container, before) in [&server, &client].into_iter().zip(endpoints) {
        let now = bridge.site().report_of(container)?;
        assert_eq!(now.endpoint, before?.endpoint);
        container.run("ibv_devinfo")?.success()?;
    }
    Meet::pingpong().run(bridge.site(), &server, &client)?;
    Ok(())
}

#[test]
fn a_container_that_ended_while_masqd_was_away_is_not_served_again() -> anyhow::Result<()> {
    let Some(mut bridge) = Bridge::new()? else {
        return Ok(());
    };
    let container = bridge.podman().start(&bridge.blue(&RootFs::busybox()?))?;
    let dir = bridge.site().report_of(&container)?.dir;
    bridge.site_mut().kill();
    container.remove()?;
    bridge.site_mut().restart()?;
    assert!(bridge.site().containers()?.is_empty());
    let end = Instant::now() + Duration::from_secs(10);
    while dir.exists() {
        ensure!(Instant::now() < end, "{} is still there", dir.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_removed_container_leaves_its_root_filesystem_as_it_was() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let runc = Bundles::runc()?;
    let net = PodNet::with_address("10.9.1.1/24")?;
    let site = Site::start(&policy("10.9.1.0/24"))?;
    let edits = site.devices().edits("blue")?;
    for image in [RootFs::debian()?, RootFs::busybox()?] {
        let plain = runc.start(&Bundle::of(&image).inside(&net))?;
        let root = runc.file_of(&plain, "");
        let remains = plain.remove_but_keep_files()?;
        let without = paths(&root)?;
        drop(remains);
        let container = runc.start(&Bundle::of(&image).edits(edits).inside(&net))?;
        let root = runc.file_of(&container, "");
        let during = paths(&root)?;
        assert!(during.len() > without.len(), "nothing was injected");
        let _remains = container.remove_but_keep_files()?;
        assert_eq!(paths(&root)?, without, "{}", image.image());
    }
    Ok(())
}

#[test]
fn what_a_dead_runtime_leaves_is_removed_by_gc() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let runc = Bundles::runc()?;
    let net = PodNet::with_address("10.9.1.2/24")?;
    let site = Site::start(&policy("10.9.1.0/24"))?;
    let edits = site.devices().edits("blue")?;
    let image = RootFs::busybox()?;
    let before = site.footprint()?;
    let start = || runc.start(&Bundle::of(&image).edits(edits).inside(&net));
    let [lost, lives] = [start()?, start()?];
    let [without, with] = [&lost, &lives].map(|c| runc.file_of(c, "run/masq"));
    assert!(without.exists() && with.exists());
    kill(lost.pid());
    lost.wait_for_end()?;
    // Nobody runs the poststop hook.
    site.masq_output(["gc"])?.success()?;
    assert!(!without.exists(), "the mount point is still there");
    assert!(with.exists(), "that of a container which runs is gone");
    lives.run("test -S /run/masq/masq.sock")?.success()?;
    lost.remove()?;
    lives.remove()?;
    site.wait_until_back_to(&before)
}

/// Every path below `root`.
fn paths(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
            found.push(entry.path().strip_prefix(root)?.to_owned());
        }
    }
    found.sort();
    Ok(found)
}
