//! Lists of CPUs, as the kernel writes them.

use anyhow::{Context, Result, bail};

/// Reads `0,2-4`.
pub(crate) fn parse(text: &str) -> Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim().parse::<usize>().with_context(|| {
                format!("{part:?} is no CPU or range of CPUs; expected a list such as 0,2-4")
            })
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last > 4095 {
            bail!("{part:?} is no range of CPUs");
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// The CPUs of a NUMA node.
pub(crate) fn of_node(node: u32) -> Result<Vec<usize>> {
    let path = format!("/sys/devices/system/node/node{node}/cpulist");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("this host has no NUMA node {node} ({path})"))?;
    parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse("0\n").unwrap(), [0]);
        assert_eq!(parse("0,2-4").unwrap(), [0, 2, 3, 4]);
        for bad in ["", "a", "3-1", "1-", "99999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
