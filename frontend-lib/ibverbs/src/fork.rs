//! Fork: nothing has to be prepared, as on a modern kernel. Registered memory is a
//! private snapshot in the child (see the memory page of the documentation).

use libc::{c_int, c_void};
use masq_verbs_abi::{IBV_FORK_UNNEEDED, c_enum};

/// Run when the library is loaded (an entry that masq-link makes): handlers that are
/// registered first take their locks last, after those of the program.
#[unsafe(no_mangle)]
pub extern "C" fn masq_library_init() {
    // Without memory for them, opening a device says so again.
    let _ = masq_regmem::install_fork_handlers();
    masq_rdmacm::attach();
}

/// Always possible.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_fork_init() -> c_int {
    0
}

/// `IBV_FORK_UNNEEDED`.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_is_fork_initialized() -> c_enum {
    IBV_FORK_UNNEEDED
}

/// Nothing to keep from the child.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_dontfork_range(_base: *mut c_void, _size: usize) -> c_int {
    0
}

/// Nothing to give back.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_dofork_range(_base: *mut c_void, _size: usize) -> c_int {
    0
}
