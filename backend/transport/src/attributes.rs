//! Attributes of a queue pair as its owner set them.

use masq_spec::verbs::{QpAttr, QpMask};

/// Takes over the attributes that the mask names, but for the state.
pub fn take_over(attr: &mut QpAttr, mask: QpMask, new: &QpAttr) {
    let mut take = |bit: QpMask, copy: fn(&mut QpAttr, &QpAttr)| {
        if mask.contains(bit) {
            copy(attr, new);
        }
    };
    take(QpMask::ACCESS_FLAGS, |a, n| {
        a.qp_access_flags = n.qp_access_flags
    });
    take(QpMask::PKEY_INDEX, |a, n| a.pkey_index = n.pkey_index);
    take(QpMask::PORT, |a, n| a.port_num = n.port_num);
    take(QpMask::QKEY, |a, n| a.qkey = n.qkey);
    take(QpMask::AV, |a, n| a.ah = n.ah);
    take(QpMask::PATH_MTU, |a, n| a.path_mtu = n.path_mtu);
    take(QpMask::TIMEOUT, |a, n| a.timeout = n.timeout);
    take(QpMask::RETRY_CNT, |a, n| a.retry_cnt = n.retry_cnt);
    take(QpMask::RNR_RETRY, |a, n| a.rnr_retry = n.rnr_retry);
    take(QpMask::RQ_PSN, |a, n| a.rq_psn = n.rq_psn);
    take(QpMask::SQ_PSN, |a, n| a.sq_psn = n.sq_psn);
    take(QpMask::MAX_QP_RD_ATOMIC, |a, n| {
        a.max_rd_atomic = n.max_rd_atomic
    });
    take(QpMask::MAX_DEST_RD_ATOMIC, |a, n| {
        a.max_dest_rd_atomic = n.max_dest_rd_atomic
    });
    take(QpMask::MIN_RNR_TIMER, |a, n| {
        a.min_rnr_timer = n.min_rnr_timer
    });
    take(QpMask::DEST_QPN, |a, n| a.dest_qp_num = n.dest_qp_num);
    take(QpMask::PATH_MIG_STATE, |a, n| {
        a.path_mig_state = n.path_mig_state
    });
    take(QpMask::EN_SQD_ASYNC_NOTIFY, |a, n| {
        a.en_sqd_async_notify = n.en_sqd_async_notify
    });
    take(QpMask::ALT_PATH, |a, n| {
        a.alt_ah = n.alt_ah;
        a.alt_pkey_index = n.alt_pkey_index;
        a.alt_port_num = n.alt_port_num;
        a.alt_timeout = n.alt_timeout;
    });
}
