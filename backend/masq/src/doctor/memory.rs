//! What registering memory needs of the kernel.

use super::{Check, read, uffd};
use crate::output::bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{Resource, getrlimit};

/// Bytes of the file that a process shares.
const FILE_LEN: u64 = 1 << 47;
/// The kernel's default.
const DEFAULT_MAPS: u64 = 65_530;

pub(super) fn checks() -> Vec<Check> {
    vec![
        memfd(),
        userfaultfd(),
        process_memory(),
        mappings(),
        huge_pages(),
    ]
}

fn memfd() -> Check {
    const NAME: &str = "memfd";
    let made = memfd_create(
        "masq-doctor",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )
    .and_then(|fd| {
        ftruncate(&fd, FILE_LEN)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
    });
    match made {
        Ok(()) => Check::ok(NAME, "sealed, sparse, 128 TiB"),
        Err(error) if getrlimit(Resource::Fsize).current.is_some() => Check::fail(
            NAME,
            error.to_string(),
            "a file size limit is set: ulimit -f unlimited",
        ),
        Err(error) => Check::fail(
            NAME,
            error.to_string(),
            "programs cannot share memory with masqd without memfd_create and sealing",
        ),
    }
}

fn userfaultfd() -> Check {
    const NAME: &str = "userfaultfd";
    let full = read("/proc/sys/vm/unprivileged_userfaultfd").as_deref() == Some("1")
        || uffd::opens(uffd::Mode::Full)
        || std::fs::File::open("/dev/userfaultfd").is_ok();
    if full {
        return Check::ok(
            NAME,
            "full: stores and system calls wait while memory is moved",
        );
    }
    if uffd::opens(uffd::Mode::User) {
        return Check::ok(
            NAME,
            "user mode: stores wait while memory is moved, system calls may get EFAULT",
        );
    }
    Check::warn(
        NAME,
        "not allowed: stores of other threads may be lost while their buffer is registered",
        "allow userfaultfd in the seccomp profile, give the container /dev/userfaultfd, or run \
         programs with MASQ_MOVE=off",
    )
}

/// Whether masqd, run by this user, may read a child of this process: what it
/// needs of programs whose memory is not moved.
fn process_memory() -> Check {
    const NAME: &str = "/proc/PID/mem";
    let scope = read("/proc/sys/kernel/yama/ptrace_scope");
    let opened = child_memory();
    let found = match &opened {
        Ok(()) => "can be opened".to_owned(),
        Err(error) => format!("cannot be opened ({error})"),
    };
    let scope_text = scope.as_deref().unwrap_or("absent");
    let found = format!("{found}, yama ptrace_scope {scope_text}");
    let remedy = "memory that is not moved (stacks, shared memory) cannot be registered: run masqd \
                  as the programs' user, or with CAP_SYS_PTRACE; kernel.yama.ptrace_scope=0 \
                  allows it between programs of one user";
    if opened.is_err() {
        Check::fail(NAME, found, remedy)
    } else if scope.is_none_or(|scope| scope == "0") || rustix::process::geteuid().is_root() {
        Check::ok(NAME, found)
    } else {
        Check::warn(NAME, found, remedy)
    }
}

fn child_memory() -> std::io::Result<()> {
    let mut child = std::process::Command::new("sleep").arg("10").spawn()?;
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{}/mem", child.id()));
    child.kill()?;
    child.wait()?;
    opened.map(drop)
}

fn mappings() -> Check {
    const NAME: &str = "vm.max_map_count";
    let Some(limit) = read("/proc/sys/vm/max_map_count").and_then(|n| n.parse::<u64>().ok()) else {
        return Check::warn(NAME, "cannot be read", "mount /proc");
    };
    if limit >= DEFAULT_MAPS {
        Check::ok(
            NAME,
            format!("{limit}: bounds the windows that masqd can map"),
        )
    } else {
        Check::warn(
            NAME,
            limit.to_string(),
            "below the kernel's default; tenants will get ENOMEM: sysctl vm.max_map_count=65530",
        )
    }
}

fn huge_pages() -> Check {
    const NAME: &str = "huge pages";
    let info = read("/proc/meminfo").unwrap_or_default();
    let number = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let (free, size) = (number("HugePages_Free:"), number("Hugepagesize:"));
    let shmem = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    let shmem = shmem
        .split_whitespace()
        .find(|word| word.starts_with('['))
        .unwrap_or("[unknown]");
    Check::ok(
        NAME,
        format!(
            "{free} free of {}; transparent ones for shared memory: {}",
            bytes(size * 1024),
            shmem.trim_matches(['[', ']'])
        ),
    )
}
