//! Attributes of queue pairs (IBA 11.2.4.2).

use crate::engine::objects::{Qp, Waiting};
use crate::engine::tap::Noted;
use crate::limits::MAX_QPN;
use masq_device::{DeviceError, Result};
use masq_spec::verbs::{Access, QpAttr, QpMask, State};
use masq_transport::{Retry, mtu_bytes};

impl Qp {
    /// Sends that are posted and not completed.
    pub(super) fn posted(&self) -> u32 {
        let is_posted = |n: &u32| self.sq.is_published(self.sq_head.wrapping_add(*n));
        (0..self.attr.caps.max_send_wr.max(1))
            .take_while(is_posted)
            .count() as u32
    }

    /// Back to RESET: nothing posted is remembered, nothing is completed.
    pub(super) fn reset(&mut self) {
        self.state = State::Reset;
        self.attr = QpAttr {
            caps: self.attr.caps,
            sq_sig_all: self.attr.sq_sig_all,
            ..QpAttr::default()
        };
        self.sq_head = 0;
        self.sq.set_device_index(0);
        if let Some(rq) = &mut self.rq {
            rq.head = 0;
            rq.ring.set_device_index(0);
            rq.ring.set_receive_bell(None);
        }
        self.peer = None;
        self.peer_index = None;
        self.link = None;
        self.spare = self.current.take().or(self.spare.take());
        self.waiting = Waiting::Nothing;
        self.epoch = self.epoch.wrapping_add(1);
        self.rnr_until = 0;
        self.starved = true;
        self.deliveries = 0;
        self.taken.clear();
        self.held = None;
        self.established = false;
        self.flushed = false;
        self.noted = Noted::default();
        self.cause = None;
    }

    /// Takes over the attributes that the mask names.
    pub(super) fn apply(&mut self, mask: QpMask, new: &QpAttr) {
        let attr = &mut self.attr;
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
        self.retry = Retry::new(self.attr.timeout, self.attr.retry_cnt, self.attr.rnr_retry);
    }
}

/// Checks values that a device would refuse (IBA 11.2.4.2).
pub(super) fn check_values(mask: QpMask, new: &QpAttr) -> Result<()> {
    let invalid = DeviceError::Invalid;
    let has = |bit| mask.contains(bit);
    if has(QpMask::PORT) && new.port_num != 1 {
        return Err(invalid("there is only port 1"));
    }
    if has(QpMask::PKEY_INDEX) && new.pkey_index != 0 {
        return Err(invalid("there is only pkey index 0"));
    }
    if has(QpMask::PATH_MTU) && mtu_bytes(new.path_mtu).is_none() {
        return Err(invalid("path_mtu is not an MTU"));
    }
    let reads_ok = new.max_rd_atomic <= crate::limits::MAX_RD_ATOMIC;
    if has(QpMask::MAX_QP_RD_ATOMIC) && !reads_ok {
        return Err(invalid("max_rd_atomic above the device's"));
    }
    let reads_ok = new.max_dest_rd_atomic <= crate::limits::MAX_RD_ATOMIC;
    if has(QpMask::MAX_DEST_RD_ATOMIC) && !reads_ok {
        return Err(invalid("max_dest_rd_atomic above the device's"));
    }
    if has(QpMask::RETRY_CNT) && new.retry_cnt > 7 || has(QpMask::RNR_RETRY) && new.rnr_retry > 7 {
        return Err(invalid("a retry count is above 7"));
    }
    if has(QpMask::TIMEOUT) && new.timeout > 31
        || has(QpMask::MIN_RNR_TIMER) && new.min_rnr_timer > 31
    {
        return Err(invalid("a timer code is above 31"));
    }
    if has(QpMask::DEST_QPN) && new.dest_qp_num > MAX_QPN {
        return Err(invalid("a queue pair number has 24 bits"));
    }
    let access = Access::from_bits(new.qp_access_flags);
    if has(QpMask::ACCESS_FLAGS) && access.is_none() {
        return Err(invalid("unknown access flags"));
    }
    Ok(())
}
