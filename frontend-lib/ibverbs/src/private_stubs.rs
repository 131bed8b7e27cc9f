//! What only providers call (the private version nodes). Nothing here ever reaches a
//! provider of ours, but libraries like libmlx5 bind all of it when they are loaded.

use crate::errno;
use libc::{c_char, c_int, c_void};

/// Functions that answer EOPNOTSUPP, as a value and in errno. Their arguments are
/// not looked at, which the C calling conventions of our machines allow.
macro_rules! answer_eopnotsupp {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: EOPNOTSUPP.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> c_int {
            errno::set(libc::EOPNOTSUPP);
            libc::EOPNOTSUPP
        }
    )*};
}

/// Functions that answer NULL with errno EOPNOTSUPP.
macro_rules! answer_null {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: NULL, EOPNOTSUPP.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> *mut c_void {
            errno::null(libc::EOPNOTSUPP)
        }
    )*};
}

/// Functions that do nothing.
macro_rules! do_nothing {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: does nothing.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() {}
    )*};
}

answer_eopnotsupp! {
    _ibv_query_comp_cntr_caps
    execute_ioctl
    ibv_cmd_advise_mr
    ibv_cmd_alloc_dm
    ibv_cmd_alloc_dmah
    ibv_cmd_alloc_mw
    ibv_cmd_alloc_pd
    ibv_cmd_attach_mcast
    ibv_cmd_close_xrcd
    ibv_cmd_create_ah
    ibv_cmd_create_comp_cntr
    ibv_cmd_create_counters
    ibv_cmd_create_cq
    ibv_cmd_create_cq_ex
    ibv_cmd_create_cq_ex2
    ibv_cmd_create_flow
    ibv_cmd_create_flow_action_esp
    ibv_cmd_create_qp
    ibv_cmd_create_qp_ex
    ibv_cmd_create_qp_ex2
    ibv_cmd_create_rwq_ind_table
    ibv_cmd_create_srq
    ibv_cmd_create_srq_ex
    ibv_cmd_create_wq
    ibv_cmd_dealloc_mw
    ibv_cmd_dealloc_pd
    ibv_cmd_dereg_mr
    ibv_cmd_destroy_ah
    ibv_cmd_destroy_comp_cntr
    ibv_cmd_destroy_counters
    ibv_cmd_destroy_cq
    ibv_cmd_destroy_flow
    ibv_cmd_destroy_flow_action
    ibv_cmd_destroy_qp
    ibv_cmd_destroy_rwq_ind_table
    ibv_cmd_destroy_srq
    ibv_cmd_destroy_wq
    ibv_cmd_detach_mcast
    ibv_cmd_export_dmabuf_fd
    ibv_cmd_free_dm
    ibv_cmd_free_dmah
    ibv_cmd_get_context
    ibv_cmd_inc_comp_cntr
    ibv_cmd_inc_err_comp_cntr
    ibv_cmd_modify_cq
    ibv_cmd_modify_flow_action_esp
    ibv_cmd_modify_qp
    ibv_cmd_modify_qp_ex
    ibv_cmd_modify_srq
    ibv_cmd_modify_wq
    ibv_cmd_open_qp
    ibv_cmd_open_xrcd
    ibv_cmd_poll_cq
    ibv_cmd_post_recv
    ibv_cmd_post_send
    ibv_cmd_post_srq_recv
    ibv_cmd_qp_attach_comp_cntr
    ibv_cmd_query_comp_cntr_caps
    ibv_cmd_query_context
    ibv_cmd_query_device
    ibv_cmd_query_device_any
    ibv_cmd_query_device_ex
    ibv_cmd_query_mr
    ibv_cmd_query_port
    ibv_cmd_query_port_speed
    ibv_cmd_query_qp
    ibv_cmd_query_srq
    ibv_cmd_read_comp_cntr
    ibv_cmd_read_counters
    ibv_cmd_read_err_comp_cntr
    ibv_cmd_reg_dm_mr
    ibv_cmd_reg_dmabuf_mr
    ibv_cmd_reg_mr
    ibv_cmd_reg_mr_ex
    ibv_cmd_req_notify_cq
    ibv_cmd_rereg_mr
    ibv_cmd_resize_cq
    ibv_cmd_set_comp_cntr
    ibv_cmd_set_err_comp_cntr
    ibv_get_fw_ver
    ibv_dealloc_dmah
    ibv_destroy_comp_cntr
    ibv_dm_export_dmabuf_fd
    ibv_export_buf_dmabuf_fd
    ibv_free_buf
    ibv_inc_comp_cntr
    ibv_inc_err_comp_cntr
    ibv_qp_attach_comp_cntr
    ibv_query_port_speed
    ibv_read_comp_cntr
    ibv_read_err_comp_cntr
    ibv_set_comp_cntr
    ibv_set_err_comp_cntr
}

answer_null! {
    _verbs_init_and_alloc_context
    ibv_alloc_buf
    ibv_alloc_dmah
    ibv_create_comp_cntr
    ibv_dmabuf_heap_alloc
    ibv_dmabuf_heap_cc_shared_init
    ibv_import_device
    ibv_import_dm
    ibv_import_mr
    ibv_import_pd
    ibv_reg_buf_mr
    ibv_reg_mr_ex
    verbs_open_device
}

// Called by the constructors of providers, which stay unused, and by their logging.
do_nothing! {
    ibv_register_driver
    verbs_register_driver_15
    verbs_register_driver_16
    verbs_register_driver_17
    verbs_register_driver_18
    verbs_register_driver_19
    verbs_register_driver_20
    verbs_register_driver_21
    verbs_register_driver_22
    verbs_register_driver_25
    verbs_register_driver_33
    verbs_register_driver_34
    verbs_register_driver_57
    verbs_register_driver_59
    verbs_register_driver_64
    verbs_register_driver_65
    __verbs_log
    verbs_init_cq
    verbs_set_ops
    verbs_uninit_context
    ibv_unimport_pd
    ibv_unimport_mr
    ibv_unimport_dm
    ibv_dmabuf_heap_destroy
    ibv_dmabuf_heap_free
}

/// A provider's switch; nobody reads it here.
#[unsafe(no_mangle)]
pub static verbs_allow_disassociate_destroy: u8 = 0;

/// How many attributes an ioctl has: none.
#[unsafe(no_mangle)]
pub extern "C" fn __ioctl_final_num_attrs() -> u32 {
    0
}

/// Name of a work request's opcode, for providers' logs.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_wr_opcode_str() -> *const c_char {
    c"unknown".as_ptr()
}
