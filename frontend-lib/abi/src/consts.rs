//! Constants, grouped by the enumeration of `<infiniband/verbs.h>` they come from.

use crate::c_enum;

// ibv_gid_type
pub const IBV_GID_TYPE_IB: c_enum = 0;
pub const IBV_GID_TYPE_ROCE_V1: c_enum = 1;
pub const IBV_GID_TYPE_ROCE_V2: c_enum = 2;

// ibv_node_type
pub const IBV_NODE_UNKNOWN: c_enum = u32::MAX;
pub const IBV_NODE_CA: c_enum = 1;
pub const IBV_NODE_SWITCH: c_enum = 2;
pub const IBV_NODE_ROUTER: c_enum = 3;
pub const IBV_NODE_RNIC: c_enum = 4;
pub const IBV_NODE_USNIC: c_enum = 5;
pub const IBV_NODE_USNIC_UDP: c_enum = 6;
pub const IBV_NODE_UNSPECIFIED: c_enum = 7;

// ibv_transport_type
pub const IBV_TRANSPORT_UNKNOWN: c_enum = u32::MAX;
pub const IBV_TRANSPORT_IB: c_enum = 0;
pub const IBV_TRANSPORT_IWARP: c_enum = 1;
pub const IBV_TRANSPORT_USNIC: c_enum = 2;
pub const IBV_TRANSPORT_USNIC_UDP: c_enum = 3;
pub const IBV_TRANSPORT_UNSPECIFIED: c_enum = 4;

// ibv_device_cap_flags
pub const IBV_DEVICE_RESIZE_MAX_WR: c_enum = 1 << 0;
pub const IBV_DEVICE_BAD_PKEY_CNTR: c_enum = 1 << 1;
pub const IBV_DEVICE_BAD_QKEY_CNTR: c_enum = 1 << 2;
pub const IBV_DEVICE_RAW_MULTI: c_enum = 1 << 3;
pub const IBV_DEVICE_AUTO_PATH_MIG: c_enum = 1 << 4;
pub const IBV_DEVICE_CHANGE_PHY_PORT: c_enum = 1 << 5;
pub const IBV_DEVICE_UD_AV_PORT_ENFORCE: c_enum = 1 << 6;
pub const IBV_DEVICE_CURR_QP_STATE_MOD: c_enum = 1 << 7;
pub const IBV_DEVICE_SHUTDOWN_PORT: c_enum = 1 << 8;
pub const IBV_DEVICE_INIT_TYPE: c_enum = 1 << 9;
pub const IBV_DEVICE_PORT_ACTIVE_EVENT: c_enum = 1 << 10;
pub const IBV_DEVICE_SYS_IMAGE_GUID: c_enum = 1 << 11;
pub const IBV_DEVICE_RC_RNR_NAK_GEN: c_enum = 1 << 12;
pub const IBV_DEVICE_SRQ_RESIZE: c_enum = 1 << 13;
pub const IBV_DEVICE_N_NOTIFY_CQ: c_enum = 1 << 14;
pub const IBV_DEVICE_MEM_WINDOW: c_enum = 1 << 17;
pub const IBV_DEVICE_UD_IP_CSUM: c_enum = 1 << 18;
pub const IBV_DEVICE_XRC: c_enum = 1 << 20;
pub const IBV_DEVICE_MEM_MGT_EXTENSIONS: c_enum = 1 << 21;
pub const IBV_DEVICE_MEM_WINDOW_TYPE_2A: c_enum = 1 << 23;
pub const IBV_DEVICE_MEM_WINDOW_TYPE_2B: c_enum = 1 << 24;
pub const IBV_DEVICE_RC_IP_CSUM: c_enum = 1 << 25;
pub const IBV_DEVICE_RAW_IP_CSUM: c_enum = 1 << 26;
pub const IBV_DEVICE_MANAGED_FLOW_STEERING: c_enum = 1 << 29;

// ibv_fork_status
pub const IBV_FORK_DISABLED: c_enum = 0;
pub const IBV_FORK_ENABLED: c_enum = 1;
pub const IBV_FORK_UNNEEDED: c_enum = 2;

// ibv_atomic_cap
pub const IBV_ATOMIC_NONE: c_enum = 0;
pub const IBV_ATOMIC_HCA: c_enum = 1;
pub const IBV_ATOMIC_GLOB: c_enum = 2;

// ibv_mtu
pub const IBV_MTU_256: c_enum = 1;
pub const IBV_MTU_512: c_enum = 2;
pub const IBV_MTU_1024: c_enum = 3;
pub const IBV_MTU_2048: c_enum = 4;
pub const IBV_MTU_4096: c_enum = 5;

// ibv_port_state
pub const IBV_PORT_NOP: c_enum = 0;
pub const IBV_PORT_DOWN: c_enum = 1;
pub const IBV_PORT_INIT: c_enum = 2;
pub const IBV_PORT_ARMED: c_enum = 3;
pub const IBV_PORT_ACTIVE: c_enum = 4;
pub const IBV_PORT_ACTIVE_DEFER: c_enum = 5;

// Link layers
pub const IBV_LINK_LAYER_UNSPECIFIED: c_enum = 0;
pub const IBV_LINK_LAYER_INFINIBAND: c_enum = 1;
pub const IBV_LINK_LAYER_ETHERNET: c_enum = 2;

// ibv_port_cap_flags
pub const IBV_PORT_SM: c_enum = 1 << 1;
pub const IBV_PORT_NOTICE_SUP: c_enum = 1 << 2;
pub const IBV_PORT_TRAP_SUP: c_enum = 1 << 3;
pub const IBV_PORT_OPT_IPD_SUP: c_enum = 1 << 4;
pub const IBV_PORT_AUTO_MIGR_SUP: c_enum = 1 << 5;
pub const IBV_PORT_SL_MAP_SUP: c_enum = 1 << 6;
pub const IBV_PORT_MKEY_NVRAM: c_enum = 1 << 7;
pub const IBV_PORT_PKEY_NVRAM: c_enum = 1 << 8;
pub const IBV_PORT_LED_INFO_SUP: c_enum = 1 << 9;
pub const IBV_PORT_SYS_IMAGE_GUID_SUP: c_enum = 1 << 11;
pub const IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP: c_enum = 1 << 12;
pub const IBV_PORT_EXTENDED_SPEEDS_SUP: c_enum = 1 << 14;
pub const IBV_PORT_CAP_MASK2_SUP: c_enum = 1 << 15;
pub const IBV_PORT_CM_SUP: c_enum = 1 << 16;
pub const IBV_PORT_SNMP_TUNNEL_SUP: c_enum = 1 << 17;
pub const IBV_PORT_REINIT_SUP: c_enum = 1 << 18;
pub const IBV_PORT_DEVICE_MGMT_SUP: c_enum = 1 << 19;
pub const IBV_PORT_VENDOR_CLASS_SUP: c_enum = 1 << 20;
pub const IBV_PORT_DR_NOTICE_SUP: c_enum = 1 << 21;
pub const IBV_PORT_CAP_MASK_NOTICE_SUP: c_enum = 1 << 22;
pub const IBV_PORT_BOOT_MGMT_SUP: c_enum = 1 << 23;
pub const IBV_PORT_LINK_LATENCY_SUP: c_enum = 1 << 24;
pub const IBV_PORT_CLIENT_REG_SUP: c_enum = 1 << 25;
pub const IBV_PORT_IP_BASED_GIDS: c_enum = 1 << 26;

// ibv_port_cap_flags2
pub const IBV_PORT_SET_NODE_DESC_SUP: c_enum = 1 << 0;
pub const IBV_PORT_INFO_EXT_SUP: c_enum = 1 << 1;
pub const IBV_PORT_VIRT_SUP: c_enum = 1 << 2;
pub const IBV_PORT_SWITCH_PORT_STATE_TABLE_SUP: c_enum = 1 << 3;
pub const IBV_PORT_LINK_WIDTH_2X_SUP: c_enum = 1 << 4;
pub const IBV_PORT_LINK_SPEED_HDR_SUP: c_enum = 1 << 5;
pub const IBV_PORT_LINK_SPEED_NDR_SUP: c_enum = 1 << 10;

// ibv_event_type
pub const IBV_EVENT_CQ_ERR: c_enum = 0;
pub const IBV_EVENT_QP_FATAL: c_enum = 1;
pub const IBV_EVENT_QP_REQ_ERR: c_enum = 2;
pub const IBV_EVENT_QP_ACCESS_ERR: c_enum = 3;
pub const IBV_EVENT_COMM_EST: c_enum = 4;
pub const IBV_EVENT_SQ_DRAINED: c_enum = 5;
pub const IBV_EVENT_PATH_MIG: c_enum = 6;
pub const IBV_EVENT_PATH_MIG_ERR: c_enum = 7;
pub const IBV_EVENT_DEVICE_FATAL: c_enum = 8;
pub const IBV_EVENT_PORT_ACTIVE: c_enum = 9;
pub const IBV_EVENT_PORT_ERR: c_enum = 10;
pub const IBV_EVENT_LID_CHANGE: c_enum = 11;
pub const IBV_EVENT_PKEY_CHANGE: c_enum = 12;
pub const IBV_EVENT_SM_CHANGE: c_enum = 13;
pub const IBV_EVENT_SRQ_ERR: c_enum = 14;
pub const IBV_EVENT_SRQ_LIMIT_REACHED: c_enum = 15;
pub const IBV_EVENT_QP_LAST_WQE_REACHED: c_enum = 16;
pub const IBV_EVENT_CLIENT_REREGISTER: c_enum = 17;
pub const IBV_EVENT_GID_CHANGE: c_enum = 18;
pub const IBV_EVENT_WQ_FATAL: c_enum = 19;

// ibv_wc_status
pub const IBV_WC_SUCCESS: c_enum = 0;
pub const IBV_WC_LOC_LEN_ERR: c_enum = 1;
pub const IBV_WC_LOC_QP_OP_ERR: c_enum = 2;
pub const IBV_WC_LOC_EEC_OP_ERR: c_enum = 3;
pub const IBV_WC_LOC_PROT_ERR: c_enum = 4;
pub const IBV_WC_WR_FLUSH_ERR: c_enum = 5;
pub const IBV_WC_MW_BIND_ERR: c_enum = 6;
pub const IBV_WC_BAD_RESP_ERR: c_enum = 7;
pub const IBV_WC_LOC_ACCESS_ERR: c_enum = 8;
pub const IBV_WC_REM_INV_REQ_ERR: c_enum = 9;
pub const IBV_WC_REM_ACCESS_ERR: c_enum = 10;
pub const IBV_WC_REM_OP_ERR: c_enum = 11;
pub const IBV_WC_RETRY_EXC_ERR: c_enum = 12;
pub const IBV_WC_RNR_RETRY_EXC_ERR: c_enum = 13;
pub const IBV_WC_LOC_RDD_VIOL_ERR: c_enum = 14;
pub const IBV_WC_REM_INV_RD_REQ_ERR: c_enum = 15;
pub const IBV_WC_REM_ABORT_ERR: c_enum = 16;
pub const IBV_WC_INV_EECN_ERR: c_enum = 17;
pub const IBV_WC_INV_EEC_STATE_ERR: c_enum = 18;
pub const IBV_WC_FATAL_ERR: c_enum = 19;
pub const IBV_WC_RESP_TIMEOUT_ERR: c_enum = 20;
pub const IBV_WC_GENERAL_ERR: c_enum = 21;
pub const IBV_WC_TM_ERR: c_enum = 22;
pub const IBV_WC_TM_RNDV_INCOMPLETE: c_enum = 23;

// ibv_wc_opcode
pub const IBV_WC_SEND: c_enum = 0;
pub const IBV_WC_RDMA_WRITE: c_enum = 1;
pub const IBV_WC_RDMA_READ: c_enum = 2;
pub const IBV_WC_COMP_SWAP: c_enum = 3;
pub const IBV_WC_FETCH_ADD: c_enum = 4;
pub const IBV_WC_BIND_MW: c_enum = 5;
pub const IBV_WC_LOCAL_INV: c_enum = 6;
pub const IBV_WC_TSO: c_enum = 7;
pub const IBV_WC_ATOMIC_WRITE: c_enum = 9;
pub const IBV_WC_RECV: c_enum = 128;
pub const IBV_WC_RECV_RDMA_WITH_IMM: c_enum = 129;
pub const IBV_WC_TM_ADD: c_enum = 130;
pub const IBV_WC_TM_DEL: c_enum = 131;
pub const IBV_WC_TM_SYNC: c_enum = 132;
pub const IBV_WC_TM_RECV: c_enum = 133;
pub const IBV_WC_TM_NO_TAG: c_enum = 134;
pub const IBV_WC_DRIVER1: c_enum = 135;
pub const IBV_WC_DRIVER2: c_enum = 136;
pub const IBV_WC_DRIVER3: c_enum = 137;

// Shift of IBV_WC_IP_CSUM_OK
pub const IBV_WC_IP_CSUM_OK_SHIFT: c_enum = 2;

// ibv_create_cq_wc_flags
pub const IBV_WC_EX_WITH_BYTE_LEN: c_enum = 1 << 0;
pub const IBV_WC_EX_WITH_IMM: c_enum = 1 << 1;
pub const IBV_WC_EX_WITH_QP_NUM: c_enum = 1 << 2;
pub const IBV_WC_EX_WITH_SRC_QP: c_enum = 1 << 3;
pub const IBV_WC_EX_WITH_SLID: c_enum = 1 << 4;
pub const IBV_WC_EX_WITH_SL: c_enum = 1 << 5;
pub const IBV_WC_EX_WITH_DLID_PATH_BITS: c_enum = 1 << 6;
pub const IBV_WC_EX_WITH_COMPLETION_TIMESTAMP: c_enum = 1 << 7;
pub const IBV_WC_EX_WITH_CVLAN: c_enum = 1 << 8;
pub const IBV_WC_EX_WITH_FLOW_TAG: c_enum = 1 << 9;
pub const IBV_WC_EX_WITH_TM_INFO: c_enum = 1 << 10;
pub const IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK: c_enum = 1 << 11;

// What ibv_poll_cq always reports
pub const IBV_WC_STANDARD_FLAGS: c_enum = 0x7f;

// What ibv_create_cq_ex may be asked for
pub const IBV_CREATE_CQ_SUP_WC_FLAGS: c_enum = 0xfff;

// ibv_wc_flags
pub const IBV_WC_GRH: c_enum = 1 << 0;
pub const IBV_WC_WITH_IMM: c_enum = 1 << 1;
pub const IBV_WC_IP_CSUM_OK: c_enum = 1 << 2;
pub const IBV_WC_WITH_INV: c_enum = 1 << 3;
pub const IBV_WC_TM_SYNC_REQ: c_enum = 1 << 4;
pub const IBV_WC_TM_MATCH: c_enum = 1 << 5;
pub const IBV_WC_TM_DATA_VALID: c_enum = 1 << 6;

// ibv_access_flags
pub const IBV_ACCESS_LOCAL_WRITE: c_enum = 1 << 0;
pub const IBV_ACCESS_REMOTE_WRITE: c_enum = 1 << 1;
pub const IBV_ACCESS_REMOTE_READ: c_enum = 1 << 2;
pub const IBV_ACCESS_REMOTE_ATOMIC: c_enum = 1 << 3;
pub const IBV_ACCESS_MW_BIND: c_enum = 1 << 4;
pub const IBV_ACCESS_ZERO_BASED: c_enum = 1 << 5;
pub const IBV_ACCESS_ON_DEMAND: c_enum = 1 << 6;
pub const IBV_ACCESS_HUGETLB: c_enum = 1 << 7;
pub const IBV_ACCESS_RELAXED_ORDERING: c_enum = 1 << 20;

// ibv_rereg_mr_flags
pub const IBV_REREG_MR_CHANGE_TRANSLATION: c_enum = 1 << 0;
pub const IBV_REREG_MR_CHANGE_PD: c_enum = 1 << 1;
pub const IBV_REREG_MR_CHANGE_ACCESS: c_enum = 1 << 2;
pub const IBV_REREG_MR_FLAGS_SUPPORTED: c_enum = 7;

// ibv_mw_type
pub const IBV_MW_TYPE_1: c_enum = 1;
pub const IBV_MW_TYPE_2: c_enum = 2;

// ibv_rate
pub const IBV_RATE_MAX: c_enum = 0;
pub const IBV_RATE_2_5_GBPS: c_enum = 2;
pub const IBV_RATE_5_GBPS: c_enum = 5;
pub const IBV_RATE_10_GBPS: c_enum = 3;
pub const IBV_RATE_20_GBPS: c_enum = 6;
pub const IBV_RATE_30_GBPS: c_enum = 4;
pub const IBV_RATE_40_GBPS: c_enum = 7;
pub const IBV_RATE_60_GBPS: c_enum = 8;
pub const IBV_RATE_80_GBPS: c_enum = 9;
pub const IBV_RATE_120_GBPS: c_enum = 10;
pub const IBV_RATE_14_GBPS: c_enum = 11;
pub const IBV_RATE_56_GBPS: c_enum = 12;
pub const IBV_RATE_112_GBPS: c_enum = 13;
pub const IBV_RATE_168_GBPS: c_enum = 14;
pub const IBV_RATE_25_GBPS: c_enum = 15;
pub const IBV_RATE_100_GBPS: c_enum = 16;
pub const IBV_RATE_200_GBPS: c_enum = 17;
pub const IBV_RATE_300_GBPS: c_enum = 18;
pub const IBV_RATE_28_GBPS: c_enum = 19;
pub const IBV_RATE_50_GBPS: c_enum = 20;
pub const IBV_RATE_400_GBPS: c_enum = 21;
pub const IBV_RATE_600_GBPS: c_enum = 22;
pub const IBV_RATE_800_GBPS: c_enum = 23;
pub const IBV_RATE_1200_GBPS: c_enum = 24;

// ibv_srq_attr_mask
pub const IBV_SRQ_MAX_WR: c_enum = 1 << 0;
pub const IBV_SRQ_LIMIT: c_enum = 1 << 1;

// ibv_srq_type
pub const IBV_SRQT_BASIC: c_enum = 0;
pub const IBV_SRQT_XRC: c_enum = 1;
pub const IBV_SRQT_TM: c_enum = 2;

// ibv_srq_init_attr_mask
pub const IBV_SRQ_INIT_ATTR_TYPE: c_enum = 1 << 0;
pub const IBV_SRQ_INIT_ATTR_PD: c_enum = 1 << 1;
pub const IBV_SRQ_INIT_ATTR_XRCD: c_enum = 1 << 2;
pub const IBV_SRQ_INIT_ATTR_CQ: c_enum = 1 << 3;
pub const IBV_SRQ_INIT_ATTR_TM: c_enum = 1 << 4;
pub const IBV_SRQ_INIT_ATTR_RESERVED: c_enum = 1 << 5;

// ibv_qp_type
pub const IBV_QPT_RC: c_enum = 2;
pub const IBV_QPT_UC: c_enum = 3;
pub const IBV_QPT_UD: c_enum = 4;
pub const IBV_QPT_RAW_PACKET: c_enum = 8;
pub const IBV_QPT_XRC_SEND: c_enum = 9;
pub const IBV_QPT_XRC_RECV: c_enum = 10;
pub const IBV_QPT_DRIVER: c_enum = 255;

// ibv_qp_init_attr_mask
pub const IBV_QP_INIT_ATTR_PD: c_enum = 1 << 0;
pub const IBV_QP_INIT_ATTR_XRCD: c_enum = 1 << 1;
pub const IBV_QP_INIT_ATTR_CREATE_FLAGS: c_enum = 1 << 2;
pub const IBV_QP_INIT_ATTR_MAX_TSO_HEADER: c_enum = 1 << 3;
pub const IBV_QP_INIT_ATTR_IND_TABLE: c_enum = 1 << 4;
pub const IBV_QP_INIT_ATTR_RX_HASH: c_enum = 1 << 5;
pub const IBV_QP_INIT_ATTR_SEND_OPS_FLAGS: c_enum = 1 << 6;

// ibv_qp_create_flags
pub const IBV_QP_CREATE_BLOCK_SELF_MCAST_LB: c_enum = 1 << 1;
pub const IBV_QP_CREATE_SCATTER_FCS: c_enum = 1 << 8;
pub const IBV_QP_CREATE_CVLAN_STRIPPING: c_enum = 1 << 9;
pub const IBV_QP_CREATE_SOURCE_QPN: c_enum = 1 << 10;
pub const IBV_QP_CREATE_PCI_WRITE_END_PADDING: c_enum = 1 << 11;

// ibv_qp_create_send_ops_flags
pub const IBV_QP_EX_WITH_RDMA_WRITE: c_enum = 1 << 0;
pub const IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM: c_enum = 1 << 1;
pub const IBV_QP_EX_WITH_SEND: c_enum = 1 << 2;
pub const IBV_QP_EX_WITH_SEND_WITH_IMM: c_enum = 1 << 3;
pub const IBV_QP_EX_WITH_RDMA_READ: c_enum = 1 << 4;
pub const IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP: c_enum = 1 << 5;
pub const IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD: c_enum = 1 << 6;
pub const IBV_QP_EX_WITH_LOCAL_INV: c_enum = 1 << 7;
pub const IBV_QP_EX_WITH_BIND_MW: c_enum = 1 << 8;
pub const IBV_QP_EX_WITH_SEND_WITH_INV: c_enum = 1 << 9;
pub const IBV_QP_EX_WITH_TSO: c_enum = 1 << 10;
pub const IBV_QP_EX_WITH_ATOMIC_WRITE: c_enum = 1 << 12;

// ibv_qp_attr_mask
pub const IBV_QP_STATE: c_enum = 1 << 0;
pub const IBV_QP_CUR_STATE: c_enum = 1 << 1;
pub const IBV_QP_EN_SQD_ASYNC_NOTIFY: c_enum = 1 << 2;
pub const IBV_QP_ACCESS_FLAGS: c_enum = 1 << 3;
pub const IBV_QP_PKEY_INDEX: c_enum = 1 << 4;
pub const IBV_QP_PORT: c_enum = 1 << 5;
pub const IBV_QP_QKEY: c_enum = 1 << 6;
pub const IBV_QP_AV: c_enum = 1 << 7;
pub const IBV_QP_PATH_MTU: c_enum = 1 << 8;
pub const IBV_QP_TIMEOUT: c_enum = 1 << 9;
pub const IBV_QP_RETRY_CNT: c_enum = 1 << 10;
pub const IBV_QP_RNR_RETRY: c_enum = 1 << 11;
pub const IBV_QP_RQ_PSN: c_enum = 1 << 12;
pub const IBV_QP_MAX_QP_RD_ATOMIC: c_enum = 1 << 13;
pub const IBV_QP_ALT_PATH: c_enum = 1 << 14;
pub const IBV_QP_MIN_RNR_TIMER: c_enum = 1 << 15;
pub const IBV_QP_SQ_PSN: c_enum = 1 << 16;
pub const IBV_QP_MAX_DEST_RD_ATOMIC: c_enum = 1 << 17;
pub const IBV_QP_PATH_MIG_STATE: c_enum = 1 << 18;
pub const IBV_QP_CAP: c_enum = 1 << 19;
pub const IBV_QP_DEST_QPN: c_enum = 1 << 20;
pub const IBV_QP_RATE_LIMIT: c_enum = 1 << 25;

// ibv_qp_state
pub const IBV_QPS_RESET: c_enum = 0;
pub const IBV_QPS_INIT: c_enum = 1;
pub const IBV_QPS_RTR: c_enum = 2;
pub const IBV_QPS_RTS: c_enum = 3;
pub const IBV_QPS_SQD: c_enum = 4;
pub const IBV_QPS_SQE: c_enum = 5;
pub const IBV_QPS_ERR: c_enum = 6;
pub const IBV_QPS_UNKNOWN: c_enum = 7;

// ibv_mig_state
pub const IBV_MIG_MIGRATED: c_enum = 0;
pub const IBV_MIG_REARM: c_enum = 1;
pub const IBV_MIG_ARMED: c_enum = 2;

// ibv_wr_opcode
pub const IBV_WR_RDMA_WRITE: c_enum = 0;
pub const IBV_WR_RDMA_WRITE_WITH_IMM: c_enum = 1;
pub const IBV_WR_SEND: c_enum = 2;
pub const IBV_WR_SEND_WITH_IMM: c_enum = 3;
pub const IBV_WR_RDMA_READ: c_enum = 4;
pub const IBV_WR_ATOMIC_CMP_AND_SWP: c_enum = 5;
pub const IBV_WR_ATOMIC_FETCH_AND_ADD: c_enum = 6;
pub const IBV_WR_LOCAL_INV: c_enum = 7;
pub const IBV_WR_BIND_MW: c_enum = 8;
pub const IBV_WR_SEND_WITH_INV: c_enum = 9;
pub const IBV_WR_TSO: c_enum = 10;
pub const IBV_WR_DRIVER1: c_enum = 11;
pub const IBV_WR_ATOMIC_WRITE: c_enum = 15;

// ibv_send_flags
pub const IBV_SEND_FENCE: c_enum = 1 << 0;
pub const IBV_SEND_SIGNALED: c_enum = 1 << 1;
pub const IBV_SEND_SOLICITED: c_enum = 1 << 2;
pub const IBV_SEND_INLINE: c_enum = 1 << 3;
pub const IBV_SEND_IP_CSUM: c_enum = 1 << 4;

// ibv_cq_attr_mask
pub const IBV_CQ_ATTR_MODERATE: c_enum = 1 << 0;
pub const IBV_CQ_ATTR_RESERVED: c_enum = 1 << 1;

// Sizes of the names in ibv_device
pub const IBV_SYSFS_NAME_MAX: usize = 64;
pub const IBV_SYSFS_PATH_MAX: usize = 256;

// ibv_cq_init_attr_mask
pub const IBV_CQ_INIT_ATTR_MASK_FLAGS: c_enum = 1 << 0;
pub const IBV_CQ_INIT_ATTR_MASK_PD: c_enum = 1 << 1;

// ibv_create_cq_attr_flags
pub const IBV_CREATE_CQ_ATTR_SINGLE_THREADED: c_enum = 1 << 0;
pub const IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN: c_enum = 1 << 1;

// ibv_parent_domain_init_attr_mask
pub const IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS: c_enum = 1 << 0;
pub const IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT: c_enum = 1 << 1;

// ibv_values_mask
pub const IBV_VALUES_MASK_RAW_CLOCK: c_enum = 1 << 0;
pub const IBV_VALUES_MASK_RESERVED: c_enum = 1 << 1;

// ibv_rereg_mr_err_code
pub const IBV_REREG_MR_ERR_INPUT: i32 = -1;
pub const IBV_REREG_MR_ERR_DONT_FORK_NEW: i32 = -2;
pub const IBV_REREG_MR_ERR_DO_FORK_OLD: i32 = -3;
pub const IBV_REREG_MR_ERR_CMD: i32 = -4;
pub const IBV_REREG_MR_ERR_CMD_AND_DO_FORK_NEW: i32 = -5;

// Macros
pub const IBV_ACCESS_OPTIONAL_FIRST: c_enum = 1 << 20;
pub const IBV_ACCESS_OPTIONAL_RANGE: c_enum = 0x3ff0_0000;
pub const IBV_QPF_GRH_REQUIRED: c_enum = 1;
pub const IBV_ADVISE_MR_ADVICE_PREFETCH: c_enum = 0;
pub const IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE: c_enum = 1;
pub const IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT: c_enum = 2;
pub const IBV_ADVISE_MR_FLAG_FLUSH: c_enum = 1;

// Since rdma-core 45
/// `IBV_WR_FLUSH`; no header of version 44 has it.
pub const IBV_WR_FLUSH: c_enum = 14;
/// `IBV_QP_EX_WITH_FLUSH`; no header of version 44 has it.
pub const IBV_QP_EX_WITH_FLUSH: c_enum = 1 << 11;
