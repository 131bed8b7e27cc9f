//! Containers of podman on two hosts, each with a network of its own for them: those of a
//! class talk to endpoints and containers of the other host by virtual addresses.

use anyhow::Context as _;
use masq_container_tests::{
    CdiDevices, Container, Launch, Meet, PodNet, Podman, RootFs, Runtime, usable,
};
use masq_e2e::{Host, Hosts, HostsConfig, Meeting, pair};
use std::net::Ipv4Addr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// `b` is for all pods; `c`, on the same host, for none.
const POLICY: &str = "
version: 1
hosts: HOSTS
tenants:
  blue:
    addresses: [10.0.0.0/24, 10.88.0.0/16]
    endpoints:
      b: { address: 10.0.0.2, host: beta }
      c: { address: 10.0.0.3, host: beta }
      pod: { address: auto }
    rules:
      - { name: pods-and-b, from: pod, to: b, both_ways: true, action: allow }
      - { name: pods, from: pod, to: pod, action: allow }
";
const ALPHA: usize = 0;
const BETA: usize = 1;

/// Two hosts; what ends first stands first.
struct Two {
    podman: Podman,
    devices: CdiDevices,
    hosts: Hosts,
}

/// A container and its network.
struct Pod {
    container: Container,
    _net: PodNet,
}

impl Two {
    fn start() -> anyhow::Result<Option<Self>> {
        if !usable(Runtime::Podman) {
            return Ok(None);
        }
        let hosts = HostsConfig::default().etcd().policy(POLICY).start()?;
        for (at, other) in [(ALPHA, BETA), (BETA, ALPHA)] {
            let route = format!(
                "ip route add {} via {}",
                format_args!("10.88.{other}.0/24"),
                hosts.address(other)
            );
            hosts.namespace(at).shell(&route)?;
        }
        // Endpoints that programs of a host are have a virtual address only; this one has
        // a network as well, so that pingpong meets it there.
        hosts
            .namespace(BETA)
            .shell("ip address add 10.0.0.2/32 dev lo")?;
        let via = format!("ip route add 10.0.0.2 via {}", hosts.address(BETA));
        hosts.namespace(ALPHA).shell(&via)?;
        Ok(Some(Self {
            podman: Podman::new()?,
            devices: CdiDevices::of(hosts.at(ALPHA))?,
            hosts,
        }))
    }

    /// A pod of blue: 10.88.HOST.LAST.
    fn pod(&self, host: usize, last: u8) -> anyhow::Result<Pod> {
        let address = Ipv4Addr::new(10, 88, host as u8, last);
        let net = PodNet::behind(self.hosts.namespace(host), address)?;
        let launch = Launch::of(&RootFs::debian()?).inside(&net);
        let devices = match host {
            ALPHA => &self.devices,
            _ => &CdiDevices::of(self.hosts.at(host))?,
        };
        let container = self.podman.start(&launch.device(devices, "blue:pod"))?;
        let report = container.report(self.hosts.at(host))?;
        assert_eq!(report.addresses, [address]);
        assert!(report.endpoint.starts_with("blue/pod."));
        Ok(Pod {
            container,
            _net: net,
        })
    }
}

#[test]
fn a_container_of_a_class_talks_to_an_endpoint_of_another_host_and_not_to_the_one_beside_it()
-> anyhow::Result<()> {
    let Some(two) = Two::start()? else {
        return Ok(());
    };
    let beta = two.hosts.at(BETA);
    let pod = two.pod(ALPHA, 2)?;
    let rping = |endpoint: &str, address: &str| {
        let line = format!("rping -s -P -a {address} -V");
        let server = Meeting::new(&line, "").between(endpoint, endpoint);
        let server = server.start_server(beta)?;
        let client = format!("rping -c -a {address} -v -V -C 20");
        anyhow::Ok((pod.container.run(&client)?, server))
    };
    let (client, _server) = rping("blue/b", "10.0.0.2")?;
    let client = client.success().with_context(|| beta.log())?;
    assert_eq!(client.output.matches("ping data: ").count(), 20, "{client}");
    let (client, _server) = rping("blue/c", "10.0.0.3")?;
    assert!(!client.status.success(), "{client}");
    assert!(client.output.contains("REJECTED"), "{client}");

    let pingpong = |endpoint: &str| {
        let pair = pair("ibv_rc_pingpong -g 3 -c -s 20000 -n 100").between(endpoint, endpoint);
        let (server, port) = pair.start_server(beta)?;
        let line = format!("ibv_rc_pingpong -g 3 -c -s 20000 -n 100 -p {port} 10.0.0.2");
        anyhow::Ok((pod.container.run(&line)?, server))
    };
    let (client, server) = pingpong("blue/b")?;
    client.success().with_context(|| beta.log())?;
    server.wait(PATIENCE)?.success()?;
    // Each masqd refuses its own side: the container's was told above, and here the other,
    // which comes first.
    let (client, server) = pingpong("blue/c")?;
    assert!(!client.status.success(), "{client}");
    let server = server.wait(PATIENCE)?;
    // EPERM of ibv_modify_qp.
    assert!(
        server.output.contains("Failed to modify QP to RTR"),
        "{server}"
    );
    let refused = |host: &Host, endpoint: &str| {
        let totals = host.overview()?.refusals_total;
        anyhow::Ok(
            totals
                .iter()
                .any(|r| r.endpoint == endpoint && r.rule == "default deny"),
        )
    };
    assert!(refused(two.hosts.at(ALPHA), "pod")? && refused(beta, "c")?);
    Ok(())
}

#[test]
fn containers_of_two_hosts_meet_by_their_own_addresses_as_soon_as_they_run() -> anyhow::Result<()> {
    let Some(two) = Two::start()? else {
        return Ok(());
    };
    let far = two.pod(BETA, 2)?;
    let beta = two.hosts.at(BETA);
    let rping = Meet::by_rdma_cm("rping -s -a {} -V -C 20", "rping -c -a {} -v -V -C 20");
    for last in [2, 3] {
        let near = two.pod(ALPHA, last)?;
        Meet::pingpong().run(beta, &far.container, &near.container)?;
        let met = rping.run(beta, &far.container, &near.container)?;
        assert!(met.client.output.contains("rdma-ping-19"), "{}", met.client);
    }
    Ok(())
}
