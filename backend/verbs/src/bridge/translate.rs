//! Messages between agents, as one side's parameters of the host's connection manager,
//! and back. The kernel writes and reads the IP header itself.

use crate::host::{Agreement, Parameters};
use masq_cm::{
    Answered, CommId, IpHeader, Message, Path, PortSpace, Private, REQ_PRIVATE, Reason, Rej, Rep,
    Req, SIDR_REQ_PRIVATE, SidrRep, SidrReq, SidrStatus, service_id,
};
use std::net::{IpAddr, SocketAddr};

/// The program's bytes behind the IP header.
fn behind_header(private: &Private) -> Vec<u8> {
    let split = IpHeader::split(private.bytes());
    split.map_or_else(Vec::new, |(_, bytes)| bytes.to_vec())
}

/// What is asked of a plain host.
pub(super) fn of_request(message: &Message) -> Option<Parameters> {
    match message {
        Message::Req(req) => Some(Parameters {
            qpn: req.qpn,
            qkey: req.qkey,
            private: behind_header(&req.private),
            srq: req.srq,
            responder_resources: req.responder_resources,
            initiator_depth: req.initiator_depth,
            flow_control: req.flow_control,
            retry_count: req.retry_count,
            rnr_retry_count: req.rnr_retry_count,
            ece: (req.ece_vendor, req.ece_options),
        }),
        Message::SidrReq(req) => Some(Parameters {
            private: behind_header(&req.private),
            ..Parameters::default()
        }),
        _ => None,
    }
}

/// What is answered to a plain host.
pub(super) fn of_acceptance(rep: &Rep) -> Parameters {
    Parameters {
        qpn: rep.qpn,
        qkey: rep.qkey,
        private: rep.private.bytes().to_vec(),
        srq: rep.srq,
        responder_resources: rep.responder_resources,
        initiator_depth: rep.initiator_depth,
        flow_control: rep.flow_control,
        retry_count: 0,
        rnr_retry_count: rep.rnr_retry_count,
        ece: (rep.ece_vendor, rep.ece_options),
    }
}

/// The same of a datagram service.
pub(super) fn of_service(rep: &SidrRep) -> Parameters {
    Parameters {
        qpn: rep.qpn,
        qkey: rep.qkey,
        private: rep.private.bytes().to_vec(),
        ece: (rep.ece_vendor, rep.ece_options),
        ..Parameters::default()
    }
}

/// Who asks for which service, by the host's connection manager.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub(super) comm: CommId,
    pub(super) peer: SocketAddr,
    pub(super) host: IpAddr,
    pub(super) space: PortSpace,
    pub(super) port: u16,
}

impl Asking {
    fn header(&self) -> IpHeader {
        IpHeader {
            source: self.peer,
            destination: self.host,
        }
    }

    /// The request for a connection. `qpn`: the peer's queue pair, or what stands for it.
    pub(super) fn req(&self, told: &Parameters, agreed: &Agreement, qpn: u32) -> Message {
        let private = self.header().with::<REQ_PRIVATE>(&told.private);
        Message::Req(Box::new(Req {
            local_comm: self.comm,
            ece_vendor: told.ece.0,
            ece_options: told.ece.1,
            service_id: service_id(self.space, self.port),
            qpn,
            // What the kernel tells is this side's view, what a message says the sender's.
            responder_resources: told.initiator_depth,
            initiator_depth: told.responder_resources,
            flow_control: told.flow_control,
            psn: agreed.sq_psn,
            retry_count: told.retry_count,
            mtu: agreed.mtu,
            rnr_retry_count: told.rnr_retry_count,
            srq: told.srq,
            primary: Path {
                ack_timeout: agreed.timeout,
                ..Path::default()
            },
            private: Private::new(&private),
            ..Req::default()
        }))
    }

    /// The request for a datagram service.
    pub(super) fn sidr_req(&self, told: &Parameters) -> Message {
        let private = self.header().with::<SIDR_REQ_PRIVATE>(&told.private);
        Message::SidrReq(SidrReq {
            request: self.comm,
            pkey: 0,
            service_id: service_id(self.space, self.port),
            private: Private::new(&private),
        })
    }
}

/// Both sides' names of a conversation, as a message has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub(super) local: CommId,
    pub(super) remote: CommId,
}

impl Names {
    /// A plain host accepted.
    pub(super) fn rep(self, told: &Parameters, agreed: &Agreement, qpn: u32) -> Message {
        Message::Rep(Rep {
            local_comm: self.local,
            remote_comm: self.remote,
            qpn,
            ece_vendor: told.ece.0,
            ece_options: told.ece.1,
            psn: agreed.sq_psn,
            responder_resources: told.initiator_depth,
            initiator_depth: told.responder_resources,
            flow_control: told.flow_control,
            rnr_retry_count: told.rnr_retry_count,
            srq: told.srq,
            private: Private::new(&told.private),
            ..Rep::default()
        })
    }

    /// A plain host refused. `status`: the reason, of iWARP an error.
    pub(super) fn rej(self, status: i32, told: &Parameters) -> Message {
        let reason = match (u16::try_from(status), status) {
            (Ok(reason), 1..) => Reason(reason),
            _ => Reason::CONSUMER,
        };
        Message::Rej(Rej {
            local_comm: self.local,
            remote_comm: self.remote,
            answered: Answered::REQ,
            reason,
            info: Private::EMPTY,
            info_len: 0,
            private: Private::new(&told.private),
        })
    }

    /// There is no such conversation (any more).
    pub(super) fn rej_unknown(self) -> Message {
        Message::Rej(Rej {
            local_comm: self.local,
            remote_comm: self.remote,
            answered: Answered::REP,
            reason: Reason::INVALID_COMM_ID,
            info: Private::EMPTY,
            info_len: 0,
            private: Private::EMPTY,
        })
    }

    /// A plain host named the queue pair of its service, or refused.
    pub(super) fn sidr_rep(self, status: SidrStatus, told: &Parameters) -> Message {
        Message::SidrRep(SidrRep {
            request: self.remote,
            status,
            qpn: told.qpn,
            service_id: 0,
            qkey: told.qkey,
            info: Private::EMPTY,
            info_len: 0,
            ece_vendor: told.ece.0,
            ece_options: told.ece.1,
            private: Private::new(&told.private),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_cm::Mad;
    use proptest::prelude::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn asking(comm: u32) -> Asking {
        Asking {
            comm: CommId(comm),
            peer: "192.0.2.9:40000".parse().unwrap(),
            host: HOST,
            space: PortSpace::Tcp,
            port: 7174,
        }
    }

    fn parameters() -> impl Strategy<Value = Parameters> {
        let bytes = proptest::collection::vec(1u8.., 0..=56);
        (bytes, any::<[u8; 4]>(), any::<[bool; 2]>(), 0u32..1 << 24).prop_map(
            |(private, numbers, flags, qpn)| Parameters {
                qpn,
                qkey: 0,
                private,
                srq: flags[0],
                responder_resources: numbers[0],
                initiator_depth: numbers[1],
                flow_control: flags[1],
                retry_count: numbers[2] & 7,
                rnr_retry_count: numbers[3] & 7,
                ece: (qpn, !qpn),
            },
        )
    }

    proptest! {
        #[test]
        fn a_request_of_a_plain_host_says_what_the_kernel_told(told in parameters(), psn in 0u32..1 << 24) {
            let agreed = Agreement { sq_psn: psn, mtu: 3, timeout: 17, ..Agreement::default() };
            let message = asking(7).req(&told, &agreed, told.qpn);
            let mad = Mad { transaction: 1, message }.encode();
            let message = Mad::decode(&mad).unwrap().message;
            let asked = message.asked().unwrap();
            prop_assert_eq!(asked.source, "192.0.2.9:40000".parse().unwrap());
            prop_assert_eq!((asked.destination, asked.port), (HOST, 7174));
            let Message::Req(req) = &message else { panic!("a request") };
            prop_assert_eq!((req.qpn, req.psn, req.mtu), (told.qpn, psn, 3));
            // As another agent would have sent it: its own view.
            let own = of_request(&message).unwrap();
            let expected = Parameters {
                responder_resources: told.initiator_depth,
                initiator_depth: told.responder_resources,
                ..told
            };
            prop_assert_eq!(own, expected);
        }

        #[test]
        fn an_answer_of_a_plain_host_says_what_the_kernel_told(told in parameters(), psn in 0u32..1 << 24) {
            let agreed = Agreement { sq_psn: psn, ..Agreement::default() };
            let names = Names { local: CommId(3), remote: CommId(4) };
            let Message::Rep(rep) = names.rep(&told, &agreed, told.qpn) else { panic!("an answer") };
            prop_assert_eq!((rep.local_comm, rep.remote_comm), (CommId(3), CommId(4)));
            prop_assert_eq!(rep.psn, psn);
            let own = of_acceptance(&rep);
            let expected = Parameters {
                responder_resources: told.initiator_depth,
                initiator_depth: told.responder_resources,
                retry_count: 0,
                ..told
            };
            prop_assert_eq!(own, expected);
        }
    }

    #[test]
    fn a_reason_is_passed_on_and_an_error_of_iwarp_is_the_programs_refusal() {
        let names = Names {
            local: CommId(3),
            remote: CommId(4),
        };
        for (status, reason) in [(8, 8), (28, 28), (-libc::ECONNREFUSED, 28), (0, 28)] {
            let Message::Rej(rej) = names.rej(status, &Parameters::default()) else {
                panic!("a refusal")
            };
            assert_eq!(rej.reason, Reason(reason));
        }
    }

    #[test]
    fn a_datagram_service_is_asked_for_and_named() {
        let told = Parameters {
            qpn: 9,
            qkey: 0x1234_5678,
            private: b"hello".to_vec(),
            ..Parameters::default()
        };
        let mut asking = asking(7);
        asking.space = PortSpace::Udp;
        let message = asking.sidr_req(&told);
        assert_eq!(message.asked().unwrap().port_space, PortSpace::Udp);
        assert_eq!(of_request(&message).unwrap().private, b"hello");
        let names = Names {
            local: CommId(7),
            remote: CommId(8),
        };
        let Message::SidrRep(rep) = names.sidr_rep(SidrStatus::VALID, &told) else {
            panic!("an answer")
        };
        assert_eq!(rep.request, CommId(8));
        assert_eq!(of_service(&rep), told);
    }
}
