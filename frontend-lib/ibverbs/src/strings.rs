//! Names of enumerators, as libibverbs spells them; programs and scripts match on them.

use libc::c_char;
use masq_verbs_abi::*;
use std::ffi::CStr;

fn pick(table: &[&'static CStr], index: Option<u32>) -> *const c_char {
    index
        .and_then(|i| table.get(i as usize))
        .unwrap_or(&c"unknown")
        .as_ptr()
}

/// Name of a node type (`ibv_node_type`).
#[unsafe(no_mangle)]
pub extern "C" fn ibv_node_type_str(node_type: c_enum) -> *const c_char {
    const NAMES: &[&CStr] = &[
        c"InfiniBand channel adapter",
        c"InfiniBand switch",
        c"InfiniBand router",
        c"iWARP NIC",
        c"usNIC",
        c"usNIC UDP",
        c"unspecified",
    ];
    pick(NAMES, node_type.checked_sub(IBV_NODE_CA))
}

/// Name of a port state (`ibv_port_state`).
#[unsafe(no_mangle)]
pub extern "C" fn ibv_port_state_str(port_state: c_enum) -> *const c_char {
    const NAMES: &[&CStr] = &[
        c"no state change (NOP)",
        c"down",
        c"init",
        c"armed",
        c"active",
        c"active defer",
    ];
    pick(NAMES, Some(port_state))
}

/// Name of an asynchronous event (`ibv_event_type`).
#[unsafe(no_mangle)]
pub extern "C" fn ibv_event_type_str(event: c_enum) -> *const c_char {
    const NAMES: &[&CStr] = &[
        c"CQ error",
        c"local work queue catastrophic error",
        c"invalid request local work queue error",
        c"local access violation work queue error",
        c"communication established",
        c"send queue drained",
        c"path migrated",
        c"path migration request error",
        c"local catastrophic error",
        c"port active",
        c"port error",
        c"LID change",
        c"P_Key change",
        c"SM change",
        c"SRQ catastrophic error",
        c"SRQ limit reached",
        c"last WQE reached",
        c"client reregistration",
        c"GID table change",
        c"WQ fatal",
    ];
    pick(NAMES, Some(event))
}

/// Name of a completion status (`ibv_wc_status`).
#[unsafe(no_mangle)]
pub extern "C" fn ibv_wc_status_str(status: c_enum) -> *const c_char {
    const NAMES: &[&CStr] = &[
        c"success",
        c"local length error",
        c"local QP operation error",
        c"local EE context operation error",
        c"local protection error",
        c"Work Request Flushed Error",
        c"memory management operation error",
        c"bad response error",
        c"local access error",
        c"remote invalid request error",
        c"remote access error",
        c"remote operation error",
        c"transport retry counter exceeded",
        c"RNR retry counter exceeded",
        c"local RDD violation error",
        c"remote invalid RD request",
        c"aborted error",
        c"invalid EE context number",
        c"invalid EE context state",
        c"fatal error",
        c"response timeout error",
        c"general error",
        c"TM error",
        c"TM software rendezvous",
    ];
    pick(NAMES, Some(status))
}
