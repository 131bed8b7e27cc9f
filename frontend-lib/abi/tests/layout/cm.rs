//! Structures and numbers of `<rdma/rdma_cma.h>`.

use crate::FieldAt;
use masq_verbs_abi::*;
use std::mem::{offset_of, size_of};

macro_rules! layout {
    ($($name:ident: $($field:ident)*;)*) => {
        vec![$($(FieldAt { structure: stringify!($name), field: stringify!($field), offset: offset_of!($name, $field), size: size_of::<$name>() }),*),*]
    };
}

macro_rules! named {
    ($($name:ident)*) => { vec![$((stringify!($name), i64::from($name as i32), i64::from($name as u32))),*] };
}

pub(crate) fn fields() -> Vec<FieldAt> {
    layout! {
        rdma_ib_addr: sgid dgid pkey;
        rdma_addr: src_storage dst_storage addr;
        rdma_route: addr path_rec num_paths;
        rdma_event_channel: fd;
        rdma_cm_id: verbs channel context qp route ps port_num event send_cq_channel send_cq recv_cq_channel recv_cq srq pd qp_type;
        rdma_conn_param: private_data private_data_len responder_resources initiator_depth flow_control retry_count rnr_retry_count srq qp_num;
        rdma_ud_param: private_data private_data_len ah_attr qp_num qkey;
        rdma_cm_event: id listen_id event status param;
    }
}

pub(crate) fn constants() -> Vec<(&'static str, i64, i64)> {
    named! {
        RDMA_CM_EVENT_ADDR_RESOLVED RDMA_CM_EVENT_ADDR_ERROR RDMA_CM_EVENT_ROUTE_RESOLVED
        RDMA_CM_EVENT_ROUTE_ERROR RDMA_CM_EVENT_CONNECT_REQUEST RDMA_CM_EVENT_CONNECT_RESPONSE
        RDMA_CM_EVENT_CONNECT_ERROR RDMA_CM_EVENT_UNREACHABLE RDMA_CM_EVENT_REJECTED
        RDMA_CM_EVENT_ESTABLISHED RDMA_CM_EVENT_DISCONNECTED RDMA_CM_EVENT_DEVICE_REMOVAL
        RDMA_CM_EVENT_MULTICAST_JOIN RDMA_CM_EVENT_MULTICAST_ERROR RDMA_CM_EVENT_ADDR_CHANGE
        RDMA_CM_EVENT_TIMEWAIT_EXIT RDMA_PS_IPOIB RDMA_PS_TCP RDMA_PS_UDP RDMA_PS_IB
        RDMA_OPTION_ID RDMA_OPTION_IB RDMA_OPTION_ID_TOS RDMA_OPTION_ID_REUSEADDR
        RDMA_OPTION_ID_AFONLY RDMA_OPTION_ID_ACK_TIMEOUT
    }
}
