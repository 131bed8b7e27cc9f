//! TCP programs over RDMA by librspreload.
//!
//! Of rdma-core 44's rsockets, things stand in the way of programs on any device;
//! later versions mended them. `programs/rspreload_fixes.c`, preloaded, helps with three
//! (accept4, select, timeouts of poll). A connection that arrives while its listener
//! sleeps in poll is noticed after five seconds, an interval that
//! /etc/rdma/rsocket/wake_up_interval sets, for which /etc gets an overlay in a mount
//! namespace. And a process hangs that has accepted more than five, since its service
//! thread keeps an array that was reallocated: programs are run with four at most.

use crate::cc::compile_shared;
use crate::host::Host;
use crate::process::Running;

/// Where Debian's librdmacm1 has it.
pub const LIBRSPRELOAD: &str = "/usr/lib/x86_64-linux-gnu/rsocket/librspreload.so";

/// `sh -c SCRIPT sh DIR PROGRAM …`
const SCRIPT: &str = r#"
set -e
mount -t tmpfs masq-etc "$1"
mkdir -p "$1/upper/rdma/rsocket" "$1/work"
echo 5 > "$1/upper/rdma/rsocket/wake_up_interval"
mount -t overlay masq-etc -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc
shift
exec "$@"
"#;

/// Starts a command line, split at blanks, as `endpoint` with its TCP sockets
/// turned into rsockets. `vars` are further variables (`NAME=VALUE`).
///
/// # Errors
/// It cannot be started.
pub fn start_over_rdma(
    host: &Host,
    endpoint: &str,
    vars: &[&str],
    line: &str,
) -> anyhow::Result<Running> {
    let fixes = compile_shared("rspreload_fixes", host.scratch())?;
    let preload = format!("LD_PRELOAD={}:{LIBRSPRELOAD}", fixes.display());
    let dir = host.scratch().join("etc");
    std::fs::create_dir_all(&dir)?;
    let dir = dir.to_string_lossy();
    let root = rustix::process::geteuid().is_root();
    let namespace = [if root { "-m" } else { "-Urm" }, "sh", "-c", SCRIPT, "sh"];
    let words = namespace.into_iter().chain([&*dir, "env"]);
    // Through `env`, so that nothing before the program has it.
    let words = words.chain(vars.iter().copied()).chain([&*preload]);
    host.start_as(endpoint, "unshare", words.chain(line.split(' ')))
}
