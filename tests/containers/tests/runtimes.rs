//! The runtimes themselves, without masq: what fails here is the machine's fault.

use masq_container_tests::{
    Bundle, Bundles, Container, Containerd, Docker, Launch, PodNet, Podman, RootFs, Runtime, User,
    usable,
};
use std::path::Path;

const RUNC: &str = "/usr/sbin/runc";

fn works(container: Container, address: &str) -> anyhow::Result<()> {
    let out = container.run("id -u")?.success()?;
    assert_eq!(out.output.trim(), "0");
    assert_eq!(container.address()?.to_string(), address);
    assert!(container.root().join("etc/passwd").exists());
    let pid = container.pid();
    container.remove()?;
    assert!(!Path::new(&format!("/proc/{pid}/root/etc")).exists());
    Ok(())
}

#[test]
fn podman_runs_containers_with_runc_and_crun_on_a_network_of_their_own() -> anyhow::Result<()> {
    if !usable(Runtime::Podman) {
        return Ok(());
    }
    let image = RootFs::busybox()?;
    let podman = Podman::new()?;
    let [one, other] = [podman.network()?, podman.network()?];
    assert_ne!(one.subnet(), other.subnet());
    let container = podman.start(&Launch::of(&image).on(&one))?;
    let address = one.subnet().replace(".0/24", ".2");
    works(container, &address)?;
    if usable(Runtime::Crun) {
        let podman = Podman::with_crun()?;
        let container = podman.start(&Launch::of(&image).on(&other))?;
        works(container, &other.subnet().replace(".0/24", ".2"))?;
    }
    Ok(())
}

#[test]
fn two_containers_may_have_the_same_address() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let image = RootFs::busybox()?;
    let runc = Bundles::runc()?;
    let nets = [
        PodNet::with_address("10.9.8.7/24")?,
        PodNet::with_address("10.9.8.7/24")?,
    ];
    let one = runc.start(&Bundle::of(&image).inside(&nets[0]))?;
    let other = runc.start(&Bundle::of(&image).inside(&nets[1]))?;
    works(one, "10.9.8.7")?;
    works(other, "10.9.8.7")
}

#[test]
fn crun_runs_bundles() -> anyhow::Result<()> {
    if !usable(Runtime::Crun) {
        return Ok(());
    }
    let net = PodNet::with_address("10.9.8.7/24")?;
    let bundle = Bundle::of(&RootFs::busybox()?).inside(&net);
    works(Bundles::crun()?.start(&bundle)?, "10.9.8.7")
}

#[test]
fn containerd_runs_containers() -> anyhow::Result<()> {
    if !usable(Runtime::Containerd) {
        return Ok(());
    }
    let containerd = Containerd::start()?;
    let net = PodNet::with_address("10.9.8.7/24")?;
    let container = containerd.run(&RootFs::busybox()?, &net, &[], Path::new(RUNC))?;
    works(container, "10.9.8.7")
}

#[test]
fn docker_runs_containers() -> anyhow::Result<()> {
    if !usable(Runtime::Docker) {
        return Ok(());
    }
    let docker = Docker::start(Path::new(RUNC), &[("own", &[])])?;
    let container = docker.run(&RootFs::busybox()?, "own", "")?;
    let address = container.address()?.to_string();
    works(container, &address)
}

#[test]
fn podman_runs_containers_of_a_user() -> anyhow::Result<()> {
    if !usable(Runtime::Rootless) {
        return Ok(());
    }
    let user = User::new()?;
    let podman = Podman::rootless(&user)?;
    let container = podman.start(&Launch::of(&RootFs::busybox()?))?;
    let out = container.run("cat /proc/self/uid_map")?.success()?;
    assert!(out.output.contains(&user.uid().to_string()), "{out}");
    container.remove()
}
