//! Registered memory: one memfd per process whose offset is the virtual address.
//!
//! `ibv_reg_mr` promises a program that a network card will read and write its own memory. Here
//! the card is another process, masqd. So the whole pages of a registered buffer are copied into a
//! memfd and the memfd is mapped in their place: the program keeps address and contents, and masqd
//! maps a window of the same file. Since the offset in the file *is* the address, no table has to
//! say where anything went.
//!
//! What cannot be moved (stacks, System V memory, files, huge pages, the partial pages at either
//! end of a buffer) is reported as [`SegmentKind::Remote`]: masqd reaches it through a descriptor
//! of `/proc/PID/mem`, or it gets a [`StandIn`] in the memfd and whoever registered it copies.
//! docs/memory.md has the table, and what remains to be careful about.
//!
//! # Rules
//! 1. One lock ([`arena`]) orders registration, its end, allocation and fork. Its holder blocks
//!    all signals, and calls nobody else's code.
//! 2. What is mapped where is asked of the kernel each time ([`maps`]). The crate remembers only
//!    how many registrations hold each page ([`counts`]).
//! 3. While pages are protected ([`mover`], [`uffd`]) the moving thread makes system calls only: it
//!    neither allocates nor writes outside its stack, and stacks are never moved ([`stacks`]).
//! 4. System calls that change mappings go to the kernel directly ([`sys`]): middleware hooks the
//!    C library's.
//! 5. A forked child owns all its memory before its fork returns ([`fork`]).
//!
//! `unsafe` is confined to `sys`, `mover`, `shared`, `stand_in` and `fork`, and one ioctl each in `maps` and
//! `uffd`.

mod arena;
mod claims;
mod counts;
mod error;
mod fork;
mod maps;
mod merge;
mod mover;
mod shared;
mod slab;
mod span;
mod stacks;
mod stand_in;
mod survey;
mod sys;
mod uffd;
mod vmflags;

pub use arena::{ARENA_SIZE, Arena, MOVE_ENV, RegId, Registration, Segment, SegmentKind};
pub use claims::{claim, disclaim};
pub use error::RegError;
pub use fork::{generation as fork_generation, install_handlers as install_fork_handlers};
pub use shared::SharedRegion;
pub use stand_in::StandIn;
pub use uffd::StoreGuard;
