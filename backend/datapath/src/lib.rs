//! What the data paths of all devices have in common: the thread that polls and
//! sleeps, and the ring that completions are written to.
//!
//! # Threads
//! 1. A data-path thread owns an [`Engine`]. While it is awake it holds the
//!    engine; the control side sends it closures through a bounded queue and
//!    waits for the answer, at most one turn of the engine.
//! 2. Before it sleeps it arms the engine, looks once more, and lets go of it:
//!    while it sleeps the control side uses the engine itself. Either way nobody
//!    else touches it, so an answer to a revocation means that the data path has
//!    let go.

#![forbid(unsafe_code)]

mod clock;
mod completion;
mod config;
mod courtesy;
mod rota;
mod thread;
mod turns;

pub use clock::{Clock, monotonic};
pub use completion::{CompletionRing, Pushed};
pub use config::DataPathConfig;
pub use rota::Rota;
pub use thread::{DataPath, Engine, Readable, Waker};
pub use turns::{Lane, Turns};
