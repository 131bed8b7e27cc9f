//! A pingpong with each of the other ways to run containers.

use masq_container_tests::{
    Bundle, Bundles, Container, Containerd, Docker, Launch, Meet, PodNet, Podman, RootFs, Runtime,
    Site, policy, usable,
};

const SUBNET: &str = "10.9.5.0/24";

fn nets() -> anyhow::Result<[PodNet; 2]> {
    PodNet::pair("10.9.5.1/24", "10.9.5.2/24")
}

fn pingpong(site: &Site, [server, client]: [Container; 2]) -> anyhow::Result<()> {
    let before = site.containers()?.len();
    assert_eq!(before, 2);
    Meet::pingpong().run(site, &server, &client)?;
    server.remove()?;
    client.remove()?;
    assert!(site.containers()?.is_empty());
    Ok(())
}

fn bundles(runtime: &Bundles) -> anyhow::Result<()> {
    let nets = nets()?;
    let site = Site::start(&policy(SUBNET))?;
    let before = site.footprint()?;
    let bundle = Bundle::of(&RootFs::debian()?).edits(site.devices().edits("blue")?);
    let two = [
        runtime.start(&bundle.clone().inside(&nets[0]))?,
        runtime.start(&bundle.inside(&nets[1]))?,
    ];
    pingpong(&site, two)?;
    site.wait_until_back_to(&before)
}

#[test]
fn runc() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    bundles(&Bundles::runc()?)
}

#[test]
fn crun() -> anyhow::Result<()> {
    if !usable(Runtime::Crun) {
        return Ok(());
    }
    bundles(&Bundles::crun()?)
}

#[test]
fn podman_with_crun() -> anyhow::Result<()> {
    if !usable(Runtime::Podman) || !usable(Runtime::Crun) {
        return Ok(());
    }
    let podman = Podman::with_crun()?;
    let network = podman.network()?;
    let site = Site::start(&policy(network.subnet()))?;
    let launch = Launch::of(&RootFs::debian()?)
        .on(&network)
        .device(site.devices(), "blue");
    pingpong(&site, [podman.start(&launch)?, podman.start(&launch)?])
}

#[test]
fn containerd_by_the_wrapper() -> anyhow::Result<()> {
    if !usable(Runtime::Containerd) {
        return Ok(());
    }
    let nets = nets()?;
    let site = Site::start(&policy(SUBNET))?;
    let runtime = site.wrapper()?;
    let containerd = Containerd::start()?;
    let image = RootFs::debian()?;
    let asks = [("dev.masq/tenant", "blue")];
    let two = [
        containerd.run(&image, &nets[0], &asks, &runtime)?,
        containerd.run(&image, &nets[1], &asks, &runtime)?,
    ];
    pingpong(&site, two)
}

#[test]
fn docker_by_the_wrapper() -> anyhow::Result<()> {
    if !usable(Runtime::Docker) {
        return Ok(());
    }
    // Docker's own choice of a subnet lies in one of these.
    let anywhere = policy("172.16.0.0/12, 192.168.0.0/16, 10.0.0.0/8").replace(
        "  red:\n",
        "  red:\n    containers: [{ labels: { team: red } }]\n",
    );
    let site = Site::start(&anywhere)?;
    let names: [(&str, &[&str]); 2] = [
        ("masq-blue", &["--masq-device", "blue"]),
        ("masq", &["--masq-select"]),
    ];
    let docker = Docker::start(&site.wrapper()?, &names)?;
    let image = RootFs::debian()?;
    let blue = || docker.run(&image, "masq-blue", "");
    pingpong(&site, [blue()?, blue()?])?;
    // By its labels, or not at all.
    let red = docker.run(&image, "masq", "--label team=red")?;
    assert!(site.report_of(&red)?.endpoint.starts_with("red/pod."));
    let none = docker.run(&image, "masq", "--label team=green")?;
    assert!(site.report_of(&none).is_err());
    Ok(())
}

#[test]
fn bubblewrap_by_masq_run() -> anyhow::Result<()> {
    if !usable(Runtime::Bubblewrap) {
        return Ok(());
    }
    let policy = "version: 1\ntenants:\n  blue:\n    endpoints:\n      a: { address: 10.0.0.1 }\n";
    let site = Site::start(policy)?;
    let root = RootFs::debian()?;
    let dir = root.dir().display().to_string();
    let library = site.binaries().library().display().to_string();
    let run_dir = site.run_dir().display().to_string();
    // What `masq run` points to must be seen inside.
    let mut words = vec!["--bind", &dir, "/", "--dev", "/dev", "--proc", "/proc"];
    let lib_dir = std::path::Path::new(&library).parent().unwrap();
    let lib_dir = lib_dir.display().to_string();
    words.extend(["--tmpfs", "/tmp", "--ro-bind", &lib_dir, &lib_dir]);
    words.extend(["--bind", &run_dir, &run_dir, "--unshare-pid"]);
    let out = site
        .run_as("blue/a", "bwrap", words.into_iter().chain(["ibv_devinfo"]))?
        .success()?;
    assert!(out.output.contains("PORT_ACTIVE"), "{out}");
    Ok(())
}
