//! The engine alone: no thread, no wake-ups, drivers in the same thread.
//! Numbers are of a batch of 32 requests, the drivers' posting left out and
//! their polling included.
#![allow(unsafe_code)] // a copy between two mappings, to compare with

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use masq_soft::bench::{BATCH, Bench};
use masq_spec::queue::SendOpcode;

fn main() {
    divan::main();
}

// One batch a sample: inputs of a sample are all posted before it runs.
fn batches(bencher: Bencher<'_, '_>, mut bench: Bench, len: u32, batch: u32) {
    let bench = std::sync::Mutex::new({
        bench.post(batch);
        bench.run(batch);
        bench
    });
    bencher
        .counter(BytesCount::new(u64::from(len) * u64::from(batch)))
        .counter(ItemsCount::new(batch))
        .with_inputs(|| bench.lock().expect("one thread").post(batch))
        .bench_local_values(|()| bench.lock().expect("one thread").run(batch));
}

#[divan::bench(sample_size = 1, sample_count = 500, args = [2, 64, 4096])]
fn rc_send(bencher: Bencher<'_, '_>, len: u32) {
    batches(bencher, Bench::new(SendOpcode::Send, len), len, BATCH);
}

#[divan::bench(sample_size = 1, sample_count = 500, args = [2, 64, 4096])]
fn rc_write(bencher: Bencher<'_, '_>, len: u32) {
    batches(bencher, Bench::new(SendOpcode::RdmaWrite, len), len, BATCH);
}

#[divan::bench(sample_size = 1, sample_count = 500, args = [2, 64, 4096])]
fn ud_send(bencher: Bencher<'_, '_>, len: u32) {
    batches(bencher, Bench::datagrams(len), len, BATCH);
}

#[divan::bench(sample_size = 1, sample_count = 500, args = [65536, 1 << 20])]
fn rc_write_large(bencher: Bencher<'_, '_>, len: u32) {
    batches(bencher, Bench::new(SendOpcode::RdmaWrite, len), len, 1);
}

#[divan::bench(sample_size = 1, sample_count = 500, args = [65536, 1 << 20])]
fn plain_copy(bencher: Bencher<'_, '_>, len: u32) {
    let bench = Bench::new(SendOpcode::RdmaWrite, len);
    let (from, to) = bench.memory();
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        // SAFETY: both are mapped for `len` bytes as long as `bench` lives.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), len as usize) };
    });
}
