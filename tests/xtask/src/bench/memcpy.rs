//! The speed of memory: 1 MiB from one shared mapping to another.
#![allow(unsafe_code)] // memmap2, of files that nobody else has

use memmap2::MmapMut;
use std::hint::black_box;
use std::time::{Duration, Instant};

const LEN: usize = 1 << 20;
const TIME: Duration = Duration::from_secs(1);

/// Megabytes (10^6) a second.
pub(crate) fn megabytes_per_second() -> anyhow::Result<f64> {
    let mut from = mapping()?;
    let mut to = mapping()?;
    from.fill(1);
    to.fill(2);
    let mut copied = 0;
    let since = Instant::now();
    while since.elapsed() < TIME {
        for _ in 0..32 {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        }
        copied += 32 * LEN;
    }
    Ok(copied as f64 / since.elapsed().as_secs_f64() / 1e6)
}

fn mapping() -> anyhow::Result<MmapMut> {
    let file = std::fs::File::from(rustix::fs::memfd_create(
        "masq-bench",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.set_len(LEN as u64)?;
    // SAFETY: the file was made here and its descriptor is closed: nobody else
    // can change or shorten it.
    Ok(unsafe { MmapMut::map_mut(&file) }?)
}
