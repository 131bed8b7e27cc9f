//! Structures of `<rdma/rdma_user_cm.h>`: what librdmacm writes to the device, and what
//! it wants written back. The test of `masq-rdmacm` compares them with the header.
#![allow(non_camel_case_types, reason = "the C names are the interface")]

use crate::{ib_user_path_rec, ib_uverbs_ah_attr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most bytes of private data.
pub const MAX_PRIVATE_DATA: usize = 256;
/// Address family of an InfiniBand address.
pub const AF_IB: u16 = 27;

macro_rules! abi {
    ($($(#[$doc:meta])* $name:ident: $size:literal { $($field:ident: $ty:ty,)+ })+) => { $(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $ty,)+ }
        const _: () = assert!(size_of::<$name>() == $size);
        impl Layout for $name {
            const NAME: &str = stringify!($name);
            const FIELDS: &[(&str, usize)] =
                &[$((stringify!($field), std::mem::offset_of!($name, $field)),)+];
        }
    )+ };
}

/// What the test compares with the header.
pub trait Layout: Sized {
    /// Name of the structure in C.
    const NAME: &str;
    /// Names and offsets of its fields.
    const FIELDS: &[(&str, usize)];
}

/// `struct sockaddr_in6`; an IPv4 address lies in its front as `sockaddr_in`.
pub type SockaddrIn6 = [u8; 28];
/// `struct sockaddr_storage`.
pub type SockaddrStorage = [u8; 128];

abi! {
    /// Start of every command.
    rdma_ucm_cmd_hdr: 8 { cmd: u32, r#in: u16, out: u16, }
    /// CREATE_ID.
    rdma_ucm_create_id: 24 { uid: u64, response: u64, ps: u16, qp_type: u8, reserved: [u8; 5], }
    /// Its response, and that of a join.
    rdma_ucm_create_id_resp: 4 { id: u32, }
    /// DESTROY_ID and LEAVE_MCAST.
    rdma_ucm_destroy_id: 16 { response: u64, id: u32, reserved: u32, }
    /// Their response.
    rdma_ucm_destroy_id_resp: 4 { events_reported: u32, }
    /// BIND_IP.
    rdma_ucm_bind_ip: 40 { response: u64, addr: SockaddrIn6, id: u32, }
    /// BIND.
    rdma_ucm_bind: 136 { id: u32, addr_size: u16, reserved: u16, addr: SockaddrStorage, }
    /// RESOLVE_IP.
    rdma_ucm_resolve_ip: 64 {
        src_addr: SockaddrIn6, dst_addr: SockaddrIn6, id: u32, timeout_ms: u32,
    }
    /// RESOLVE_ADDR.
    rdma_ucm_resolve_addr: 272 {
        id: u32, timeout_ms: u32, src_size: u16, dst_size: u16, reserved: u32,
        src_addr: SockaddrStorage, dst_addr: SockaddrStorage,
    }
    /// RESOLVE_ROUTE.
    rdma_ucm_resolve_route: 8 { id: u32, timeout_ms: u32, }
    /// QUERY_ROUTE and QUERY.
    rdma_ucm_query: 16 { response: u64, id: u32, option: u32, }
    /// The response to QUERY_ROUTE.
    rdma_ucm_query_route_resp: 208 {
        node_guid: u64, ib_route: [ib_user_path_rec; 2], src_addr: SockaddrIn6,
        dst_addr: SockaddrIn6, num_paths: u32, port_num: u8, reserved: [u8; 3],
        ibdev_index: u32, reserved1: u32,
    }
    /// The response to QUERY for addresses or GIDs.
    rdma_ucm_query_addr_resp: 280 {
        node_guid: u64, port_num: u8, reserved: u8, pkey: u16, src_size: u16, dst_size: u16,
        src_addr: SockaddrStorage, dst_addr: SockaddrStorage, ibdev_index: u32, reserved1: u32,
    }
    /// Start of the response to QUERY for paths.
    rdma_ucm_query_path_resp: 8 { num_paths: u32, reserved: u32, }
    /// One path of it.
    ib_path_rec_data: 72 { flags: u32, reserved: u32, path_rec: [u8; 64], }
    /// One side of a connection.
    rdma_ucm_conn_param: 272 {
        qp_num: u32, qkey: u32, private_data: [u8; MAX_PRIVATE_DATA], private_data_len: u8,
        srq: u8, responder_resources: u8, initiator_depth: u8, flow_control: u8,
        retry_count: u8, rnr_retry_count: u8, valid: u8,
    }
    /// A datagram service.
    rdma_ucm_ud_param: 304 {
        qp_num: u32, qkey: u32, ah_attr: ib_uverbs_ah_attr,
        private_data: [u8; MAX_PRIVATE_DATA], private_data_len: u8, reserved: [u8; 7],
    }
    /// Enhanced connection establishment.
    rdma_ucm_ece: 8 { vendor_id: u32, attr_mod: u32, }
    /// CONNECT.
    rdma_ucm_connect: 288 {
        conn_param: rdma_ucm_conn_param, id: u32, reserved: u32, ece: rdma_ucm_ece,
    }
    /// LISTEN.
    rdma_ucm_listen: 8 { id: u32, backlog: u32, }
    /// ACCEPT.
    rdma_ucm_accept: 296 {
        uid: u64, conn_param: rdma_ucm_conn_param, id: u32, reserved: u32, ece: rdma_ucm_ece,
    }
    /// REJECT.
    rdma_ucm_reject: 264 {
        id: u32, private_data_len: u8, reason: u8, reserved: [u8; 2],
        private_data: [u8; MAX_PRIVATE_DATA],
    }
    /// DISCONNECT.
    rdma_ucm_disconnect: 4 { id: u32, }
    /// INIT_QP_ATTR.
    rdma_ucm_init_qp_attr: 16 { response: u64, id: u32, qp_state: u32, }
    /// NOTIFY.
    rdma_ucm_notify: 8 { id: u32, event: u32, }
    /// JOIN_IP_MCAST.
    rdma_ucm_join_ip_mcast: 48 { response: u64, uid: u64, addr: SockaddrIn6, id: u32, }
    /// JOIN_MCAST.
    rdma_ucm_join_mcast: 152 {
        response: u64, uid: u64, id: u32, addr_size: u16, join_flags: u16, addr: SockaddrStorage,
    }
    /// GET_EVENT.
    rdma_ucm_get_event: 8 { response: u64, }
    /// Its response; of connections, `param` begins with a [`rdma_ucm_conn_param`].
    rdma_ucm_event_resp: 336 {
        uid: u64, id: u32, event: u32, status: u32, param: rdma_ucm_ud_param, reserved: u32,
        ece: rdma_ucm_ece,
    }
    /// SET_OPTION.
    rdma_ucm_set_option: 24 { optval: u64, id: u32, level: u32, optname: u32, optlen: u32, }
    /// MIGRATE_ID.
    rdma_ucm_migrate_id: 16 { response: u64, id: u32, fd: u32, }
    /// Its response.
    rdma_ucm_migrate_resp: 4 { events_reported: u32, }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)+) => {
        $($(#[$doc])* pub const $name: u32 = $value;)+
        /// All numbers of commands, for the test.
        pub const NUMBERS: &[(&str, u32)] = &[$((stringify!($name), $value),)+];
    };
}

/// Numbers of the commands.
#[allow(missing_docs)]
pub mod cmd {
    numbers! {
        RDMA_USER_CM_CMD_CREATE_ID = 0,
        RDMA_USER_CM_CMD_DESTROY_ID = 1,
        RDMA_USER_CM_CMD_BIND_IP = 2,
        RDMA_USER_CM_CMD_RESOLVE_IP = 3,
        RDMA_USER_CM_CMD_RESOLVE_ROUTE = 4,
        RDMA_USER_CM_CMD_QUERY_ROUTE = 5,
        RDMA_USER_CM_CMD_CONNECT = 6,
        RDMA_USER_CM_CMD_LISTEN = 7,
        RDMA_USER_CM_CMD_ACCEPT = 8,
        RDMA_USER_CM_CMD_REJECT = 9,
        RDMA_USER_CM_CMD_DISCONNECT = 10,
        RDMA_USER_CM_CMD_INIT_QP_ATTR = 11,
        RDMA_USER_CM_CMD_GET_EVENT = 12,
        RDMA_USER_CM_CMD_GET_OPTION = 13,
        RDMA_USER_CM_CMD_SET_OPTION = 14,
        RDMA_USER_CM_CMD_NOTIFY = 15,
        RDMA_USER_CM_CMD_JOIN_IP_MCAST = 16,
        RDMA_USER_CM_CMD_LEAVE_MCAST = 17,
        RDMA_USER_CM_CMD_MIGRATE_ID = 18,
        RDMA_USER_CM_CMD_QUERY = 19,
        RDMA_USER_CM_CMD_BIND = 20,
        RDMA_USER_CM_CMD_RESOLVE_ADDR = 21,
        RDMA_USER_CM_CMD_JOIN_MCAST = 22,
    }
    /// Newer than the header of rdma-core 44.
    pub const RESOLVE_IB_SERVICE: u32 = 23;
    /// Newer than the header of rdma-core 44.
    pub const WRITE_CM_EVENT: u32 = 24;
}
