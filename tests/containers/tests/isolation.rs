//! What a container may not do, and what the error says.

use masq_container_tests::{
    Bridge, Bundle, Bundles, Meet, PodNet, RootFs, Runtime, Site, policy, usable,
};
use std::time::{Duration, Instant};

#[test]
fn a_tenant_with_the_same_address_reaches_and_sees_nothing_of_another() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let runc = Bundles::runc()?;
    let image = RootFs::debian()?;
    let [near, far] = PodNet::pair("10.9.4.1/24", "10.9.4.2/24")?;
    let apart = PodNet::with_address("10.9.4.2/24")?;
    let site = Site::start(&policy("10.9.4.0/24"))?;
    let start = |tenant: &str, net: &PodNet| -> anyhow::Result<_> {
        let edits = site.devices().edits(tenant)?;
        runc.start(&Bundle::of(&image).edits(edits).inside(net))
    };
    let server = start("blue", &near)?;
    // That TCP and RDMA lead from the one place to the other, for blue.
    let friend = start("blue", &far)?;
    Meet::pingpong().run(&site, &server, &friend)?;
    friend.remove()?;
    // red sits in the same place, and has the address of a blue container elsewhere.
    let red = start("red", &far)?;
    let twin = start("blue", &apart)?;
    assert_eq!(red.gid(3)?, twin.gid(3)?);
    let met = Meet::pingpong().outcome(&site, &server, &red)?;
    // They found each other by TCP, and no further.
    assert!(
        met.client.output.contains("remote address"),
        "{}",
        met.client
    );
    assert!(!met.client.status.success(), "{}", met.client);
    assert!(!met.server.output.contains("1000 iters"), "{}", met.server);
    assert!(!met.client.output.contains("1000 iters"), "{}", met.client);
    let (blues, reds) = (twin.devinfo()?, red.devinfo()?);
    assert_eq!(reds.matches("hca_id").count(), 1, "{reds}");
    assert!(!reds.contains("10.9.4.1"), "{reds}");
    let guid = |text: &str| {
        let line = text.lines().find(|line| line.contains("node_guid"));
        line.map(str::to_owned)
    };
    assert!(guid(&reds).is_some());
    assert_ne!(guid(&reds), guid(&blues));
    Ok(())
}

#[test]
fn the_socket_of_another_container_refuses() -> anyhow::Result<()> {
    let Some(bridge) = Bridge::new()? else {
        return Ok(());
    };
    let image = RootFs::debian()?;
    let podman = bridge.podman();
    let owner = podman.start(&bridge.blue(&image))?;
    let its = bridge.site().report_of(&owner)?.dir.join("run");
    let mount = format!("-v {}:/others", its.display());
    for tenant in ["red", "blue"] {
        let thief = podman.start(&bridge.of(tenant, &image).options(&mount))?;
        let found = thief.sh("test -S /others/masq.sock")?;
        assert!(found.status.success(), "the socket is not where it was put");
        let out = thief.sh("MASQ_SOCKET=/others/masq.sock ibv_devinfo")?;
        assert!(!out.output.contains("PORT_ACTIVE"), "{tenant}: {out}");
        assert!(!out.status.success(), "{tenant}: {out}");
        // Its own serves it, by the same way.
        let out = thief.sh("MASQ_SOCKET=/run/masq/masq.sock ibv_devinfo")?;
        assert!(out.output.contains("PORT_ACTIVE"), "{tenant}: {out}");
    }
    // A container that nobody registered.
    let stranger = masq_container_tests::Launch::of(&image)
        .on(bridge.network())
        .options(&mount)
        .options("-e MASQ_SOCKET=/others/masq.sock")
        .options(&format!(
            "-v {}:/usr/lib/x86_64-linux-gnu/libibverbs.so.1",
            bridge.site().binaries().library().display()
        ));
    let stranger = podman.start(&stranger)?;
    let out = stranger.run("ibv_devinfo")?;
    assert!(!out.status.success(), "{out}");
    let out = owner.run("ibv_devinfo")?.success()?;
    assert!(out.output.contains("PORT_ACTIVE"), "{out}");
    // It was not the mount, nor the file's mode, that kept the three out.
    let refusals = bridge.site().overview()?.refusals_total;
    let by_identity = refusals.iter().filter(|r| r.rule == "container identity");
    assert!(
        by_identity.map(|r| r.count).sum::<u64>() >= 3,
        "{refusals:?}"
    );
    Ok(())
}

/// That `result` is an error which holds all these words.
fn refused<T: std::fmt::Debug>(result: anyhow::Result<T>, words: &[&str]) {
    let error = format!("{:#}", result.expect_err("it started"));
    for word in words {
        assert!(error.contains(word), "{word} is not in: {error}");
    }
}

#[test]
fn a_tenant_that_a_container_may_not_have_keeps_it_from_starting() -> anyhow::Result<()> {
    let choosy = |subnet: &str| {
        policy(subnet).replace(
            "  red:\n",
            "  red:\n    containers: [{ labels: { team: red } }]\n",
        )
    };
    let Some(bridge) = Bridge::with_policy(choosy)? else {
        return Ok(());
    };
    let image = RootFs::busybox()?;
    let podman = bridge.podman();
    let before = bridge.site().footprint()?;
    refused(podman.start(&bridge.of("red", &image)), &["red"]);
    let both = bridge
        .of("red", &image)
        .options("--annotation dev.masq/tenant=blue");
    refused(podman.start(&both), &["red", "blue"]);
    let unknown = bridge
        .blue(&image)
        .options("--annotation dev.masq/endpoint=nobody");
    refused(podman.start(&unknown), &["nobody"]);
    let path = bridge
        .blue(&image)
        .options("--annotation dev.masq/endpoint=../../etc");
    refused(podman.start(&path), &["../../etc"]);
    bridge.site().wait_until_back_to(&before)?;
    let may = bridge.of("red", &image).options("--annotation team=red");
    podman.start(&may)?;
    Ok(())
}

#[test]
fn a_fixed_endpoint_is_held_by_one_container_at_a_time() -> anyhow::Result<()> {
    let fixed = |subnet: &str| {
        let address = subnet.replace(".0/24", ".77");
        policy(subnet).replacen(
            "      pod: { address: auto }\n",
            &format!("      pod: {{ address: auto }}\n      store: {{ address: {address} }}\n"),
            1,
        )
    };
    let Some(bridge) = Bridge::with_policy(fixed)? else {
        return Ok(());
    };
    let image = RootFs::debian()?;
    let podman = bridge.podman();
    let store = bridge
        .of("blue", &image)
        .options("--annotation dev.masq/endpoint=store");
    let first = podman.start(&store)?;
    assert!(first.gid(3)?.ends_with(".77"));
    refused(podman.start(&store), &["store"]);
    first.remove()?;
    podman.start(&store)?;
    Ok(())
}

#[test]
fn without_masqd_the_error_is_clear_and_comes_soon() -> anyhow::Result<()> {
    let Some(mut bridge) = Bridge::new()? else {
        return Ok(());
    };
    let image = RootFs::busybox()?;
    let launch = bridge.blue(&image);
    let before = bridge.podman().start(&launch)?;
    bridge.site_mut().kill();
    let since = Instant::now();
    refused(bridge.podman().start(&launch), &["masqd"]);
    assert!(
        since.elapsed() < Duration::from_secs(15),
        "{:?}",
        since.elapsed()
    );
    // What ran already can still be removed.
    before.remove()
}
