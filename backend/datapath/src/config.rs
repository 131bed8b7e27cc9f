use std::time::Duration;

/// How data-path threads run.
#[derive(Clone, Debug)]
pub struct DataPathConfig {
    /// Data-path threads; tenants are spread over them.
    pub threads: usize,
    /// CPUs that data-path threads are pinned to, in turn; empty: not pinned.
    pub cpus: Vec<usize>,
    /// How long a thread polls after its last work before it sleeps; zero: it never
    /// polls or yields.
    pub idle: Duration,
    /// Empty polls after which a thread lets others run on its CPU.
    pub yield_after: u32,
}

impl Default for DataPathConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            cpus: Vec::new(),
            idle: Duration::from_micros(50),
            yield_after: 20,
        }
    }
}
