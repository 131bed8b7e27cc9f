//! A process, told from a later one of the same number.

use serde::{Deserialize, Serialize};
use std::io;

/// A process and when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has the number `pid` now.
    ///
    /// # Errors
    /// ENOENT if none has.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = start_time(&stat)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))?;
        Ok(Self { pid, start_time })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        stat.is_ok_and(|stat| {
            start_time(&stat) == Some(self.start_time)
                && !matches!(fields(&stat).next(), Some("Z" | "X"))
        })
    }
}

/// What follows the name, which may hold blanks and parentheses.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_ascii_whitespace()
}

fn start_time(stat: &str) -> Option<u64> {
    // Field 22, and the state after the name is field 3.
    fields(stat).nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) R 9) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1234 20";
        assert_eq!(start_time(stat), Some(1234));
        assert_eq!(start_time("garbage"), None);
    }

    #[test]
    fn a_process_has_one_start_time_and_a_missing_one_none() {
        let own = std::process::id() as i32;
        assert_eq!(ProcessId::of(own).unwrap(), ProcessId::of(own).unwrap());
        assert!(ProcessId::of(own).unwrap().start_time > 0);
        assert!(ProcessId::of(i32::MAX).is_err());
    }

    #[test]
    fn a_number_that_another_process_has_now_is_not_alive() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        let other = ProcessId {
            start_time: own.start_time + 1,
            ..own
        };
        assert!(!other.is_alive());
    }
}
