//! The host's connection manager, by the kernel's own interface
//! (`<rdma/rdma_user_cm.h>`): ids and their events, without queue pairs.
//!
//! Not by librdmacm: it keeps each device open that an id was ever bound to, and a
//! driver that cannot let go of its users (rdma_rxe, siw) then waits for masqd's end
//! when its device is taken away.
#![allow(unsafe_code)] // the kernel answers at an address that a command names

use masq_cm::{Event, PortSpace};
use masq_verbs_abi::ib_uverbs_qp_attr;
use masq_verbs_abi::ucm::*;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Its device.
pub(crate) const USER_CM: &str = "/dev/infiniband/rdma_cm";
const INET: u16 = libc::AF_INET as u16;
const INET6: u16 = libc::AF_INET6 as u16;
/// `RDMA_USER_CM_QUERY_ADDR`.
const QUERY_ADDRESSES: u32 = 0;
/// What ids that arrived are called: without a name the kernel keeps their events.
const ARRIVED: u64 = 1;
/// How long the kernel looks for a neighbour, ms.
const RESOLVES: u32 = 4000;

/// One side of a connection or of a datagram service, given and told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) qpn: u32,
    pub(crate) qkey: u32,
    pub(crate) private: Vec<u8>,
    pub(crate) srq: bool,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) flow_control: bool,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    /// Vendor and options of enhanced connection establishment.
    pub(crate) ece: (u32, u32),
}

/// What happened to an id. A request names its new id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) id: u32,
    /// What the id is for; of a request, what its listener listens for.
    pub(crate) service: Option<(PortSpace, u16)>,
    pub(crate) event: Event,
    /// A reason, a status or a negative error.
    pub(crate) status: i32,
    pub(crate) parameters: Parameters,
}

/// What the kernel would set an id's queue pair to; zeros of iWARP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) remote_qpn: u32,
    /// First PSN of this side, which the kernel has chosen and told the peer.
    pub(crate) rq_psn: u32,
    /// First PSN of the peer.
    pub(crate) sq_psn: u32,
    /// `ibv_mtu`.
    pub(crate) mtu: u8,
    /// Code of the local ACK timeout.
    pub(crate) timeout: u8,
}

/// An event channel, with all its ids; they end with it.
#[derive(Debug)]
pub(crate) struct UserCm {
    file: OwnedFd,
}

impl UserCm {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(USER_CM, flags, Mode::empty())?;
        Ok(Self { file })
    }

    /// Carries out a command that is answered by its result alone.
    fn tell<C: IntoBytes + Immutable>(&self, number: u32, command: &C) -> io::Result<()> {
        self.command(number, command.as_bytes(), 0)
    }

    /// Carries out a command that is answered at an address, which `command` is given.
    fn ask<C, R>(&self, number: u32, command: impl FnOnce(u64) -> C) -> io::Result<R>
    where
        C: IntoBytes + Immutable,
        R: FromBytes + FromZeros,
    {
        let mut answer = Box::new(R::new_zeroed());
        let at = (&raw mut *answer).expose_provenance() as u64;
        self.command(number, command(at).as_bytes(), size_of::<R>())?;
        Ok(*answer)
    }

    fn command(&self, number: u32, body: &[u8], out: usize) -> io::Result<()> {
        let header = rdma_ucm_cmd_hdr {
            cmd: number,
            r#in: body.len() as u16,
            out: out as u16,
        };
        let whole = [header.as_bytes(), body].concat();
        // SAFETY: the bytes are ours; the kernel reads them, and writes `out` bytes at
        // the address that they name, which the caller keeps for as long and the
        // compiler knows to be exposed.
        let written =
            unsafe { libc::write(self.file.as_raw_fd(), whole.as_ptr().cast(), whole.len()) };
        match usize::try_from(written) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// A new id. `port`: of the service that it is for.
    pub(crate) fn create(&self, space: PortSpace, port: u16) -> io::Result<u32> {
        let kind = match is_datagrams(space) {
            true => masq_verbs_abi::IBV_QPT_UD,
            false => masq_verbs_abi::IBV_QPT_RC,
        };
        let made: rdma_ucm_create_id_resp =
            self.ask(cmd::RDMA_USER_CM_CMD_CREATE_ID, |response| {
                rdma_ucm_create_id {
                    uid: u64::from(space.raw()) << 16 | u64::from(port),
                    response,
                    ps: space.raw(),
                    qp_type: kind as u8,
                    reserved: [0; 5],
                }
            })?;
        Ok(made.id)
    }

    /// Ends an id, with its connection.
    pub(crate) fn destroy(&self, id: u32) -> io::Result<()> {
        let destroy = |response| rdma_ucm_destroy_id {
            response,
            id,
            reserved: 0,
        };
        self.ask(cmd::RDMA_USER_CM_CMD_DESTROY_ID, destroy)
            .map(|_: rdma_ucm_destroy_id_resp| ())
    }

    /// Gives an id an address of this host.
    pub(crate) fn bind(&self, id: u32, address: SocketAddr) -> io::Result<()> {
        let (addr, addr_size) = storage(address);
        let bind = rdma_ucm_bind {
            id,
            addr_size,
            reserved: 0,
            addr,
        };
        self.tell(cmd::RDMA_USER_CM_CMD_BIND, &bind)
    }

    pub(crate) fn listen(&self, id: u32, backlog: u32) -> io::Result<()> {
        self.tell(
            cmd::RDMA_USER_CM_CMD_LISTEN,
            &rdma_ucm_listen { id, backlog },
        )
    }

    /// Looks for the way from an address of this host to a peer.
    pub(crate) fn resolve_address(&self, id: u32, from: IpAddr, to: SocketAddr) -> io::Result<()> {
        let ((src_addr, src_size), (dst_addr, dst_size)) =
            (storage(SocketAddr::new(from, 0)), storage(to));
        let resolve = rdma_ucm_resolve_addr {
            id,
            timeout_ms: RESOLVES,
            src_size,
            dst_size,
            reserved: 0,
            src_addr,
            dst_addr,
        };
        self.tell(cmd::RDMA_USER_CM_CMD_RESOLVE_ADDR, &resolve)
    }

    pub(crate) fn resolve_route(&self, id: u32) -> io::Result<()> {
        let resolve = rdma_ucm_resolve_route {
            id,
            timeout_ms: RESOLVES,
        };
        self.tell(cmd::RDMA_USER_CM_CMD_RESOLVE_ROUTE, &resolve)
    }

    pub(crate) fn connect(&self, id: u32, parameters: &Parameters) -> io::Result<()> {
        let connect = rdma_ucm_connect {
            conn_param: parameters.to_kernel(),
            id,
            reserved: 0,
            ece: ece(parameters.ece),
        };
        self.tell(cmd::RDMA_USER_CM_CMD_CONNECT, &connect)
    }

    /// Accepts a request; without parameters, confirms the peer's acceptance.
    pub(crate) fn accept(&self, id: u32, parameters: Option<&Parameters>) -> io::Result<()> {
        let accept = rdma_ucm_accept {
            uid: ARRIVED,
            conn_param: parameters.map_or(FromZeros::new_zeroed(), Parameters::to_kernel),
            id,
            reserved: 0,
            ece: ece(parameters.map_or((0, 0), |p| p.ece)),
        };
        self.tell(cmd::RDMA_USER_CM_CMD_ACCEPT, &accept)
    }

    /// Refuses, as a program does.
    pub(crate) fn reject(&self, id: u32, private: &[u8]) -> io::Result<()> {
        let (private_data, private_data_len) = field(private);
        let reject = rdma_ucm_reject {
            id,
            private_data_len,
            reason: 0,
            reserved: [0; 2],
            private_data,
        };
        self.tell(cmd::RDMA_USER_CM_CMD_REJECT, &reject)
    }

    /// Disconnects, or agrees to the peer's wish.
    pub(crate) fn disconnect(&self, id: u32) -> io::Result<()> {
        self.tell(
            cmd::RDMA_USER_CM_CMD_DISCONNECT,
            &rdma_ucm_disconnect { id },
        )
    }

    /// Where an id's peer is.
    pub(crate) fn peer(&self, id: u32) -> io::Result<SocketAddr> {
        let query = |response| rdma_ucm_query {
            response,
            id,
            option: QUERY_ADDRESSES,
        };
        let answer: rdma_ucm_query_addr_resp = self.ask(cmd::RDMA_USER_CM_CMD_QUERY, query)?;
        address(&answer.dst_addr).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    }

    /// What both sides have agreed on.
    pub(crate) fn agreement(&self, id: u32) -> io::Result<Agreement> {
        let attr = |state: u32| -> io::Result<ib_uverbs_qp_attr> {
            self.ask(cmd::RDMA_USER_CM_CMD_INIT_QP_ATTR, |response| {
                rdma_ucm_init_qp_attr {
                    response,
                    id,
                    qp_state: state,
                }
            })
        };
        let rtr = attr(masq_verbs_abi::IBV_QPS_RTR)?;
        let rts = attr(masq_verbs_abi::IBV_QPS_RTS)?;
        Ok(Agreement {
            remote_qpn: rtr.dest_qp_num,
            rq_psn: rtr.rq_psn,
            sq_psn: rts.sq_psn,
            mtu: rtr.path_mtu.min(255) as u8,
            timeout: rts.timeout,
        })
    }

    /// The next event, if one waits.
    pub(crate) fn next(&self) -> io::Result<Option<Told>> {
        let next = |response| rdma_ucm_get_event { response };
        let answer: io::Result<rdma_ucm_event_resp> =
            self.ask(cmd::RDMA_USER_CM_CMD_GET_EVENT, next);
        match answer {
            Ok(answer) => Ok(Some(told(&answer))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for UserCm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Parameters {
    fn to_kernel(&self) -> rdma_ucm_conn_param {
        let (private_data, private_data_len) = field(&self.private);
        rdma_ucm_conn_param {
            qp_num: self.qpn,
            qkey: self.qkey,
            private_data,
            private_data_len,
            srq: u8::from(self.srq),
            responder_resources: self.responder_resources,
            initiator_depth: self.initiator_depth,
            flow_control: u8::from(self.flow_control),
            retry_count: self.retry_count,
            rnr_retry_count: self.rnr_retry_count,
            valid: 1,
        }
    }
}

fn ece((vendor_id, attr_mod): (u32, u32)) -> rdma_ucm_ece {
    rdma_ucm_ece {
        vendor_id,
        attr_mod,
    }
}

/// Private data as commands carry it; what does not fit is left out.
fn field(private: &[u8]) -> ([u8; MAX_PRIVATE_DATA], u8) {
    let mut field = [0; MAX_PRIVATE_DATA];
    let len = private.len().min(usize::from(u8::MAX));
    for (to, from) in field.iter_mut().zip(private).take(len) {
        *to = *from;
    }
    (field, len as u8)
}

fn is_datagrams(space: PortSpace) -> bool {
    matches!(space, PortSpace::Udp | PortSpace::Ipoib)
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

/// A socket address as the kernel has it, and its length.
fn storage(address: SocketAddr) -> (SockaddrStorage, u16) {
    let mut bytes = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(INET.to_ne_bytes());
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(INET6.to_ne_bytes());
            bytes.extend(v6.port().to_be_bytes());
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    let mut field = [0; 128];
    for (to, from) in field.iter_mut().zip(&bytes) {
        *to = *from;
    }
    (field, bytes.len() as u16)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let (family, rest) = storage.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let ip = match u16::from_ne_bytes(*family) {
        INET => IpAddr::from(*rest.first_chunk::<4>()?),
        INET6 => {
            let ip = rest.get(4..)?.first_chunk::<16>()?;
            Ipv6Addr::from(*ip).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in ["192.0.2.9:7174", "[2001:db8::9]:65535"] {
            let socket: SocketAddr = text.parse().unwrap();
            let (bytes, len) = storage(socket);
            assert_eq!(len, if socket.is_ipv4() { 16 } else { 28 });
            assert_eq!(address(&bytes), Some(socket));
        }
        assert_eq!(address(&[0; 128]), None);
    }

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
