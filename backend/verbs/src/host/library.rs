//! The host's `libibverbs.so.1`, loaded when the first card is opened: a machine without
//! rdma-core builds and runs masqd all the same.
#![allow(unsafe_code)] // symbols of a shared library

use crate::CardError;
use libc::{c_char, c_int, c_uint, c_void};
use masq_verbs_abi::*;
use std::sync::Arc;

macro_rules! library {
    (
        $(#[$doc:meta])* $library:ident = $file:literal, $packages:literal;
        $($name:ident: fn($($arg:ty),*) $(-> $out:ty)?;)*
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $library {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $out)?,)*
            _loaded: libloading::Library,
        }

        impl $library {
            /// Loads it.
            pub(super) fn load() -> Result<Arc<Self>, CardError> {
                let fails = |error: libloading::Error| CardError::NoLibrary {
                    name: $file,
                    packages: $packages,
                    error: error.to_string(),
                };
                // SAFETY: rdma-core's initializers have no conditions.
                let loaded = unsafe { libloading::Library::new($file) }.map_err(fails)?;
                $(
                    // SAFETY: the type is that of the header, whose exported
                    // functions never change under one soname.
                    let $name = unsafe {
                        *loaded
                            .get::<unsafe extern "C" fn($($arg),*) $(-> $out)?>(stringify!($name))
                            .map_err(fails)?
                    };
                )*
                Ok(Arc::new(Self { $($name,)* _loaded: loaded }))
            }

            /// One of which nothing may be called.
            #[cfg(test)]
            #[allow(dead_code)] // of one library only
            pub(super) fn aborting() -> Self {
                $(
                    unsafe extern "C" fn $name($(_: $arg),*) $(-> $out)? {
                        std::process::abort()
                    }
                )*
                let loaded = libloading::os::unix::Library::this().into();
                Self { $($name,)* _loaded: loaded }
            }
        }
    };
}

library! {
    /// What is called of libibverbs, by the names of its manual pages.
    Library = "libibverbs.so.1", "libibverbs1 and ibverbs-providers";
    ibv_get_device_list: fn(*mut c_int) -> *mut *mut ibv_device;
    ibv_free_device_list: fn(*mut *mut ibv_device);
    ibv_get_device_name: fn(*mut ibv_device) -> *const c_char;
    ibv_open_device: fn(*mut ibv_device) -> *mut ibv_context;
    ibv_close_device: fn(*mut ibv_context) -> c_int;
    ibv_get_async_event: fn(*mut ibv_context, *mut ibv_async_event) -> c_int;
    ibv_ack_async_event: fn(*mut ibv_async_event);
    ibv_query_device: fn(*mut ibv_context, *mut ibv_device_attr) -> c_int;
    ibv_query_port: fn(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
    ibv_query_gid: fn(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
    ibv_alloc_pd: fn(*mut ibv_context) -> *mut ibv_pd;
    ibv_dealloc_pd: fn(*mut ibv_pd) -> c_int;
    ibv_reg_mr_iova: fn(*mut ibv_pd, *mut c_void, usize, u64, c_uint) -> *mut ibv_mr;
    ibv_dereg_mr: fn(*mut ibv_mr) -> c_int;
    ibv_create_comp_channel: fn(*mut ibv_context) -> *mut ibv_comp_channel;
    ibv_destroy_comp_channel: fn(*mut ibv_comp_channel) -> c_int;
    ibv_create_cq: fn(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
    ibv_resize_cq: fn(*mut ibv_cq, c_int) -> c_int;
    ibv_destroy_cq: fn(*mut ibv_cq) -> c_int;
    ibv_get_cq_event: fn(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
    ibv_ack_cq_events: fn(*mut ibv_cq, c_uint);
    ibv_create_srq: fn(*mut ibv_pd, *mut ibv_srq_init_attr) -> *mut ibv_srq;
    ibv_modify_srq: fn(*mut ibv_srq, *mut ibv_srq_attr, c_int) -> c_int;
    ibv_query_srq: fn(*mut ibv_srq, *mut ibv_srq_attr) -> c_int;
    ibv_destroy_srq: fn(*mut ibv_srq) -> c_int;
    ibv_create_qp: fn(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
    ibv_modify_qp: fn(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
    ibv_query_qp: fn(*mut ibv_qp, *mut ibv_qp_attr, c_int, *mut ibv_qp_init_attr) -> c_int;
    ibv_destroy_qp: fn(*mut ibv_qp) -> c_int;
    ibv_create_ah: fn(*mut ibv_pd, *mut ibv_ah_attr) -> *mut ibv_ah;
    ibv_destroy_ah: fn(*mut ibv_ah) -> c_int;
}
