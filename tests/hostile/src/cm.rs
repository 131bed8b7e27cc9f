//! rdma_cm for a client: raw commands of clause 9.9.

use crate::Client;
use masq_spec::command::{Opcode, Status};
use masq_spec::verbs::{
    CM_NO_EVENT, CmAccept, CmAddress, CmBind, CmConnect, CmCreateId, CmEvent, CmNumber, CmParam,
    CmQpAttrs, CmResolve, CmTarget, Created, QpAttr, QpType, State,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

/// `RDMA_PS_TCP`.
pub const TCP: u16 = 0x106;
/// Events, `enum rdma_cm_event_type`.
pub mod event {
    #![allow(missing_docs)]
    pub const ADDR_RESOLVED: u32 = 0;
    pub const ADDR_ERROR: u32 = 1;
    pub const ROUTE_RESOLVED: u32 = 2;
    pub const CONNECT_REQUEST: u32 = 4;
    pub const CONNECT_RESPONSE: u32 = 5;
    pub const UNREACHABLE: u32 = 7;
    pub const REJECTED: u32 = 8;
    pub const ESTABLISHED: u32 = 9;
    pub const DISCONNECTED: u32 = 10;
}

/// An IPv4 address and port.
pub fn address(ip: [u8; 4], port: u16) -> CmAddress {
    SocketAddr::from((ip, port)).into()
}

/// The side of a queue pair, with private data.
pub fn param(qpn: u32, private: &[u8]) -> CmParam {
    let mut param = CmParam::new_zeroed();
    param.qpn = qpn;
    (param.responder_resources, param.initiator_depth) = (4, 4);
    (param.retry_count, param.rnr_retry_count) = (7, 7);
    param.private_len = private.len() as u8;
    param.private_data[..private.len()].copy_from_slice(private);
    param
}

impl Client {
    /// The channel of these helpers: event queue 2.
    pub const CHANNEL: u32 = 2;

    /// Names an id of the channel.
    pub fn target(id: u32) -> CmTarget {
        CmTarget {
            channel: Self::CHANNEL,
            id,
        }
    }

    /// Opens the channel. Its events are polled by command.
    pub fn open_channel(&self) {
        self.start_events(Self::CHANNEL as u8);
    }

    /// Tries to create an id.
    pub fn try_create_id(&mut self, uid: u64) -> Result<u32, Status> {
        let create = CmCreateId {
            channel: Self::CHANNEL,
            port_space: TCP,
            qp_type: QpType::Rc as u8,
            reserved: 0,
            uid,
        };
        let (status, body) = self.call(Opcode::CmCreateId, create.as_bytes());
        if status != Status::Ok {
            return Err(status);
        }
        Ok(Created::read_from_bytes(&body).expect("Created").handle)
    }

    /// Creates an id.
    pub fn create_id(&mut self, uid: u64) -> u32 {
        self.try_create_id(uid).expect("an id")
    }

    /// A command of one number.
    pub fn cm_number(&mut self, opcode: Opcode, id: u32, number: u32) -> Status {
        let body = CmNumber {
            target: Self::target(id),
            number,
            reserved: 0,
        };
        self.call(opcode, body.as_bytes()).0
    }

    /// Ends an id.
    pub fn destroy_id(&mut self, id: u32) -> Status {
        self.call(Opcode::CmDestroyId, Self::target(id).as_bytes())
            .0
    }

    /// Binds an id.
    pub fn bind_id(&mut self, id: u32, at: CmAddress) -> Status {
        let body = CmBind {
            target: Self::target(id),
            address: at,
        };
        self.call(Opcode::CmBind, body.as_bytes()).0
    }

    /// A listener at a port.
    pub fn listen_at(&mut self, uid: u64, at: CmAddress, backlog: u32) -> u32 {
        let id = self.create_id(uid);
        assert_eq!(self.bind_id(id, at), Status::Ok, "bind");
        assert_eq!(self.cm_number(Opcode::CmListen, id, backlog), Status::Ok);
        id
    }

    /// An id that knows its way to a service.
    pub fn routed_to(&mut self, uid: u64, to: CmAddress) -> u32 {
        let id = self.create_id(uid);
        let body = CmResolve {
            target: Self::target(id),
            source: CmAddress::default(),
            destination: to,
            timeout_ms: 2000,
            reserved: 0,
        };
        let (status, _) = self.call(Opcode::CmResolveAddr, body.as_bytes());
        assert_eq!(status, Status::Ok, "resolve address");
        assert_eq!(self.cm_event().event, event::ADDR_RESOLVED);
        let status = self.cm_number(Opcode::CmResolveRoute, id, 2000);
        assert_eq!(status, Status::Ok, "resolve route");
        assert_eq!(self.cm_event().event, event::ROUTE_RESOLVED);
        id
    }

    /// Asks for a connection.
    pub fn connect_id(&mut self, id: u32, param: CmParam) -> Status {
        let body = CmConnect {
            target: Self::target(id),
            param,
        };
        self.call(Opcode::CmConnect, body.as_bytes()).0
    }

    /// Accepts a request, or confirms an acceptance.
    pub fn accept_id(&mut self, id: u32, uid: u64, param: Option<CmParam>) -> Status {
        let body = CmAccept {
            target: Self::target(id),
            uid,
            has_param: u32::from(param.is_some()),
            reserved: 0,
            param: param.unwrap_or_else(CmParam::new_zeroed),
        };
        self.call(Opcode::CmAccept, body.as_bytes()).0
    }

    /// The channel's oldest event, if there is one.
    pub fn try_cm_event(&mut self) -> Option<CmEvent> {
        let (status, body) = self.call(Opcode::CmGetEvent, Self::target(0).as_bytes());
        assert_eq!(status, Status::Ok, "get event");
        let event = CmEvent::read_from_bytes(&body).expect("CmEvent");
        (event.event != CM_NO_EVENT).then_some(event)
    }

    /// The next event, waited for.
    pub fn cm_event(&mut self) -> CmEvent {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if let Some(event) = self.try_cm_event() {
                return event;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no event came");
    }

    /// What a queue pair is to be set to.
    pub fn cm_qp_attr(&mut self, id: u32, state: State) -> (u32, QpAttr) {
        let body = CmNumber {
            target: Self::target(id),
            number: state as u32,
            reserved: 0,
        };
        let (status, body) = self.call(Opcode::CmQpAttr, body.as_bytes());
        assert_eq!(status, Status::Ok, "attributes of {state:?}");
        let answer = CmQpAttrs::read_from_bytes(&body).expect("CmQpAttrs");
        let answer = answer.get(state as u32).expect("what was asked for");
        (answer.mask, answer.attr)
    }
}
