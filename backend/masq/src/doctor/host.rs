//! Kernel, processors, descriptors.

use super::Check;
use rustix::process::{Resource, getrlimit};
use rustix::system::uname;

/// What a busy host needs descriptors for: see docs/limits.md.
const ENOUGH_DESCRIPTORS: u64 = 4096;
/// userfaultfd in user mode.
const NEEDED_KERNEL: (u32, u32) = (5, 11);
/// Shared memory can be write-protected.
const GOOD_KERNEL: (u32, u32) = (5, 19);

pub(super) fn checks() -> Vec<Check> {
    vec![kernel(), cores(), descriptors()]
}

fn kernel() -> Check {
    let release = uname().release().to_string_lossy().into_owned();
    judge_kernel(&release)
}

fn judge_kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= GOOD_KERNEL {
        Check::ok(NAME, release)
    } else if version >= NEEDED_KERNEL {
        Check::warn(
            NAME,
            release,
            "before Linux 5.19 a store may be lost while another thread deregisters its buffer",
        )
    } else {
        Check::fail(
            NAME,
            release,
            "Linux 5.11 or later is needed; before it, run programs with MASQ_MOVE=off",
        )
    }
}

fn cores() -> Check {
    const NAME: &str = "cores";
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if count > 2 {
        Check::ok(NAME, count.to_string())
    } else {
        Check::warn(
            NAME,
            count.to_string(),
            "two polling programs and the NIC share them: they yield to each other, which costs \
             microseconds of latency",
        )
    }
}

fn descriptors() -> Check {
    const NAME: &str = "RLIMIT_NOFILE";
    let limit = getrlimit(Resource::Nofile);
    let text = |n: Option<u64>| n.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let found = format!("{} (hard {})", text(limit.current), text(limit.maximum));
    if limit.current.is_none_or(|n| n >= ENOUGH_DESCRIPTORS) {
        Check::ok(NAME, found)
    } else {
        Check::warn(
            NAME,
            found,
            "masqd needs about a dozen descriptors a session and two a completion channel: raise \
             it for masqd (LimitNOFILE= of its unit, or ulimit -n)",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn kernels_are_judged_by_number_not_by_text() {
        assert_eq!(judge_kernel("6.1.0-35-amd64").level, Level::Ok);
        assert_eq!(judge_kernel("5.19.0").level, Level::Ok);
        assert_eq!(judge_kernel("5.15.0-91-generic").level, Level::Warn);
        assert_eq!(judge_kernel("5.9.1").level, Level::Fail);
        assert_eq!(judge_kernel("4.19.0").level, Level::Fail);
    }
}
