//! Verbs that are still to come: EOPNOTSUPP.

use crate::errno;
use libc::{c_int, c_void};

macro_rules! pending { ($($name:ident)*) => {$( #[doc = "To come."] #[unsafe(no_mangle)] pub extern "C" fn $name() -> *mut c_void { errno::null(libc::EOPNOTSUPP) } )*}; }

pending! { _ibv_query_gid_ex _ibv_query_gid_table ibv_ack_async_event ibv_ack_cq_events ibv_alloc_pd ibv_attach_mcast ibv_close_device ibv_create_ah ibv_create_ah_from_wc ibv_create_comp_channel ibv_create_cq ibv_create_qp ibv_create_srq ibv_dealloc_pd ibv_dereg_mr ibv_destroy_ah ibv_destroy_comp_channel ibv_destroy_cq ibv_destroy_qp ibv_destroy_srq ibv_detach_mcast ibv_get_async_event ibv_get_cq_event ibv_get_device_guid ibv_get_device_index ibv_get_device_name ibv_get_pkey_index ibv_init_ah_from_wc ibv_modify_qp ibv_modify_srq ibv_open_device ibv_qp_to_qp_ex ibv_query_device ibv_query_ece ibv_query_gid ibv_query_gid_type ibv_query_pkey ibv_query_port ibv_query_qp ibv_query_qp_data_in_order ibv_query_srq ibv_reg_dmabuf_mr ibv_reg_mr ibv_reg_mr_iova ibv_reg_mr_iova2 ibv_rereg_mr ibv_resize_cq ibv_resolve_eth_l2_from_gid ibv_set_ece }

/// No device.
///
/// # Safety
/// `num` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_get_device_list(num: *mut c_int) -> *mut *mut c_void {
    if !num.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *num = 0 };
    }
    // SAFETY: plain allocation of one pointer.
    unsafe { libc::calloc(1, size_of::<*mut c_void>()).cast() }
}

/// Frees the list.
///
/// # Safety
/// `list` came from `ibv_get_device_list`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_free_device_list(list: *mut *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { libc::free(list.cast()) }
}
