//! The command line of masqd, apart from its main function so that manual
//! pages and completions can be made from it.

#![forbid(unsafe_code)]

mod args;
mod cdi;
mod cpus;
mod device;
mod run;

pub use args::{Args, LogFormat, command};
pub use run::run;
