//! Which runtimes can work on this machine: each starts a container, without masq.

use crate::available::{Runtime, available};
use crate::bundle::{Bundle, Bundles};
use crate::command::{command, output_of};
use crate::container::Container;
use crate::containerd::Containerd;
use crate::docker::Docker;
use crate::netns::PodNet;
use crate::podman::{Launch, Podman};
use crate::rootfs::RootFs;
use crate::user::User;
use std::path::PathBuf;

/// Whether `runtime` can work here: its version.
///
/// # Errors
/// Why it cannot, in words.
pub fn probe(runtime: Runtime) -> Result<String, String> {
    let version = available(runtime)?;
    start(runtime).map_err(|error| format!("{error:#}"))?;
    Ok(version)
}

fn start(runtime: Runtime) -> anyhow::Result<()> {
    let image = RootFs::busybox()?;
    let works = |container: Container| container.run("true")?.success().map(drop);
    match runtime {
        Runtime::Podman => {
            let podman = Podman::new()?;
            let network = podman.network()?;
            works(podman.start(&Launch::of(&image).on(&network))?)
        }
        Runtime::Rootless => {
            let user = User::new()?;
            works(Podman::rootless(&user)?.start(&Launch::of(&image))?)
        }
        Runtime::Runc => works(Bundles::runc()?.start(&Bundle::of(&image))?),
        Runtime::Crun => works(Bundles::crun()?.start(&Bundle::of(&image))?),
        Runtime::Containerd => {
            let net = PodNet::with_address("10.9.9.9/24")?;
            let runc = PathBuf::from(output_of(command(["sh", "-c", "command -v runc"]))?);
            works(Containerd::start()?.run(&image, &net, &[], &runc)?)
        }
        Runtime::Docker => {
            let runc = PathBuf::from(output_of(command(["sh", "-c", "command -v runc"]))?);
            let docker = Docker::start(&runc, &[("own", &[])])?;
            works(docker.run(&image, "own", "")?)
        }
        Runtime::Bubblewrap => {
            let mut bwrap = command(["bwrap", "--bind"]);
            bwrap.arg(image.dir()).args(["/", "--unshare-pid", "true"]);
            output_of(bwrap).map(drop)
        }
    }
}
