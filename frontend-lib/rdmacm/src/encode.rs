//! From the device's answers to what librdmacm reads. Pure.

use crate::abi::*;
use crate::address;
use masq_spec::verbs::{AhAttr, CmEvent, CmParam, CmQpAttr, CmRoute};
use masq_verbs_abi::{
    ib_user_path_rec, ib_uverbs_ah_attr, ib_uverbs_global_route, ib_uverbs_qp_attr,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// The one partition key of the device.
const PKEY: u16 = 0xffff;
/// The one port of the device.
const PORT: u8 = 1;
/// `ibv_get_device_index` of the one device.
const DEVICE_INDEX: u32 = 0;
/// A selector of path records: exactly this value.
const EXACTLY: u8 = 2;
/// `IB_PATH_GMP`, `IB_PATH_PRIMARY`, `IB_PATH_BIDIRECTIONAL`.
const PATH_FLAGS: u32 = 1 | 2 | 8 | 32;

/// The response to QUERY_ROUTE. `node_guid` in network order, as
/// `ibv_get_device_guid` tells it.
pub fn route(from: &CmRoute, node_guid: u64) -> rdma_ucm_query_route_resp {
    let mut to = rdma_ucm_query_route_resp::new_zeroed();
    to.src_addr = address::to_in6(&from.source);
    to.dst_addr = address::to_in6(&from.destination);
    if from.bound == 0 {
        return to;
    }
    to.node_guid = node_guid;
    to.ibdev_index = DEVICE_INDEX;
    to.port_num = PORT;
    to.num_paths = u32::from(from.paths.min(1));
    // Before the route is known the GIDs alone are told, here as in the kernel.
    to.ib_route[0] = if from.paths == 0 {
        ib_user_path_rec {
            dgid: from.dgid,
            sgid: from.sgid,
            pkey: PKEY.to_be(),
            ..ib_user_path_rec::default()
        }
    } else {
        path(from)
    };
    to
}

fn path(from: &CmRoute) -> ib_user_path_rec {
    ib_user_path_rec {
        dgid: from.dgid,
        sgid: from.sgid,
        reversible: 1,
        mtu: from.mtu.into(),
        pkey: PKEY.to_be(),
        hop_limit: from.hop_limit,
        traffic_class: from.traffic_class,
        mtu_selector: EXACTLY,
        rate_selector: EXACTLY,
        rate: from.rate,
        packet_life_time_selector: EXACTLY,
        packet_life_time: from.lifetime,
        ..ib_user_path_rec::default()
    }
}

fn device(from: &CmRoute, node_guid: u64) -> rdma_ucm_query_addr_resp {
    let mut to = rdma_ucm_query_addr_resp::new_zeroed();
    if from.bound != 0 {
        to.node_guid = node_guid;
        to.ibdev_index = DEVICE_INDEX;
        to.port_num = PORT;
        to.pkey = PKEY.to_be();
    }
    to
}

/// The response to QUERY for addresses.
pub fn addresses(from: &CmRoute, node_guid: u64) -> rdma_ucm_query_addr_resp {
    let mut to = device(from, node_guid);
    (to.src_addr, to.src_size) = address::to_storage(&from.source);
    (to.dst_addr, to.dst_size) = address::to_storage(&from.destination);
    to
}

/// The response to QUERY for GIDs.
pub fn gids(from: &CmRoute, node_guid: u64) -> rdma_ucm_query_addr_resp {
    let mut to = device(from, node_guid);
    (to.src_addr, to.src_size) = address::gid_to_storage(&from.sgid, PKEY);
    (to.dst_addr, to.dst_size) = address::gid_to_storage(&from.dgid, PKEY);
    to
}

/// The response to QUERY for paths: its head, and a record if there is one.
pub fn paths(from: &CmRoute) -> (rdma_ucm_query_path_resp, Option<ib_path_rec_data>) {
    let count = u32::from(from.paths.min(1));
    let head = rdma_ucm_query_path_resp {
        num_paths: count,
        reserved: 0,
    };
    let record = (count != 0).then(|| ib_path_rec_data {
        flags: PATH_FLAGS,
        reserved: 0,
        path_rec: wire_path(from),
    });
    (head, record)
}

/// A path record as it travels (IBA 15.2.5.16).
fn wire_path(from: &CmRoute) -> [u8; 64] {
    let mut to = [0; 64];
    to[8..24].copy_from_slice(&from.dgid);
    to[24..40].copy_from_slice(&from.sgid);
    to[47] = from.hop_limit;
    to[48] = from.traffic_class;
    to[49] = 0x80; // Reversible.
    to[50..52].copy_from_slice(&PKEY.to_be_bytes());
    for (at, value) in [(54, from.mtu), (55, from.rate), (56, from.lifetime)] {
        to[at] = EXACTLY << 6 | value & 0x3f;
    }
    to
}

/// The response to INIT_QP_ATTR.
pub fn qp_attr(from: &CmQpAttr) -> ib_uverbs_qp_attr {
    let a = &from.attr;
    ib_uverbs_qp_attr {
        qp_attr_mask: from.mask,
        qp_state: a.qp_state,
        cur_qp_state: a.cur_qp_state,
        path_mtu: a.path_mtu,
        path_mig_state: a.path_mig_state,
        qkey: a.qkey,
        rq_psn: a.rq_psn,
        sq_psn: a.sq_psn,
        dest_qp_num: a.dest_qp_num,
        qp_access_flags: a.qp_access_flags,
        ah_attr: ah_attr(&a.ah),
        alt_ah_attr: ah_attr(&a.alt_ah),
        max_send_wr: a.caps.max_send_wr,
        max_recv_wr: a.caps.max_recv_wr,
        max_send_sge: a.caps.max_send_sge,
        max_recv_sge: a.caps.max_recv_sge,
        max_inline_data: a.caps.max_inline_data,
        pkey_index: a.pkey_index,
        alt_pkey_index: a.alt_pkey_index,
        en_sqd_async_notify: a.en_sqd_async_notify,
        sq_draining: a.sq_draining,
        max_rd_atomic: a.max_rd_atomic,
        max_dest_rd_atomic: a.max_dest_rd_atomic,
        min_rnr_timer: a.min_rnr_timer,
        port_num: a.port_num,
        timeout: a.timeout,
        retry_cnt: a.retry_cnt,
        rnr_retry: a.rnr_retry,
        alt_port_num: a.alt_port_num,
        alt_timeout: a.alt_timeout,
        reserved: [0; 5],
    }
}

fn ah_attr(from: &AhAttr) -> ib_uverbs_ah_attr {
    ib_uverbs_ah_attr {
        grh: ib_uverbs_global_route {
            dgid: from.dgid,
            flow_label: from.flow_label,
            sgid_index: from.sgid_index,
            hop_limit: from.hop_limit,
            traffic_class: from.traffic_class,
            reserved: 0,
        },
        dlid: from.dlid,
        sl: from.sl,
        src_path_bits: from.src_path_bits,
        static_rate: from.static_rate,
        is_global: from.is_global,
        port_num: from.port_num,
        reserved: 0,
    }
}

/// The response to GET_EVENT.
pub fn event(from: &CmEvent) -> rdma_ucm_event_resp {
    let mut to = rdma_ucm_event_resp::new_zeroed();
    to.uid = from.uid;
    to.id = from.id;
    to.event = from.event;
    to.status = from.status.cast_unsigned();
    to.ece = rdma_ucm_ece {
        vendor_id: from.param.ece_vendor,
        attr_mod: from.param.ece_options,
    };
    if from.datagram != 0 {
        to.param = rdma_ucm_ud_param {
            qp_num: from.param.qpn,
            qkey: from.param.qkey,
            ah_attr: ah_attr(&from.ah),
            private_data: from.param.private_data,
            private_data_len: from.param.private_len,
            reserved: [0; 7],
        };
    } else {
        // The shorter of the two, so it fits.
        let _ = conn_param(&from.param).write_to_prefix(to.param.as_mut_bytes());
    }
    to
}

fn conn_param(from: &CmParam) -> rdma_ucm_conn_param {
    rdma_ucm_conn_param {
        qp_num: from.qpn,
        qkey: from.qkey,
        private_data: from.private_data,
        private_data_len: from.private_len,
        srq: from.srq,
        responder_resources: from.responder_resources,
        initiator_depth: from.initiator_depth,
        flow_control: from.flow_control,
        retry_count: from.retry_count,
        rnr_retry_count: from.rnr_retry_count,
        valid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_spec::verbs::{CmAddress, QpAttr};
    use zerocopy::FromBytes as _;

    fn found() -> CmRoute {
        CmRoute {
            source: CmAddress {
                family: 2,
                port: 4000,
                ..CmAddress::default()
            },
            sgid: [1; 16],
            dgid: [2; 16],
            bound: 1,
            paths: 1,
            traffic_class: 9,
            mtu: 3,
            lifetime: 16,
            rate: 7,
            hop_limit: 64,
            ..CmRoute::default()
        }
    }

    #[test]
    fn an_unbound_id_has_no_device() {
        let unbound = CmRoute {
            bound: 0,
            ..found()
        };
        let to = route(&unbound, 77);
        assert_eq!((to.node_guid, to.port_num, to.num_paths), (0, 0, 0));
        assert_eq!(to.ib_route[0].sgid, [0; 16]);
        assert_ne!(to.src_addr, [0; 28]);
        let to = addresses(&unbound, 77);
        assert_eq!((to.node_guid, to.src_size, to.dst_size), (0, 16, 0));
    }

    #[test]
    fn gids_are_told_before_the_route_is() {
        let to = route(
            &CmRoute {
                paths: 0,
                ..found()
            },
            77,
        );
        assert_eq!((to.node_guid, to.port_num, to.num_paths), (77, 1, 0));
        assert_eq!(to.ib_route[0].dgid, [2; 16]);
        assert_eq!(to.ib_route[0].mtu, 0);
        assert_eq!(route(&found(), 77).ib_route[0].mtu, 3);
    }

    #[test]
    fn a_path_travels_with_its_selectors() {
        let (head, record) = paths(&found());
        let record = record.unwrap();
        assert_eq!(head.num_paths, 1);
        assert_eq!(record.flags, 43);
        assert_eq!(record.path_rec[8..40], [[2; 16], [1; 16]].concat());
        assert_eq!(
            record.path_rec[47..57],
            [64, 9, 0x80, 0xff, 0xff, 0, 0, 0x83, 0x87, 0x90]
        );
        let none = paths(&CmRoute {
            paths: 0,
            ..found()
        });
        assert_eq!(none.0.num_paths, 0);
        assert!(none.1.is_none());
    }

    fn arrived(datagram: u32) -> CmEvent {
        let mut event = CmEvent::new_zeroed();
        event.uid = 5;
        event.id = 6;
        event.event = 8;
        event.status = -113;
        event.datagram = datagram;
        event.param.qpn = 17;
        event.param.qkey = 0x0123_4567;
        event.param.private_len = 3;
        event.param.private_data[..3].copy_from_slice(b"abc");
        event.param.rnr_retry_count = 7;
        event.param.ece_options = 4;
        event.ah.dgid = [9; 16];
        event
    }

    #[test]
    fn a_connections_event_carries_its_parameters_and_a_negative_status() {
        let to = event(&arrived(0));
        assert_eq!(to.status as i32, -113);
        let (conn, _) = rdma_ucm_conn_param::read_from_prefix(to.param.as_bytes()).unwrap();
        assert_eq!((conn.qp_num, conn.private_data_len), (17, 3));
        assert_eq!(&conn.private_data[..4], b"abc\0");
        assert_eq!(conn.rnr_retry_count, 7);
        assert_eq!(to.ece.attr_mod, 4);
    }

    #[test]
    fn a_datagram_services_event_carries_where_it_is() {
        let to = event(&arrived(1)).param;
        assert_eq!((to.qp_num, to.qkey), (17, 0x0123_4567));
        assert_eq!(to.ah_attr.grh.dgid, [9; 16]);
        assert_eq!(
            (&to.private_data[..3], to.private_data_len),
            (&b"abc"[..], 3)
        );
    }

    #[test]
    fn attributes_of_a_queue_pair_keep_their_names() {
        let from = CmQpAttr {
            reserved: 0,
            mask: 0x1234,
            attr: QpAttr {
                qp_state: 2,
                path_mtu: 3,
                rq_psn: 4,
                dest_qp_num: 5,
                max_dest_rd_atomic: 6,
                min_rnr_timer: 7,
                ah: AhAttr {
                    sgid_index: 3,
                    is_global: 1,
                    ..AhAttr::default()
                },
                ..QpAttr::default()
            },
        };
        let to = qp_attr(&from);
        assert_eq!((to.qp_attr_mask, to.qp_state, to.path_mtu), (0x1234, 2, 3));
        assert_eq!((to.rq_psn, to.dest_qp_num), (4, 5));
        assert_eq!((to.max_dest_rd_atomic, to.min_rnr_timer), (6, 7));
        assert_eq!((to.ah_attr.grh.sgid_index, to.ah_attr.is_global), (3, 1));
    }
}
