//! Attributes of queue pairs and paths: the tenant's, and the card's
//! (RConnrename).

use crate::card::{Card, Link, gid_of};
use masq_device::{Destination, DeviceError, Result};
use masq_spec::verbs::{AhAttr, QpAttr, QpMask};
use masq_verbs_abi::*;

/// The path of the card that a destination stands for.
pub(crate) fn path(card: &Card, ah: &AhAttr, destination: Destination) -> Result<ibv_ah_attr> {
    let (dgid, dlid) = match (destination, card.link) {
        (Destination::Endpoint(_), Link::InfiniBand { lid }) => (card.gid, lid),
        (Destination::Endpoint(_), _) => (card.gid, 0),
        (Destination::Host(host), Link::Ethernet) => (gid_of(host), 0),
        (Destination::Host(_), _) => {
            return Err(DeviceError::Unsupported(
                "connections to other hosts by verbs alone, over this card's link",
            ));
        }
        (Destination::Multicast(_), _) => {
            return Err(DeviceError::Unsupported("multicast over a card"));
        }
    };
    Ok(ibv_ah_attr {
        grh: ibv_global_route {
            dgid: ibv_gid { raw: dgid },
            flow_label: ah.flow_label & 0xf_ffff,
            sgid_index: card.gid_index,
            // 0 would not leave the host.
            hop_limit: if ah.hop_limit == 0 { 64 } else { ah.hop_limit },
            traffic_class: ah.traffic_class,
        },
        dlid,
        sl: ah.sl & 15,
        src_path_bits: 0,
        static_rate: ah.static_rate,
        is_global: 1,
        port_num: card.port,
    })
}

/// The card's attributes for a tenant's change. `path`: where `attr.ah` leads.
pub(crate) fn to_card(
    card: &Card,
    mask: QpMask,
    attr: &QpAttr,
    path: Option<ibv_ah_attr>,
) -> Result<ibv_qp_attr> {
    let has = |bit| mask.contains(bit);
    if has(QpMask::PORT) && attr.port_num != 1 {
        return Err(DeviceError::Invalid("there is only port 1"));
    }
    if has(QpMask::PKEY_INDEX) && attr.pkey_index != 0 {
        return Err(DeviceError::Invalid("there is only pkey index 0"));
    }
    if has(QpMask::PATH_MTU) && attr.path_mtu > card.mtu && card.link != Link::Iwarp {
        return Err(DeviceError::Invalid("path_mtu above the port's active MTU"));
    }
    let unsupported = QpMask::ALT_PATH | QpMask::PATH_MIG_STATE | QpMask::RATE_LIMIT | QpMask::CAP;
    if mask.intersects(unsupported) {
        return Err(DeviceError::Unsupported("alternate paths over a card"));
    }
    Ok(ibv_qp_attr {
        qp_state: attr.qp_state,
        cur_qp_state: attr.cur_qp_state,
        path_mtu: attr.path_mtu,
        qkey: attr.qkey,
        rq_psn: attr.rq_psn & 0xff_ffff,
        sq_psn: attr.sq_psn & 0xff_ffff,
        dest_qp_num: attr.dest_qp_num & 0xff_ffff,
        qp_access_flags: attr.qp_access_flags,
        ah_attr: path.unwrap_or_default(),
        en_sqd_async_notify: attr.en_sqd_async_notify,
        max_rd_atomic: attr.max_rd_atomic,
        max_dest_rd_atomic: attr.max_dest_rd_atomic,
        min_rnr_timer: attr.min_rnr_timer,
        port_num: card.port,
        timeout: attr.timeout,
        retry_cnt: attr.retry_cnt.min(card.most_retries),
        rnr_retry: attr.rnr_retry,
        ..ibv_qp_attr::default()
    })
}

/// Attributes that only the card knows as they are now.
pub(crate) const LIVE: u32 = IBV_QP_STATE | IBV_QP_CUR_STATE | IBV_QP_SQ_PSN | IBV_QP_RQ_PSN;

/// Takes over what the card says of them.
pub(crate) fn update(shown: &mut QpAttr, card: &ibv_qp_attr) {
    shown.qp_state = card.qp_state;
    shown.cur_qp_state = card.qp_state;
    shown.sq_draining = card.sq_draining;
}
