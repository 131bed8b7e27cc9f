//! Structures and numbers of `<rdma/rdma_cma.h>`, librdmacm's interface.

use crate::{c_enum, ibv_ah_attr, ibv_comp_channel, ibv_context, ibv_cq, ibv_gid, ibv_pd, ibv_qp};
use crate::{ibv_sa_path_rec, ibv_srq};
use libc::{c_int, c_void, sockaddr_storage};

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct rdma_ib_addr {
    pub sgid: ibv_gid,
    pub dgid: ibv_gid,
    pub pkey: u16,
}

/// The unnamed unions hold addresses of several families; the largest stands here.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rdma_addr {
    pub src_storage: sockaddr_storage,
    pub dst_storage: sockaddr_storage,
    pub addr: rdma_ib_addr,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct rdma_route {
    pub addr: rdma_addr,
    pub path_rec: *mut ibv_sa_path_rec,
    pub num_paths: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rdma_event_channel {
    pub fd: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct rdma_cm_id {
    pub verbs: *mut ibv_context,
    pub channel: *mut rdma_event_channel,
    pub context: *mut c_void,
    pub qp: *mut ibv_qp,
    pub route: rdma_route,
    pub ps: c_enum,
    pub port_num: u8,
    pub event: *mut rdma_cm_event,
    pub send_cq_channel: *mut ibv_comp_channel,
    pub send_cq: *mut ibv_cq,
    pub recv_cq_channel: *mut ibv_comp_channel,
    pub recv_cq: *mut ibv_cq,
    pub srq: *mut ibv_srq,
    pub pd: *mut ibv_pd,
    pub qp_type: c_enum,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rdma_conn_param {
    pub private_data: *const c_void,
    pub private_data_len: u8,
    pub responder_resources: u8,
    pub initiator_depth: u8,
    pub flow_control: u8,
    pub retry_count: u8,
    pub rnr_retry_count: u8,
    pub srq: u8,
    pub qp_num: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rdma_ud_param {
    pub private_data: *const c_void,
    pub private_data_len: u8,
    pub ah_attr: ibv_ah_attr,
    pub qp_num: u32,
    pub qkey: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union rdma_cm_event_param {
    pub conn: rdma_conn_param,
    pub ud: rdma_ud_param,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct rdma_cm_event {
    pub id: *mut rdma_cm_id,
    pub listen_id: *mut rdma_cm_id,
    pub event: c_enum,
    pub status: c_int,
    pub param: rdma_cm_event_param,
}

// rdma_cm_event_type
pub const RDMA_CM_EVENT_ADDR_RESOLVED: c_enum = 0;
pub const RDMA_CM_EVENT_ADDR_ERROR: c_enum = 1;
pub const RDMA_CM_EVENT_ROUTE_RESOLVED: c_enum = 2;
pub const RDMA_CM_EVENT_ROUTE_ERROR: c_enum = 3;
pub const RDMA_CM_EVENT_CONNECT_REQUEST: c_enum = 4;
pub const RDMA_CM_EVENT_CONNECT_RESPONSE: c_enum = 5;
pub const RDMA_CM_EVENT_CONNECT_ERROR: c_enum = 6;
pub const RDMA_CM_EVENT_UNREACHABLE: c_enum = 7;
pub const RDMA_CM_EVENT_REJECTED: c_enum = 8;
pub const RDMA_CM_EVENT_ESTABLISHED: c_enum = 9;
pub const RDMA_CM_EVENT_DISCONNECTED: c_enum = 10;
pub const RDMA_CM_EVENT_DEVICE_REMOVAL: c_enum = 11;
pub const RDMA_CM_EVENT_MULTICAST_JOIN: c_enum = 12;
pub const RDMA_CM_EVENT_MULTICAST_ERROR: c_enum = 13;
pub const RDMA_CM_EVENT_ADDR_CHANGE: c_enum = 14;
pub const RDMA_CM_EVENT_TIMEWAIT_EXIT: c_enum = 15;

// rdma_port_space
pub const RDMA_PS_IPOIB: c_enum = 0x0002;
pub const RDMA_PS_TCP: c_enum = 0x0106;
pub const RDMA_PS_UDP: c_enum = 0x0111;
pub const RDMA_PS_IB: c_enum = 0x013f;

// Option levels and names
pub const RDMA_OPTION_ID: c_enum = 0;
pub const RDMA_OPTION_IB: c_enum = 1;
pub const RDMA_OPTION_ID_TOS: c_enum = 0;
pub const RDMA_OPTION_ID_REUSEADDR: c_enum = 1;
pub const RDMA_OPTION_ID_AFONLY: c_enum = 2;
pub const RDMA_OPTION_ID_ACK_TIMEOUT: c_enum = 3;
