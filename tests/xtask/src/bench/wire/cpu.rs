//! Processor time, from /proc.

use anyhow::Context as _;

/// Seconds of processor time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Of the programs: what this process has waited for.
    pub(crate) programs: f64,
    /// Of the daemons.
    pub(crate) daemons: f64,
    /// Of the whole machine, interrupts included, whoever caused it.
    pub(crate) machine: f64,
    /// Of that, what the kernel counts as soft interrupts.
    pub(crate) softirq: f64,
}

impl Cpu {
    fn minus(self, before: Self) -> Self {
        Self {
            programs: self.programs - before.programs,
            daemons: self.daemons - before.daemons,
            machine: self.machine - before.machine,
            softirq: self.softirq - before.softirq,
        }
    }
}

/// Counts from its making on.
#[derive(Debug)]
pub(crate) struct Meter {
    daemons: Vec<u32>,
    before: Cpu,
}

impl Meter {
    pub(crate) fn start(daemons: Vec<u32>) -> anyhow::Result<Self> {
        let before = now(&daemons)?;
        Ok(Self { daemons, before })
    }

    /// What was used since; programs count once they were waited for.
    pub(crate) fn used(&self) -> anyhow::Result<Cpu> {
        Ok(now(&self.daemons)?.minus(self.before))
    }
}

fn now(daemons: &[u32]) -> anyhow::Result<Cpu> {
    let read =
        |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let mut ticks = 0;
    for pid in daemons {
        ticks += sum(&read(&format!("/proc/{pid}/stat"))?, OWN);
    }
    let programs = sum(&read("/proc/self/stat")?, CHILDREN);
    let (machine, softirq) = machine(&read("/proc/stat")?).context("/proc/stat is odd")?;
    let second = rustix::param::clock_ticks_per_second() as f64;
    Ok(Cpu {
        programs: programs as f64 / second,
        daemons: ticks as f64 / second,
        machine: machine as f64 / second,
        softirq: softirq as f64 / second,
    })
}

/// Places of user and system time behind the name: its own, and of children waited for.
const OWN: usize = 11;
const CHILDREN: usize = 13;

/// Two neighbouring fields of a /proc/PID/stat.
fn sum(stat: &str, from: usize) -> u64 {
    // The name, in parentheses, may hold blanks.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = rest.split_whitespace().skip(from).take(2);
    fields.filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Ticks that the machine was busy, and of those in soft interrupts, of a /proc/stat.
pub(in crate::bench) fn machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else {
        return None;
    };
    Some((user + nice + system + irq + softirq, *softirq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_disks_is_not_work_and_soft_interrupts_are() {
        let stat = "cpu  10 1 20 500 300 2 7 9 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(machine(stat), Some((40, 7)));
    }

    #[test]
    fn a_name_with_blanks_and_parentheses_moves_no_field() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 20 3000 400 20";
        assert_eq!(sum(stat, OWN), 120);
        assert_eq!(sum(stat, CHILDREN), 3400);
    }
}
