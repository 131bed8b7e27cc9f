//! Attributes of the device and its port.

use crate::context::Context;
use crate::errno;
use libc::c_int;
use masq_spec::command::Opcode;
use masq_spec::verbs::{PortAttr, QueryPort};
use masq_verbs_abi::*;

/// The default P_Key, the only one (network order in `ibv_query_pkey`).
const DEFAULT_PKEY: u16 = 0xffff;
/// Bytes of `ibv_port_attr` that the exported `ibv_query_port` writes.
const OLD_PORT_ATTR: usize = 48;

/// Numbers of the wire are unsigned, those of the header `int`.
fn int(value: u32) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

fn device_attr(context: &Context) -> ibv_device_attr {
    let (attr, config) = (&context.attr, context.session.config());
    let mut fw_ver = [0; 64];
    let version = masq_spec::device::version_str(&config.backend_version);
    for (to, from) in fw_ver.iter_mut().zip(version.bytes().take(63)) {
        *to = from as libc::c_char;
    }
    ibv_device_attr {
        fw_ver,
        node_guid: config.node_guid.to_be(),
        sys_image_guid: config.node_guid.to_be(),
        max_mr_size: attr.max_mr_size,
        page_size_cap: attr.page_size_cap,
        vendor_id: config.vendor_id,
        vendor_part_id: config.vendor_part_id,
        hw_ver: config.hw_ver,
        max_qp: int(attr.max_qp),
        max_qp_wr: int(attr.max_qp_wr),
        device_cap_flags: attr.device_cap_flags as u32,
        max_sge: int(attr.max_sge),
        max_sge_rd: int(attr.max_sge_rd),
        max_cq: int(attr.max_cq),
        max_cqe: int(attr.max_cqe),
        max_mr: int(attr.max_mr),
        max_pd: int(attr.max_pd),
        max_qp_rd_atom: int(attr.max_qp_rd_atom),
        max_ee_rd_atom: 0,
        max_res_rd_atom: int(attr.max_res_rd_atom),
        max_qp_init_rd_atom: int(attr.max_qp_init_rd_atom),
        max_ee_init_rd_atom: 0,
        atomic_cap: attr.atomic_cap,
        max_ee: 0,
        max_rdd: 0,
        max_mw: int(attr.max_mw),
        max_raw_ipv6_qp: 0,
        max_raw_ethy_qp: 0,
        max_mcast_grp: int(attr.max_mcast_grp),
        max_mcast_qp_attach: int(attr.max_mcast_qp_attach),
        max_total_mcast_qp_attach: int(attr.max_total_mcast_qp_attach),
        max_ah: int(attr.max_ah),
        max_fmr: 0,
        max_map_per_fmr: 0,
        max_srq: int(attr.max_srq),
        max_srq_wr: int(attr.max_srq_wr),
        max_srq_sge: int(attr.max_srq_sge),
        max_pkeys: 1,
        local_ca_ack_delay: attr.local_ca_ack_delay as u8,
        phys_port_cnt: 1,
    }
}

/// Attributes of the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_query_device(
    context: *mut ibv_context,
    attr: *mut ibv_device_attr,
) -> c_int {
    // SAFETY: the caller's context and structure.
    unsafe { *attr = device_attr(Context::of(context)) };
    0
}

/// `ibv_query_device_ex`: no more than `size` bytes are written.
pub(crate) unsafe extern "C" fn query_device_ex(
    context: *mut ibv_context,
    input: *const ibv_query_device_ex_input,
    attr: *mut ibv_device_attr_ex,
    size: usize,
) -> c_int {
    // SAFETY: the caller's structure, if any.
    if !input.is_null() && unsafe { (*input).comp_mask } != 0 {
        return libc::EINVAL;
    }
    if size < size_of::<ibv_device_attr>() {
        return libc::EINVAL;
    }
    // SAFETY: a structure of integers.
    let mut full: ibv_device_attr_ex = unsafe { std::mem::zeroed() };
    // SAFETY: the caller's context.
    full.orig_attr = device_attr(unsafe { Context::of(context) });
    full.completion_timestamp_mask = u64::MAX;
    // Timestamps count nanoseconds; the unit here is kHz.
    full.hca_core_clock = 1_000_000;
    full.device_cap_flags_ex = u64::from(full.orig_attr.device_cap_flags);
    full.phys_port_cnt_ex = 1;
    let known = size.min(size_of::<ibv_device_attr_ex>());
    // SAFETY: the caller's structure has `size` bytes.
    unsafe {
        std::ptr::write_bytes(attr.cast::<u8>(), 0, size);
        std::ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), attr.cast(), known);
    }
    0
}

fn port_attr(context: &Context, port: u8) -> Result<ibv_port_attr, c_int> {
    let request = QueryPort {
        port: u32::from(port),
        reserved: 0,
    };
    let answer: PortAttr = context
        .session
        .command(Opcode::QueryPort, &request)
        .map_err(|e| e.errno())?;
    Ok(ibv_port_attr {
        state: answer.state,
        max_mtu: answer.max_mtu,
        active_mtu: answer.active_mtu,
        gid_tbl_len: int(answer.gid_tbl_len),
        port_cap_flags: answer.port_cap_flags,
        max_msg_sz: answer.max_msg_sz,
        pkey_tbl_len: answer.pkey_tbl_len as u16,
        max_vl_num: 1,
        active_width: answer.active_width as u8,
        active_speed: answer.active_speed as u8,
        phys_state: answer.phys_state as u8,
        link_layer: IBV_LINK_LAYER_ETHERNET as u8,
        active_speed_ex: answer.active_speed,
        ..ibv_port_attr::default()
    })
}

/// `ibv_query_port` of the header: at most `len` bytes are written, the rest zeroed.
pub(crate) unsafe extern "C" fn query_port(
    context: *mut ibv_context,
    port: u8,
    attr: *mut ibv_port_attr,
    len: usize,
) -> c_int {
    // SAFETY: the caller's context.
    let full = match port_attr(unsafe { Context::of(context) }, port) {
        Ok(full) => full,
        Err(error) => {
            errno::set(error);
            return error;
        }
    };
    let known = len.min(size_of::<ibv_port_attr>());
    // SAFETY: the caller's structure has `len` bytes.
    unsafe {
        std::ptr::write_bytes(attr.cast::<u8>(), 0, len);
        std::ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), attr.cast(), known);
    }
    0
}

/// The exported form, for programs built before `verbs_context` had `query_port`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_query_port(
    context: *mut ibv_context,
    port: u8,
    attr: *mut ibv_port_attr,
) -> c_int {
    // SAFETY: the caller's pointers; old programs have 48 bytes.
    unsafe { query_port(context, port, attr, OLD_PORT_ATTR) }
}

/// The P_Key table has one entry. 0 or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_query_pkey(
    _context: *mut ibv_context,
    port: u8,
    index: c_int,
    pkey: *mut u16,
) -> c_int {
    if port != 1 || index != 0 {
        return errno::minus_one(libc::EINVAL);
    }
    // SAFETY: the caller's variable.
    unsafe { *pkey = DEFAULT_PKEY.to_be() };
    0
}

/// Index of a P_Key (network order), or -1.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_get_pkey_index(_context: *mut ibv_context, port: u8, pkey: u16) -> c_int {
    if port != 1 || pkey != DEFAULT_PKEY.to_be() {
        return errno::minus_one(libc::EINVAL);
    }
    0
}

/// The clock of completion timestamps: CLOCK_REALTIME.
pub(crate) unsafe extern "C" fn query_rt_values(
    _context: *mut ibv_context,
    values: *mut ibv_values_ex,
) -> c_int {
    // SAFETY: the caller's structure.
    let values = unsafe { &mut *values };
    if values.comp_mask & !IBV_VALUES_MASK_RAW_CLOCK != 0 {
        return libc::EINVAL;
    }
    if values.comp_mask & IBV_VALUES_MASK_RAW_CLOCK != 0 {
        // SAFETY: a valid clock and place.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut values.raw_clock) };
    }
    0
}
