//! Attributes of queue pairs (IBA 11.2.4.2).

use crate::engine::objects::{Qp, Waiting};
use crate::engine::tap::Noted;
use crate::limits::MAX_QPN;
use masq_device::{DeviceError, Result};
use masq_spec::verbs::{Access, QpAttr, QpMask, State};
use masq_transport::{Retry, mtu_bytes, take_over};

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
        take_over(&mut self.attr, mask, new);
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
