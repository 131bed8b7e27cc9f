//! What a queue pair is to be set to, as ib_cm and cma answer it.

use super::Agent;
use super::state::{ACK_TIMEOUT, Conversation, DEFAULT_QKEY, Id, Talk};
use crate::error::CmError;
use crate::types::Target;
use masq_spec::verbs::{Access, CmQpAttr, QpAttr, QpMask, QpType, State};

/// The only port of the virtual device.
pub(super) const PORT: u8 = 1;

/// Code of the time after which a sender looks for a receive again: 0.64 ms.
const RNR_TIMER: u8 = 12;

impl Agent {
    /// What MODIFY_QP needs for a state: INIT at any time once the id is bound to
    /// the device, RTR and RTS once the peer's side is known. Of datagrams RTR and
    /// RTS need nothing of the peer.
    ///
    /// # Errors
    /// [`CmError::Invalid`] for other states, or too early.
    pub fn qp_attr(&self, target: Target, state: State) -> Result<CmQpAttr, CmError> {
        let id = self.id(target)?;
        if !self.has_device(id) {
            return Err(CmError::Invalid);
        }
        let talk = id
            .conversation
            .and_then(|comm| self.conversations.get(&comm))
            .map(|t| &**t);
        let mut attr = QpAttr {
            qp_state: state as u32,
            ..QpAttr::default()
        };
        let mask = match (state, id.qp_type) {
            (State::Init, _) => init(id, talk, &mut attr)?,
            (State::Rtr, QpType::Ud) => QpMask::STATE,
            (State::Rts, QpType::Ud) => QpMask::STATE | QpMask::SQ_PSN,
            (State::Rtr, _) => self.rtr(id, known(talk)?, &mut attr),
            (State::Rts, _) => self.rts(id, known(talk)?, &mut attr),
            _ => return Err(CmError::Invalid),
        };
        Ok(CmQpAttr {
            reserved: 0,
            mask: mask.bits(),
            attr,
        })
    }

    fn rtr(&self, id: &Id, talk: &Conversation, attr: &mut QpAttr) -> QpMask {
        attr.ah = self.path_to(id, id.dgid);
        attr.path_mtu = u32::from(talk.mtu);
        attr.dest_qp_num = talk.remote_qpn;
        attr.rq_psn = talk.rq_psn;
        let mut mask =
            QpMask::STATE | QpMask::AV | QpMask::PATH_MTU | QpMask::DEST_QPN | QpMask::RQ_PSN;
        if id.qp_type == QpType::Rc {
            attr.max_dest_rd_atomic = talk.responder_resources.min(self.config.max_rd_atomic);
            // Linux says 0 here, which means 655 ms.
            attr.min_rnr_timer = RNR_TIMER;
            mask |= QpMask::MAX_DEST_RD_ATOMIC | QpMask::MIN_RNR_TIMER;
        }
        mask
    }

    fn rts(&self, id: &Id, talk: &Conversation, attr: &mut QpAttr) -> QpMask {
        attr.sq_psn = talk.sq_psn;
        let mask = QpMask::STATE | QpMask::SQ_PSN;
        if id.qp_type != QpType::Rc {
            return mask;
        }
        // 0 would mean to wait for ever.
        let asked = if talk.ack_timeout == 0 {
            ACK_TIMEOUT
        } else {
            talk.ack_timeout
        };
        attr.timeout = id.ack_timeout.unwrap_or(asked);
        attr.retry_cnt = talk.retry_count;
        attr.rnr_retry = talk.rnr_retry_count;
        attr.max_rd_atomic = talk.initiator_depth.min(self.config.max_rd_atomic);
        mask | QpMask::TIMEOUT | QpMask::RETRY_CNT | QpMask::RNR_RETRY | QpMask::MAX_QP_RD_ATOMIC
    }
}

/// A conversation whose peer's side is known.
fn known(talk: Option<&Conversation>) -> Result<&Conversation, CmError> {
    match talk {
        Some(talk)
            if matches!(
                talk.state,
                Talk::ReqReceived | Talk::RepSent | Talk::RepReceived | Talk::Established
            ) =>
        {
            Ok(talk)
        }
        _ => Err(CmError::Invalid),
    }
}

fn init(id: &Id, talk: Option<&Conversation>, attr: &mut QpAttr) -> Result<QpMask, CmError> {
    attr.port_num = PORT;
    let mask = QpMask::STATE | QpMask::PKEY_INDEX | QpMask::PORT;
    if id.qp_type == QpType::Ud {
        attr.qkey = DEFAULT_QKEY;
        return Ok(mask | QpMask::QKEY);
    }
    // Before there is a conversation nobody is let in; librdmacm sets INIT once
    // more when there is one.
    let access = match talk {
        None => Access::empty(),
        Some(talk) if talk.state == Talk::ReqSent || known(Some(talk)).is_ok() => {
            if talk.responder_resources == 0 {
                Access::REMOTE_WRITE
            } else {
                Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC
            }
        }
        Some(_) => return Err(CmError::Invalid),
    };
    attr.qp_access_flags = access.bits();
    Ok(mask | QpMask::ACCESS_FLAGS)
}
