//! What masqd does for containers, without a runtime: namespaces are registered as a
//! hook would do it.

use masq_e2e::{
    Binaries, Finished, Host, Inside, containers, register, wait_for_containers,
    wait_for_listeners, wait_for_words,
};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const POLICY: &str = "
version: 1
tenants:
  blue:
    addresses: [10.88.0.0/16, \"fd88::/64\"]
    quotas: { containers: 3 }
    endpoints:
      pod: { address: auto }
      a: { address: 10.88.200.1 }
    rules: [{ name: pods, from: pod, to: pod, action: allow }]
  red:
    addresses: [10.88.0.0/16]
    endpoints: { pod: { address: auto } }
    rules: [{ from: any, to: any, action: allow }]
";

const PATIENCE: Duration = Duration::from_secs(60);

fn refusal(result: anyhow::Result<masq_admin::ContainerReport>) -> String {
    result.expect_err("it was registered").to_string()
}

fn gids(out: &Finished) -> Vec<String> {
    let lines = out.output.lines().filter(|line| line.contains("GID["));
    lines.map(|line| line.to_owned()).collect()
}

#[test]
fn containers_reach_each_other_by_their_own_addresses_and_other_tenants_not_at_all()
-> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32", "fd88::1/128"])?;
    let two = Inside::with_addresses(&["10.88.0.2/32", "fd88::2/128"])?;
    let red = Inside::with_addresses(&["10.88.0.2/32"])?;
    let at_one = one.register(&host, "one", "blue", None)?;
    let at_two = two.register(&host, "two", "blue", None)?;
    let at_red = red.register(&host, "red", "red", None)?;
    assert_eq!(at_one.endpoint, "blue/pod.one");
    for address in ["10.88.0.1", "fd88::1"] {
        let mut server =
            one.start_in(&host, &at_one, &format!("rping -s -a {address} -C 10 -V"))?;
        wait_for_listeners(&host, "blue/pod.one", 1, &mut server)?;
        two.run_in(&host, &at_two, &format!("rping -c -a {address} -C 10 -V"))?
            .success()?;
        server.wait(PATIENCE)?.success()?;
    }
    let refused = red.run_in(&host, &at_red, "rping -c -a 10.88.0.1 -C 1")?;
    assert!(!refused.status.success(), "{refused}");
    let info = red.run_in(&host, &at_red, "ibv_devinfo -v")?.success()?;
    assert_eq!(gids(&info).len(), 4, "{info}");
    host.wait_until_empty_but_containers()
}

#[test]
fn a_containers_socket_is_worth_nothing_outside_it() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let two = Inside::with_addresses(&["10.88.0.2/32"])?;
    let at_one = one.register(&host, "one", "blue", None)?;
    two.register(&host, "two", "blue", None)?;
    let dirs = std::fs::metadata(host.run_dir().join("containers"))?;
    assert_eq!(dirs.permissions().mode() & 0o777, 0o700);
    // By a container of the same tenant, and by the host's root.
    let stranger = two.run_in(&host, &at_one, "ibv_devinfo")?;
    assert!(
        stranger.output.contains("No IB devices found"),
        "{stranger}"
    );
    let mut outside = std::process::Command::new("ibv_devinfo");
    outside.env("MASQ_SOCKET", at_one.dir.join("run/masq.sock"));
    outside.env("LD_PRELOAD", host.binaries().library());
    let outside = masq_e2e::spawn(outside)?.wait(PATIENCE)?;
    assert!(outside.output.contains("No IB devices found"), "{outside}");
    let (_, report) = host.endpoint("blue/pod.one")?;
    let rules: Vec<_> = report.refusals.iter().map(|r| r.rule.as_str()).collect();
    assert_eq!(rules, ["container identity"; 2]);
    one.run_in(&host, &at_one, "ibv_devinfo")?.success()?;
    // A namespace within the container's is the container's.
    let nested = "unshare -Urpf --mount-proc ibv_devinfo";
    one.run_in(&host, &at_one, nested)?.success()?;
    Ok(())
}

#[test]
fn a_container_that_may_not_be_what_it_asks_for_is_refused_with_the_reason() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let far = Inside::with_addresses(&["192.168.7.7/32"])?;
    let twin = Inside::with_addresses(&["10.88.0.1/32"])?;
    let no_tenant = refusal(one.register(&host, "one", "green", None));
    assert!(
        no_tenant.contains("no tenant `green`; it has: blue, red"),
        "{no_tenant}"
    );
    let bad_id = refusal(one.register(&host, "../one", "blue", None));
    assert!(bad_id.contains("cannot be the id"), "{bad_id}");
    let outside = refusal(far.register(&host, "far", "blue", None));
    assert!(
        outside.contains("192.168.7.7: it lies outside"),
        "{outside}"
    );
    one.register(&host, "one", "blue", None)?;
    one.register(&host, "one", "blue", None)?;
    let two_at_once = refusal(one.register(&host, "one", "red", None));
    assert!(two_at_once.contains("two endpoints"), "{two_at_once}");
    let held = refusal(twin.register(&host, "twin", "blue", None));
    assert!(held.contains("10.88.0.1: blue/pod.one has it"), "{held}");
    let same_id = refusal(twin.register(&host, "one", "blue", None));
    assert!(same_id.contains("is called one and runs"), "{same_id}");
    let of_host = refusal(register(
        &host,
        masq_admin::Registration {
            container: "host".into(),
            pid: std::process::id() as i32,
            tenant: Some("blue".into()),
            ..Default::default()
        },
    ));
    assert!(of_host.contains("masq run"), "{of_host}");
    assert_eq!(containers(&host)?.len(), 1);
    let left = std::fs::read_dir(host.run_dir().join("containers"))?.count();
    assert_eq!(left, 1);
    Ok(())
}

#[test]
fn a_fixed_endpoint_is_one_containers_and_a_pod_is_one_endpoint() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let two = Inside::with_addresses(&["10.88.0.2/32"])?;
    let beside = one.beside()?;
    let first = one.register(&host, "one", "blue", Some("a"))?;
    assert_eq!(first.endpoint, "blue/a");
    let taken = refusal(two.register(&host, "two", "blue", Some("a")));
    assert!(taken.contains("one at a time"), "{taken}");
    let beside_it = beside.register(&host, "beside", "blue", Some("a"))?;
    assert_eq!(beside_it.endpoint, "blue/a");
    // Each has its own socket all the same.
    let stranger = one.run_in(&host, &beside_it, "ibv_devinfo")?;
    assert!(
        stranger.output.contains("No IB devices found"),
        "{stranger}"
    );
    beside.run_in(&host, &beside_it, "ibv_devinfo")?.success()?;
    one.kill();
    beside.kill();
    wait_for_containers(&host, <[_]>::is_empty)?;
    two.register(&host, "two", "blue", Some("a")).map(drop)
}

#[test]
fn a_container_that_runs_is_not_ended_by_another_of_its_id() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let at = one.register(&host, "one", "blue", None)?;
    let unregister = |pid| {
        let container = "one".to_owned();
        let request = masq_admin::Request::Unregister { container, pid };
        masq_admin::call(&host.run_dir(), &request)
    };
    for pid in [None, Some(at.pid + 1)] {
        let answer = unregister(pid)?;
        assert!(matches!(answer, masq_admin::Answer::Unregistered(false)));
    }
    one.run_in(&host, &at, "ibv_devinfo")?.success()?;
    let answer = unregister(Some(at.pid))?;
    assert!(matches!(answer, masq_admin::Answer::Unregistered(true)));
    assert!(containers(&host)?.is_empty());
    Ok(())
}

#[test]
fn a_tenant_has_only_so_many_containers() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let namespaces: Vec<_> = (1..=4)
        .map(|n| Inside::with_addresses(&[&format!("10.88.0.{n}/32")]))
        .collect::<Result<_, _>>()?;
    for (n, one) in namespaces.iter().enumerate().take(3) {
        one.register(&host, &format!("c{n}"), "blue", None)?;
    }
    let over = refusal(namespaces[3].register(&host, "c3", "blue", None));
    assert!(over.contains("quota containers of tenant blue"), "{over}");
    namespaces[3].register(&host, "c3", "red", None).map(drop)
}

#[test]
fn addresses_are_followed_and_those_of_others_are_not_taken() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let two = Inside::with_addresses(&["10.88.0.2/32"])?;
    let at_one = one.register(&host, "one", "blue", None)?;
    two.register(&host, "two", "blue", None)?;
    let of_one = |list: &[masq_admin::ContainerReport]| -> Vec<String> {
        let one = list.iter().find(|c| c.container == "one");
        let addresses = one.map_or(&[][..], |c| &c.addresses);
        addresses.iter().map(ToString::to_string).collect()
    };
    one.ip("address add 10.88.0.9/32 dev lo")?;
    wait_for_containers(&host, |list| of_one(list) == ["10.88.0.1", "10.88.0.9"])?;
    let info = one.run_in(&host, &at_one, "ibv_devinfo -v")?.success()?;
    assert!(
        gids(&info)[5].contains("::ffff:10.88.0.9, RoCE v2"),
        "{info}"
    );
    let sysfs = at_one.dir.join("sys/masq0/ports/1/gids/5");
    let gid = std::fs::read_to_string(sysfs)?;
    assert!(gid.ends_with("ffff:0a58:0009\n"), "{gid}");
    // Neither the other's nor one outside.
    one.ip("address add 10.88.0.2/32 dev lo")?;
    one.ip("address add 172.16.0.1/32 dev lo")?;
    one.ip("address add 10.88.0.10/32 dev lo")?;
    wait_for_containers(&host, |list| {
        of_one(list) == ["10.88.0.1", "10.88.0.9", "10.88.0.10"]
    })?;
    // Until it is nobody's.
    two.kill();
    wait_for_containers(&host, |list| of_one(list).contains(&"10.88.0.2".into()))?;
    // What goes is gone.
    one.ip("address del 10.88.0.9/32 dev lo")?;
    wait_for_containers(&host, |list| {
        list.len() == 1 && !of_one(list).contains(&"10.88.0.9".into())
    })
}

#[test]
fn a_container_that_has_all_it_may_gives_up_none_for_anothers() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let full: Vec<_> = (10..17).map(|n| format!("10.88.0.{n}")).collect();
    let wanted = ["10.88.0.1/32".to_owned()].into_iter();
    let wanted: Vec<_> = wanted
        .chain(full.iter().map(|a| format!("{a}/32")))
        .collect();
    let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
    let two = Inside::with_addresses(&wanted)?;
    let three = Inside::with_addresses(&["10.88.0.3/32", "10.88.0.1/32"])?;
    one.register(&host, "one", "blue", None)?;
    two.register(&host, "two", "blue", None)?;
    three.register(&host, "three", "blue", None)?;
    one.kill();
    wait_for_containers(&host, |list| list.len() == 2)?;
    let list = containers(&host)?;
    let has = |id: &str| {
        held(&list)
            .into_iter()
            .find(|(of, _)| *of == id)
            .map(|(_, has)| has)
    };
    assert_eq!(has("two"), Some(full));
    assert_eq!(has("three").map_or(0, |has| has.len()), 2);
    Ok(())
}

#[test]
fn a_session_outlives_further_addresses_and_ends_with_the_first() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let at = one.register(&host, "one", "blue", None)?;
    let mut server = one.start_in(&host, &at, "rping -s -a 10.88.0.1 -C 1 -V")?;
    wait_for_listeners(&host, "blue/pod.one", 1, &mut server)?;
    let sessions = host.overview()?.sessions.len();
    one.ip("address add 10.88.0.5/32 dev lo")?;
    wait_for_containers(&host, |list| list[0].addresses.len() == 2)?;
    assert!(server.is_running());
    assert_eq!(host.overview()?.sessions.len(), sessions);
    one.ip("address del 10.88.0.1/32 dev lo")?;
    wait_for_containers(&host, |list| list[0].addresses.len() == 1)?;
    assert_eq!(host.overview()?.sessions.len(), 0);
    assert!(host.log().contains("its address at GID index 3 is gone"));
    Ok(())
}

#[test]
fn an_address_that_arrives_after_the_start_is_had_by_open_sessions() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&[])?;
    let at = one.register(&host, "one", "blue", None)?;
    assert!(at.addresses.is_empty());
    let mut events = one.start_in(&host, &at, "ibv_asyncwatch -d masq0")?;
    wait_for_words(&mut events, "async event FD")?;
    one.ip("address add 10.88.0.1/32 dev lo")?;
    wait_for_words(&mut events, "GID")?;
    assert_eq!(host.overview()?.sessions.len(), 1);
    Ok(())
}

#[test]
fn a_reload_takes_containers_along_and_lets_go_of_those_without_a_place() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let red = Inside::with_addresses(&["10.88.0.1/32"])?;
    let at = one.register(&host, "one", "blue", None)?;
    red.register(&host, "red", "red", None)?;
    let mut server = one.start_in(&host, &at, "rping -s -a 10.88.0.1 -C 1 -V")?;
    wait_for_listeners(&host, "blue/pod.one", 1, &mut server)?;
    // Another rule changes nothing for it.
    std::fs::write(
        host.policy_file(),
        POLICY.replace("name: pods", "name: all"),
    )?;
    host.masq_output(["reload"])?.success()?;
    assert_eq!(containers(&host)?.len(), 2);
    one.run_in(&host, &at, "rping -c -a 10.88.0.1 -C 1 -V")?
        .success()?;
    server.wait(PATIENCE)?.success()?;
    let explained = host.masq_output([
        "policy",
        "explain",
        "--from",
        "blue/pod.one",
        "--to",
        "10.88.0.1",
    ])?;
    assert!(explained.success()?.output.contains("blue rule 1 \"all\""));
    // red's containers are no more.
    let without = POLICY.replace(
        "{ pod: { address: auto } }",
        "{ pod: { address: auto, containers: none } }",
    );
    std::fs::write(host.policy_file(), without)?;
    host.masq_output(["reload"])?.success()?;
    let left: Vec<_> = containers(&host)?.into_iter().map(|c| c.endpoint).collect();
    assert_eq!(left, ["blue/pod.one"]);
    assert!(!host.run_dir().join("containers/red").exists());
    Ok(())
}

/// The addresses that containers have, by their ids.
fn held(list: &[masq_admin::ContainerReport]) -> Vec<(&str, Vec<String>)> {
    let text =
        |c: &masq_admin::ContainerReport| c.addresses.iter().map(|a| a.to_string()).collect();
    let mut held: Vec<_> = list
        .iter()
        .map(|c| (c.container.as_str(), text(c)))
        .collect();
    held.sort();
    held
}

#[test]
fn a_reload_gives_no_containers_address_to_another() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let two = Inside::with_addresses(&["10.88.0.2/32"])?;
    one.register(&host, "one", "blue", None)?;
    let at = two.register(&host, "two", "blue", None)?;
    one.ip("address add 10.88.0.2/32 dev lo")?;
    one.ip("address add 10.88.0.3/32 dev lo")?;
    let has_third = |list: &[_]| held(list).iter().any(|(_, has)| has.len() == 2);
    wait_for_containers(&host, has_third)?;
    host.masq_output(["reload"])?.success()?;
    let list = containers(&host)?;
    let expected = |name, has: &[&str]| (name, has.iter().map(|a| (*a).to_owned()).collect());
    let own = ["10.88.0.1", "10.88.0.3"];
    assert_eq!(
        held(&list),
        [expected("one", &own), expected("two", &["10.88.0.2"])]
    );
    // What a policy takes away, sysfs does not show.
    let fewer = POLICY.replacen("10.88.0.0/16", "10.88.0.0/31", 1);
    let fewer = fewer.replace("10.88.200.1", "10.88.0.0");
    std::fs::write(host.policy_file(), fewer)?;
    host.masq_output(["reload"])?.success()?;
    let list = containers(&host)?;
    assert_eq!(
        held(&list),
        [expected("one", &["10.88.0.1"]), expected("two", &[])]
    );
    let gid = std::fs::read_to_string(at.dir.join("sys/masq0/ports/1/gids/3"))?;
    assert!(!gid.contains("ffff"), "{gid}");
    Ok(())
}

#[test]
fn a_masqd_that_is_started_again_takes_up_the_containers_that_still_run() -> anyhow::Result<()> {
    let mut host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let two = Inside::with_addresses(&["10.88.0.2/32"])?;
    let at = one.register(&host, "one", "blue", None)?;
    two.register(&host, "two", "blue", None)?;
    host.kill();
    two.kill();
    host.restart()?;
    let left: Vec<_> = containers(&host)?
        .into_iter()
        .map(|c| c.container)
        .collect();
    assert_eq!(left, ["one"]);
    assert!(!host.run_dir().join("containers/two").exists());
    let info = one.run_in(&host, &at, "ibv_devinfo -v")?.success()?;
    assert!(gids(&info)[3].contains("10.88.0.1"), "{info}");
    Ok(())
}

#[test]
fn a_masqd_that_is_started_again_gives_no_containers_address_to_another() -> anyhow::Result<()> {
    let mut host = Host::with_policy(POLICY)?;
    let own = ["10.88.0.1", "10.88.0.2", "10.88.0.3"];
    let list: Vec<_> = own
        .iter()
        .map(|address| Inside::with_addresses(&[&format!("{address}/32")]))
        .collect::<Result<_, _>>()?;
    for (number, one) in list.iter().enumerate() {
        one.register(&host, &format!("c{number}"), "blue", None)?;
    }
    // Whichever is taken up first, it wants those of the others.
    for one in &list {
        for address in own {
            let _ = one.ip(&format!("address add {address}/32 dev lo"));
        }
    }
    host.kill();
    host.restart()?;
    let found = containers(&host)?;
    let expected = ["c0", "c1", "c2"].into_iter().zip(own);
    let expected: Vec<_> = expected.map(|(id, a)| (id, vec![a.to_owned()])).collect();
    assert_eq!(held(&found), expected);
    Ok(())
}

#[test]
fn a_container_stays_what_it_was_at_its_start_whatever_addresses_it_has_since() -> anyhow::Result<()>
{
    let policy = "
version: 1
tenants:
  blue:
    addresses: [10.88.0.0/16]
    containers: [{ network: 10.88.0.0/16 }]
    endpoints: { pod: { address: auto } }
  red:
    addresses: [10.99.0.0/16]
    containers: [{ network: 10.99.0.0/16 }]
    endpoints: { pod: { address: auto } }
";
    let mut host = Host::with_policy(policy)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let registration = masq_admin::Registration {
        tenant: None,
        ..one.registration("one", "", None)
    };
    assert_eq!(register(&host, registration)?.endpoint, "blue/pod.one");
    host.kill();
    one.ip("address add 10.99.0.1/32 dev lo")?;
    one.ip("address del 10.88.0.1/32 dev lo")?;
    host.restart()?;
    let list = containers(&host)?;
    assert_eq!(list[0].endpoint, "blue/pod.one");
    assert_eq!(held(&list), [("one", vec![])]);
    one.ip("address add 10.88.0.7/32 dev lo")?;
    wait_for_containers(&host, |list| {
        held(list) == [("one", vec!["10.88.0.7".to_owned()])]
    })
}

#[test]
fn a_container_that_cannot_have_a_socket_leaves_nothing() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let dir = host.run_dir().join("containers/one");
    std::fs::create_dir_all(dir.join("run/masq.sock/in-the-way"))?;
    refusal(one.register(&host, "one", "blue", None));
    assert!(!dir.exists());
    assert!(containers(&host)?.is_empty());
    one.register(&host, "one", "blue", None).map(drop)
}

#[test]
fn a_masqd_that_stops_lets_containers_finish_and_begin_nothing() -> anyhow::Result<()> {
    let mut host = Host::launch(Binaries::find()?, POLICY, &["--drain", "60"])?;
    let one = Inside::with_addresses(&["10.88.0.1/32"])?;
    let at = one.register(&host, "one", "blue", None)?;
    let mut server = one.start_in(&host, &at, "rping -s -a 10.88.0.1 -C 1 -V")?;
    wait_for_listeners(&host, "blue/pod.one", 1, &mut server)?;
    host.signal(Signal::TERM);
    let until = std::time::Instant::now() + PATIENCE;
    while !host.log().contains("no new sessions") {
        assert!(std::time::Instant::now() < until, "{}", host.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let late = one.run_in(&host, &at, "ibv_devinfo")?;
    assert!(late.output.contains("No IB devices found"), "{late}");
    assert!(server.is_running() && host.is_running());
    Ok(())
}

#[test]
fn nothing_is_left_of_containers_that_come_and_go() -> anyhow::Result<()> {
    let host = Host::with_policy(POLICY)?;
    let descriptors = || -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", host.pid()))?.count())
    };
    let mut before = 0;
    for round in 0..12 {
        let one = Inside::with_addresses(&["10.88.0.1/32"])?;
        let at = one.register(&host, "again", "blue", None)?;
        one.run_in(&host, &at, "ibv_devinfo")?.success()?;
        one.kill();
        wait_for_containers(&host, <[_]>::is_empty)?;
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while std::fs::read_dir(host.run_dir().join("containers"))?.count() > 0
            || (round > 1 && descriptors()? != before)
        {
            let now = descriptors()?;
            assert!(
                std::time::Instant::now() < end,
                "{now} descriptors, not {before}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        if round == 1 {
            std::thread::sleep(Duration::from_millis(50));
            before = descriptors()?;
        }
    }
    assert_eq!(host.overview()?.endpoints.len(), 1, "the fixed one");
    Ok(())
}
