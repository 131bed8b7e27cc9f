//! Commands about ids.

use super::address::{address, storage};
use super::{Agreement, Parameters, UserCm, is_datagrams};
use masq_cm::PortSpace;
use masq_verbs_abi::ib_uverbs_qp_attr;
use masq_verbs_abi::ucm::*;
use std::io;
use std::net::{IpAddr, SocketAddr};
use zerocopy::FromZeros;

/// `RDMA_USER_CM_QUERY_ADDR`.
const QUERY_ADDRESSES: u32 = 0;
/// `RDMA_OPTION_ID` and `RDMA_OPTION_ID_REUSEADDR`.
const OPTION_ID: u32 = 0;
const OPTION_REUSE_ADDRESS: u32 = 1;
/// What ids that arrived are called: without a name the kernel keeps their events.
const ARRIVED: u64 = 1;
/// How long the kernel looks for a neighbour, ms.
const RESOLVES: u32 = 4000;

impl UserCm {
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

    /// Lets an id have an address although connections of an earlier one linger there.
    pub(crate) fn set_reuse_address(&self, id: u32) -> io::Result<()> {
        self.give(cmd::RDMA_USER_CM_CMD_SET_OPTION, 1i32, |optval| {
            rdma_ucm_set_option {
                optval,
                id,
                level: OPTION_ID,
                optname: OPTION_REUSE_ADDRESS,
                optlen: size_of::<i32>() as u32,
            }
        })
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

    fn addresses(&self, id: u32) -> io::Result<rdma_ucm_query_addr_resp> {
        let query = |response| rdma_ucm_query {
            response,
            id,
            option: QUERY_ADDRESSES,
        };
        self.ask(cmd::RDMA_USER_CM_CMD_QUERY, query)
    }

    /// Node GUID of the card of an id, in network order; 0: it has none yet.
    pub(crate) fn card(&self, id: u32) -> io::Result<u64> {
        Ok(self.addresses(id)?.node_guid)
    }

    /// Where an id's peer is.
    pub(crate) fn peer(&self, id: u32) -> io::Result<SocketAddr> {
        let answer = self.addresses(id)?;
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
}

impl Parameters {
    pub(super) fn to_kernel(&self) -> rdma_ucm_conn_param {
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
