//! Containers of podman, on a bridge network or a user's own.

use masq_container_tests::{
    Bridge, Container, Launch, Meet, PodNet, Podman, RootFs, Runtime, Site, User, policy, usable,
};
use masq_e2e::workspace;
use std::path::Path;
use std::time::{Duration, Instant};

/// To go with any other limit: podman's settings do not count then.
const ULIMITS: &str = "--ulimit nofile=20000:20000 --ulimit nproc=32768:32768";

/// A program that verifies what it receives, over rdma_cm and the pod's own address.
fn rping() -> Meet {
    Meet::by_rdma_cm("rping -s -a {} -V -C 50", "rping -c -a {} -V -v -C 50")
}

fn one_byte_after_the_other_is_right(
    site: &Site,
    [server, client]: &[Container; 2],
) -> anyhow::Result<()> {
    let met = Meet::pingpong().run(site, server, client)?;
    assert!(met.client.output.contains("1000 iters"), "{}", met.client);
    let met = rping().run(site, server, client)?;
    // -v prints what came back, which -V has compared.
    assert!(met.client.output.contains("rdma-ping-49"), "{}", met.client);
    Ok(())
}

/// docs/memory.md: the library needs userfaultfd, which podman's seccomp profile denies
/// but by its device.
fn stores_are_guarded(container: &Container) -> anyhow::Result<()> {
    if Path::new("/dev/userfaultfd").exists() {
        container.sh("exec 3<>/dev/userfaultfd")?.success()?;
    }
    Ok(())
}

#[test]
fn containers_meet_over_the_pod_network_and_by_rdma_cm() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let two = bridge.two(&bridge.blue(&RootFs::debian()?))?;
    one_byte_after_the_other_is_right(bridge.site(), &two)?;
    let [server, client] = &two;
    let bandwidth = Meet::over_tcp("ib_write_bw -x 3 -F -n 2000 -p 18515");
    let met = bandwidth.run(bridge.site(), server, client)?;
    assert!(met.client.output.contains("65536"), "{}", met.client);
    Ok(())
}

#[test]
fn gid_3_is_the_address_that_the_pod_has() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let container = bridge.podman().start(&bridge.blue(&RootFs::debian()?))?;
    let gid = container.gid(3)?;
    assert_eq!(gid, format!("::ffff:{}", container.address()?));
    Ok(())
}

#[test]
fn a_user_without_any_privilege_has_all_of_it() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let launch = bridge
        .blue(&RootFs::debian()?)
        .options(
            "--user 1000 --cap-drop=all --security-opt no-new-privileges --read-only \
             --ulimit memlock=65536:65536",
        )
        .options(ULIMITS);
    let two = bridge.two(&launch)?;
    let out = two[0].sh("id -u; ulimit -l; touch /x")?;
    assert!(out.output.starts_with("1000\n64\n"), "{out}");
    assert!(!out.status.success(), "the root filesystem is writable");
    stores_are_guarded(&two[0])?;
    one_byte_after_the_other_is_right(bridge.site(), &two)
}

#[test]
fn a_memlock_limit_of_8_mib_binds_nothing() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let launch = bridge
        .blue(&RootFs::debian()?)
        .options("--ulimit memlock=8388608:8388608")
        .options(ULIMITS);
    let [server, client] = bridge.two(&launch)?;
    // 64 MiB of buffers on either side.
    let large = Meet::over_tcp("ib_write_bw -x 3 -F -n 20 -s 33554432 -p 18515");
    large.run(bridge.site(), &server, &client)?;
    Ok(())
}

#[test]
fn containers_with_ids_of_their_own_meet() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let launch = bridge
        .blue(&RootFs::debian()?)
        .options("--uidmap 0:100000:65536 --user 1000");
    let two = bridge.two(&launch)?;
    let out = two[0].run("cat /proc/self/uid_map")?.success()?;
    assert!(out.output.contains("100000"), "{out}");
    stores_are_guarded(&two[0])?;
    // podman gives them their addresses after the hooks ran.
    for container in &two {
        container.wait_for_gid(3)?;
    }
    one_byte_after_the_other_is_right(bridge.site(), &two)
}

#[test]
fn containers_of_a_user_meet_by_a_masqd_of_that_user() -> anyhow::Result<()> {
    if !usable(Runtime::Rootless) {
        return Ok(());
    }
    let user = User::new()?;
    let site = Site::around(user.host(&policy("10.9.7.0/24"))?)?;
    let podman = Podman::rootless(&user)?;
    let launch = Launch::of(&RootFs::debian()?).device(site.devices(), "blue");
    let two = [podman.start(&launch)?, podman.start(&launch)?];
    PodNet::link([(&two[0], "10.9.7.1/24"), (&two[1], "10.9.7.2/24")])?;
    for container in &two {
        container.wait_for_gid(3)?;
    }
    one_byte_after_the_other_is_right(&site, &two)
}

#[test]
fn a_program_that_is_the_containers_first_has_the_device() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let launch = bridge.blue(&RootFs::debian()?).program(&["ibv_devinfo"]);
    let out = bridge.podman().run(&launch)?;
    assert!(out.contains("PORT_ACTIVE"), "{out}");
    Ok(())
}

#[test]
fn an_image_without_libc_has_ibv_devinfo_all_the_same() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let container = bridge.podman().start(&bridge.blue(&RootFs::busybox()?))?;
    let out = container.run("ibv_devinfo -v")?.success()?;
    for word in ["hca_id", "PORT_ACTIVE", &container.address()?.to_string()] {
        assert!(out.output.contains(word), "{word} is not in {out}");
    }
    Ok(())
}

#[test]
fn devices_are_where_programs_look_for_them() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let container = bridge.podman().start(&bridge.blue(&RootFs::debian()?))?;
    let out = container
        .sh("ls /sys/class/infiniband /dev/infiniband; cat /sys/class/infiniband/*/ports/1/gids/3")?
        .success()?;
    for word in ["uverbs0", "rdma_cm", "ffff:"] {
        assert!(out.output.contains(word), "{word} is not in {out}");
    }
    Ok(())
}

#[test]
fn containers_of_a_pod_are_one_endpoint() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let image = RootFs::debian()?;
    let first = bridge.podman().start(&bridge.blue(&image))?;
    let second = Launch::of(&image)
        .options(&format!("--network container:{}", first.id()))
        .device(bridge.site().devices(), "blue");
    let second = bridge.podman().start(&second)?;
    let reports = [&first, &second].map(|c| bridge.site().report_of(c));
    let [one, other] = reports;
    assert_eq!(one?.endpoint, other?.endpoint);
    Meet::pingpong().run(bridge.site(), &first, &second)?;
    // The second goes, the first keeps its device.
    second.remove()?;
    assert_eq!(first.gid(3)?, format!("::ffff:{}", first.address()?));
    Ok(())
}

#[test]
fn an_annotation_is_enough_where_podmans_hook_is_installed() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let site = bridge.site();
    let example = std::fs::read_to_string(workspace().join("examples/podman/masq.json"))?;
    let run_dir = site.run_dir().display().to_string();
    let own = example
        .replace(
            "/usr/bin/masq",
            &site.binaries().masq().display().to_string(),
        )
        .replace(
            "\"hook\",",
            &format!("\"--run-dir\", \"{run_dir}\", \"hook\","),
        );
    let hooks = site.scratch().join("hooks.d");
    std::fs::create_dir(&hooks)?;
    std::fs::write(hooks.join("masq.json"), own)?;
    let podman = Podman::new()?.hooks(&hooks);
    let plain = Launch::of(&RootFs::debian()?).on(bridge.network());
    let asks = plain.clone().options("--annotation dev.masq/tenant=blue");
    let two = [podman.start(&asks)?, podman.start(&asks)?];
    Meet::pingpong().run(site, &two[0], &two[1])?;
    let other = podman.start(&plain)?;
    assert!(site.report_of(&other).is_err());
    for container in two {
        container.remove()?;
    }
    assert!(site.containers()?.is_empty());
    Ok(())
}

#[test]
fn gids_follow_the_addresses_of_the_pod() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::with_policy(|subnet| policy(&format!("{subnet}, 10.9.6.0/24")))?
    else {
        return Ok(());
    };
    let container = bridge.podman().start(&bridge.blue(&RootFs::debian()?))?;
    let first = container.gid(3)?;
    container.ip("address add 10.9.6.5/24 dev eth0")?;
    eventually("the new address is a GID", || {
        Ok(container.devinfo()?.contains("::ffff:10.9.6.5"))
    })?;
    assert_eq!(container.gid(3)?, first, "index 3 is another one now");
    container.ip("address del 10.9.6.5/24 dev eth0")?;
    eventually("the address is no GID any more", || {
        Ok(!container.devinfo()?.contains("10.9.6.5"))
    })
}

#[test]
fn an_address_that_the_tenant_may_not_have_is_never_taken() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let container = bridge.podman().start(&bridge.blue(&RootFs::debian()?))?;
    let before = container.devinfo()?;
    container.ip("address add 172.31.255.9/24 dev eth0")?;
    // Another that is allowed is the sign that masqd has looked.
    let allowed = bridge.network().subnet().replace(".0/24", ".200");
    container.ip(&format!("address add {allowed}/24 dev eth0"))?;
    eventually("the allowed address is a GID", || {
        Ok(container.devinfo()?.contains(&format!("::ffff:{allowed}")))
    })?;
    let after = container.devinfo()?;
    assert!(!after.contains("172.31.255.9"), "{before}\n{after}");
    Ok(())
}

fn eventually(what: &str, done: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(15);
    while !done()? {
        anyhow::ensure!(Instant::now() < end, "not so after 15 seconds: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
