//! What the software NIC can do.

use masq_spec::device::{Features, MAX_ADDRESS, PAGE_SIZE};
use masq_spec::verbs::DeviceAttr;

/// Highest 24-bit queue pair number.
pub(crate) const MAX_QPN: u32 = 0xff_ffff;
/// READs and atomics that a queue pair may have outstanding.
pub(crate) const MAX_RD_ATOMIC: u8 = 128;

/// Feature bits that it serves.
pub(crate) const FEATURES: Features = Features::UC
    .union(Features::UD)
    .union(Features::ATOMIC)
    .union(Features::SRQ)
    .union(Features::MEMORY_WINDOW)
    .union(Features::MULTICAST)
    .union(Features::RESIZE_CQ)
    .union(Features::REMOTE_MEMORY);

/// Bits of `ibv_device_cap_flags`.
mod cap {
    pub(super) const CURR_QP_STATE_MOD: u64 = 1 << 7;
    pub(super) const SYS_IMAGE_GUID: u64 = 1 << 11;
    pub(super) const RC_RNR_NAK_GEN: u64 = 1 << 12;
    pub(super) const MEM_WINDOW: u64 = 1 << 17;
    pub(super) const MEM_WINDOW_TYPE_2B: u64 = 1 << 24;
}

/// Its attributes, before quotas.
pub(crate) fn attributes() -> DeviceAttr {
    DeviceAttr {
        max_mr_size: MAX_ADDRESS,
        page_size_cap: PAGE_SIZE,
        device_cap_flags: cap::CURR_QP_STATE_MOD
            | cap::SYS_IMAGE_GUID
            | cap::RC_RNR_NAK_GEN
            | cap::MEM_WINDOW
            | cap::MEM_WINDOW_TYPE_2B,
        max_qp: 16_384,
        max_qp_wr: 16_384,
        max_sge: 32,
        max_sge_rd: 32,
        max_cq: 65_536,
        max_cqe: 1 << 20,
        max_mr: 1 << 20,
        max_pd: 32_768,
        max_qp_rd_atom: MAX_RD_ATOMIC as u32,
        max_qp_init_rd_atom: MAX_RD_ATOMIC as u32,
        max_res_rd_atom: 16_384 * MAX_RD_ATOMIC as u32,
        // IBV_ATOMIC_HCA: among the queue pairs of this device.
        atomic_cap: 1,
        max_mw: 1 << 20,
        max_mcast_grp: 8192,
        max_mcast_qp_attach: 4096,
        max_total_mcast_qp_attach: 65_536,
        max_ah: 65_536,
        max_srq: 16_384,
        max_srq_wr: 16_384,
        max_srq_sge: 32,
        max_inline_data: 512,
        local_ca_ack_delay: 15,
    }
}
