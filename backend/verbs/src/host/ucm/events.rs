//! Events of ids.

use super::{Parameters, Told, UserCm, is_datagrams};
use masq_cm::{Event, PortSpace};
use masq_verbs_abi::ucm::{cmd, rdma_ucm_conn_param, rdma_ucm_event_resp, rdma_ucm_get_event};
use std::io;
use zerocopy::{FromBytes, IntoBytes};

impl UserCm {
    /// The next event, if one waits.
    pub(crate) fn next(&self) -> io::Result<Option<Told>> {
        let next = |response| rdma_ucm_get_event { response };
        let answer: io::Result<rdma_ucm_event_resp> =
            self.ask(cmd::RDMA_USER_CM_CMD_GET_EVENT, next);
        match answer {
            Ok(answer) => Ok(Some(told(&answer))),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// What an id was created for; of one that arrived the kernel does not say.
fn service(uid: u64) -> Option<(PortSpace, u16)> {
    let space = PortSpace::from_raw(u16::try_from(uid >> 16).ok()?)?;
    Some((space, uid as u16))
}

fn told(answer: &rdma_ucm_event_resp) -> Told {
    let service = service(answer.uid);
    let datagrams = service.is_some_and(|(space, _)| is_datagrams(space));
    let ud = &answer.param;
    let known = |private: &[u8], len: u8| {
        let bytes = private.get(..usize::from(len));
        bytes.unwrap_or_default().to_vec()
    };
    let mut parameters = match rdma_ucm_conn_param::read_from_prefix(ud.as_bytes()) {
        Ok((conn, _)) if !datagrams => Parameters {
            qpn: conn.qp_num,
            qkey: 0,
            private: known(&conn.private_data, conn.private_data_len),
            srq: conn.srq != 0,
            responder_resources: conn.responder_resources,
            initiator_depth: conn.initiator_depth,
            flow_control: conn.flow_control != 0,
            retry_count: conn.retry_count,
            rnr_retry_count: conn.rnr_retry_count,
            ece: (0, 0),
        },
        _ => Parameters {
            qpn: ud.qp_num,
            qkey: ud.qkey,
            private: known(&ud.private_data, ud.private_data_len),
            ..Parameters::default()
        },
    };
    parameters.ece = (answer.ece.vendor_id, answer.ece.attr_mod);
    Told {
        id: answer.id,
        service,
        // Of what is newer nothing need be known.
        event: Event::from_raw(answer.event).unwrap_or(Event::AddressChange),
        status: answer.status as i32,
        parameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn an_event_of_datagrams_is_read_as_one() {
        let mut event = rdma_ucm_event_resp::new_zeroed();
        event.param.qp_num = 17;
        event.param.qkey = 0x1234;
        event.param.private_data[..2].copy_from_slice(b"hi");
        event.param.private_data_len = 2;
        event.event = Event::Established.raw();
        event.uid = u64::from(PortSpace::Udp.raw()) << 16 | 7174;
        let read = told(&event);
        assert_eq!(read.service, Some((PortSpace::Udp, 7174)));
        assert_eq!((read.parameters.qpn, read.parameters.qkey), (17, 0x1234));
        assert_eq!(read.parameters.private, b"hi");

        let given = Parameters {
            qpn: 5,
            private: b"hello".to_vec(),
            responder_resources: 4,
            initiator_depth: 3,
            srq: true,
            rnr_retry_count: 6,
            ..Parameters::default()
        };
        let conn = given.to_kernel();
        let (front, _) = event.param.as_mut_bytes().split_at_mut(size_of_val(&conn));
        front.copy_from_slice(conn.as_bytes());
        event.uid = 0;
        assert_eq!(told(&event).parameters, given);
    }
}
