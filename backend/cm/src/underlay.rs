//! Messages between hosts: what is asked of whom, and the renaming of the
//! addresses that they name. Virtual addresses are known to masq only; a plain
//! host knows hosts.

use crate::address::{IpHeader, gid_of, service_port};
use crate::agent::Agent;
use crate::message::{
    CommId, Message, Private, REJ_PRIVATE, REQ_PRIVATE, Rej, SIDR_REP_PRIVATE, SIDR_REQ_PRIVATE,
    SidrRep,
};
use crate::reject::{Answered, Reason, SidrStatus};
use crate::types::PortSpace;
use masq_spec::verbs::QpType;
use std::net::{IpAddr, SocketAddr};

/// What a request asks, before anybody has looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who asks, as its IP header says.
    pub source: SocketAddr,
    /// Of whom.
    pub destination: IpAddr,
    /// Where the service is looked for.
    pub port_space: PortSpace,
    /// Its port.
    pub port: u16,
    /// For which queue pairs.
    pub qp_type: QpType,
}

impl Message {
    /// What it asks; none if it is no request for an IP service.
    pub fn asked(&self) -> Option<Asked> {
        let (service, private, qp_type) = match self {
            Self::Req(req) => {
                let qp_type = match req.transport {
                    1 => QpType::Uc,
                    _ => QpType::Rc,
                };
                (req.service_id, &req.private, qp_type)
            }
            Self::SidrReq(req) => (req.service_id, &req.private, QpType::Ud),
            _ => return None,
        };
        let (port_space, port) = service_port(service)?;
        let (header, _) = IpHeader::split(private.bytes())?;
        Some(Asked {
            source: header.source,
            destination: header.destination,
            port_space,
            port,
            qp_type,
        })
    }

    /// Replaces the addresses in the IP header of a request.
    pub fn readdress(&mut self, source: IpAddr, destination: IpAddr) {
        match self {
            Self::Req(req) => {
                if let Some(private) = renamed::<REQ_PRIVATE>(&req.private, source, destination) {
                    req.private = private;
                }
            }
            Self::SidrReq(req) => {
                let private = renamed::<SIDR_REQ_PRIVATE>(&req.private, source, destination);
                if let Some(private) = private {
                    req.private = private;
                }
            }
            _ => {}
        }
    }

    /// Names hosts and partition where a message names them outside of its
    /// private data.
    pub fn route(&mut self, from: IpAddr, to: IpAddr, partition: u16) {
        match self {
            Self::Req(req) => {
                req.primary.local_gid = gid_of(from);
                req.primary.remote_gid = gid_of(to);
                req.pkey = partition;
            }
            Self::SidrReq(req) => req.pkey = partition,
            _ => {}
        }
    }

    /// The receiver's name for the conversation; none for a request.
    pub fn receiver_comm(&self) -> Option<CommId> {
        match self {
            Self::Req(_) | Self::SidrReq(_) => None,
            Self::Mra(mra) => Some(mra.remote_comm),
            Self::Rej(rej) => Some(rej.remote_comm),
            Self::Rep(rep) => Some(rep.remote_comm),
            Self::Rtu(rtu) | Self::Drep(rtu) => Some(rtu.remote_comm),
            Self::Dreq(dreq) => Some(dreq.remote_comm),
            Self::SidrRep(rep) => Some(rep.request),
        }
    }

    /// The sender's name for the conversation; none of an answer that names one only.
    pub fn sender_comm(&self) -> Option<CommId> {
        match self {
            Self::Req(req) => Some(req.local_comm),
            Self::SidrReq(req) => Some(req.request),
            Self::Mra(mra) => Some(mra.local_comm),
            Self::Rej(rej) => Some(rej.local_comm),
            Self::Rep(rep) => Some(rep.local_comm),
            Self::Rtu(rtu) | Self::Drep(rtu) => Some(rtu.local_comm),
            Self::Dreq(dreq) => Some(dreq.local_comm),
            Self::SidrRep(_) => None,
        }
    }

    /// A number that a request and its answer share (IBA 13.4.6.4).
    pub fn transaction(&self) -> u64 {
        let comm = match self {
            Self::Req(req) => req.local_comm,
            Self::Rtu(rtu) => rtu.local_comm,
            Self::Dreq(dreq) => dreq.local_comm,
            Self::SidrReq(req) => req.request,
            Self::Rej(rej) if rej.remote_comm == CommId(0) => rej.local_comm,
            _ => self.receiver_comm().unwrap_or_default(),
        };
        u64::from(comm.0)
    }

    /// The refusal of a request, with a text that the asker's program can show.
    pub fn refusal(&self, reason: Reason, text: &str) -> Option<Self> {
        let private = |most: usize| {
            let mut len = text.len().min(most);
            while !text.is_char_boundary(len) {
                len -= 1;
            }
            Private::new(text.as_bytes().get(..len).unwrap_or_default())
        };
        match self {
            Self::Req(req) => Some(Self::Rej(Rej {
                local_comm: CommId(0),
                remote_comm: req.local_comm,
                answered: Answered::REQ,
                reason,
                info: Private::EMPTY,
                info_len: 0,
                private: private(REJ_PRIVATE),
            })),
            Self::SidrReq(req) => Some(Self::SidrRep(SidrRep {
                request: req.request,
                status: match reason {
                    Reason::INVALID_SERVICE_ID => SidrStatus::UNSUPPORTED,
                    _ => SidrStatus::REJECTED,
                },
                qpn: 0,
                service_id: req.service_id,
                qkey: 0,
                info: Private::EMPTY,
                info_len: 0,
                ece_vendor: 0,
                ece_options: 0,
                private: private(SIDR_REP_PRIVATE),
            })),
            _ => None,
        }
    }
}

impl Agent {
    /// Who talks with this agent under one of its communication ids.
    pub fn peer_of(&self, comm: CommId) -> Option<IpAddr> {
        Some(self.conversation(comm)?.peer)
    }

    /// Whether somebody listens there.
    pub fn listens(&self, space: PortSpace, port: u16, ip: IpAddr) -> bool {
        self.listener(space, port, ip).is_some()
    }
}

fn renamed<const N: usize>(
    private: &Private,
    source: IpAddr,
    destination: IpAddr,
) -> Option<Private> {
    let (header, rest) = IpHeader::split(private.bytes())?;
    let header = IpHeader {
        source: SocketAddr::new(source, header.source.port()),
        destination,
    };
    Some(Private::new(&header.with::<N>(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Req, SidrReq};

    fn header(source: &str, destination: &str) -> IpHeader {
        IpHeader {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn req(private: &[u8]) -> Message {
        let header = header("10.0.0.1:4000", "10.0.0.2");
        Message::Req(Box::new(Req {
            local_comm: CommId(7),
            service_id: 0x106 << 16 | 7174,
            private: Private::new(&header.with::<REQ_PRIVATE>(private)),
            ..Req::default()
        }))
    }

    #[test]
    fn a_request_says_who_asks_whom_for_what() {
        let asked = req(b"hello").asked().unwrap();
        assert_eq!(asked.source, "10.0.0.1:4000".parse().unwrap());
        assert_eq!(asked.destination, "10.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!((asked.port_space, asked.port), (PortSpace::Tcp, 7174));
        let answer = req(b"").refusal(Reason::UNSUPPORTED, "no").unwrap();
        assert_eq!(answer.asked(), None);
        assert_eq!(answer.receiver_comm(), Some(CommId(7)));
        assert_eq!(answer.transaction(), req(b"").transaction());
    }

    #[test]
    fn renaming_keeps_port_and_private_data() {
        let mut message = req(b"hello");
        let (from, to) = ("192.0.2.1".parse().unwrap(), "fd00::2".parse().unwrap());
        // Families do not mix in one header: the destination's counts.
        message.readdress("fd00::1".parse().unwrap(), to);
        let asked = message.asked().unwrap();
        assert_eq!(asked.source, "[fd00::1]:4000".parse().unwrap());
        message.route(from, from, 0x8001);
        let Message::Req(req) = &message else {
            panic!("still a REQ")
        };
        assert_eq!(req.private.bytes()[36..], *b"hello");
        assert_eq!((req.pkey, req.primary.local_gid), (0x8001, gid_of(from)));
    }

    #[test]
    fn a_datagram_service_is_refused_in_its_own_words() {
        let message = Message::SidrReq(SidrReq {
            request: CommId(9),
            service_id: 0x111 << 16 | 7,
            private: Private::new(&header("10.0.0.1:1", "10.0.0.2").with::<SIDR_REQ_PRIVATE>(b"")),
            ..SidrReq::default()
        });
        assert_eq!(message.asked().unwrap().qp_type, QpType::Ud);
        let answer = message.refusal(Reason::INVALID_SERVICE_ID, "nobody");
        assert!(
            matches!(answer, Some(Message::SidrRep(rep)) if rep.status == SidrStatus::UNSUPPORTED)
        );
    }
}
