//! From the bytes of one `write` to a command. Pure: no pointer is followed.

use crate::CmError;
use crate::abi::*;
use crate::address;
use masq_spec::verbs::{CmAddress, CmParam, MAX_OPTION, QpType};
use std::mem::offset_of;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes that any command may need, header included: more are not looked at.
pub const MAX_COMMAND: usize = 512;
const _: () = assert!(size_of::<rdma_ucm_cmd_hdr>() + size_of::<rdma_ucm_accept>() < MAX_COMMAND);

/// Where the caller wants the response, and how many bytes it has room for; enough for
/// the shortest form that the command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address in the caller's memory.
    pub address: u64,
    /// Bytes there.
    pub room: u16,
}

/// What QUERY asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Socket addresses.
    Addresses,
    /// Path records.
    Paths,
    /// GIDs.
    Gids,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack of one call; nothing is allocated for it"
)]
pub enum Command {
    /// Creates an id.
    CreateId {
        /// Of the id.
        response: Place,
        /// The program's name for it.
        uid: u64,
        /// `rdma_ucm_port_space`.
        port_space: u16,
        /// Type of its queue pair, which the port space may decide.
        qp_type: u8,
    },
    /// Destroys an id.
    DestroyId {
        /// Of the count of events.
        response: Place,
        /// The id.
        id: u32,
    },
    /// Binds an id to a local address.
    Bind {
        /// The id.
        id: u32,
        /// Local address.
        address: CmAddress,
    },
    /// Finds the destination.
    ResolveAddr {
        /// The id.
        id: u32,
        /// Local address, or family 0.
        source: CmAddress,
        /// Destination.
        destination: CmAddress,
        /// How long to try.
        timeout_ms: u32,
    },
    /// Finds the way to it.
    ResolveRoute {
        /// The id.
        id: u32,
        /// How long to try.
        timeout_ms: u32,
    },
    /// Asks for addresses and route at once.
    QueryRoute {
        /// Of the route.
        response: Place,
        /// The id.
        id: u32,
    },
    /// Asks for one of them.
    Query {
        /// Of the answer.
        response: Place,
        /// The id.
        id: u32,
        /// Which.
        question: Question,
    },
    /// Asks the peer for a connection.
    Connect {
        /// The id.
        id: u32,
        /// This side.
        param: CmParam,
    },
    /// Listens.
    Listen {
        /// The id.
        id: u32,
        /// Requests that may wait.
        backlog: u32,
    },
    /// Accepts.
    Accept {
        /// The id.
        id: u32,
        /// The program's name for it from now on.
        uid: u64,
        /// This side; none: confirms the peer's acceptance.
        param: Option<CmParam>,
    },
    /// Refuses a request.
    Reject {
        /// The id.
        id: u32,
        /// Reason; 0 is the consumer's own.
        reason: u8,
        /// Bytes of `private_data` that count.
        private_len: u8,
        /// For the peer program.
        private_data: [u8; MAX_PRIVATE_DATA],
    },
    /// Ends a connection.
    Disconnect {
        /// The id.
        id: u32,
    },
    /// Asks what the queue pair is to be set to.
    InitQpAttr {
        /// Of the attributes.
        response: Place,
        /// The id.
        id: u32,
        /// `ibv_qp_state`.
        qp_state: u32,
    },
    /// Takes the channel's next event; waits for it.
    GetEvent {
        /// Of the event.
        response: Place,
    },
    /// Sets an option.
    SetOption {
        /// The id.
        id: u32,
        /// `RDMA_OPTION_ID` or `RDMA_OPTION_IB`.
        level: u32,
        /// Within the level.
        name: u32,
        /// Address of the value.
        value: u64,
        /// Its bytes, at most [`MAX_OPTION`].
        len: u32,
    },
    /// Tells of an event of the queue pair.
    Notify {
        /// The id.
        id: u32,
        /// `ibv_event_type`.
        event: u32,
    },
    /// Joins a multicast group.
    Join {
        /// Of the membership's id.
        response: Place,
        /// The program's name for the membership.
        uid: u64,
        /// The id.
        id: u32,
        /// Group.
        group: CmAddress,
        /// `RDMA_MC_JOIN_FLAG_*`.
        flags: u32,
    },
    /// Leaves a multicast group.
    Leave {
        /// Of the count of events.
        response: Place,
        /// The membership.
        id: u32,
    },
    /// Moves an id to the channel that is written to.
    Migrate {
        /// Of the count of events.
        response: Place,
        /// The id.
        id: u32,
        /// Descriptor of the channel that it belongs to.
        fd: i32,
    },
}

/// The body of a command.
struct Body<'a> {
    bytes: &'a [u8],
    /// Bytes for the response.
    room: u16,
}

impl Body<'_> {
    /// The command's structure, of which older libraries may send the first `least`
    /// bytes only; what is missing is zero.
    fn read_at_least<T: FromBytes + IntoBytes>(&self, least: usize) -> Result<T, CmError> {
        if self.bytes.len() < least {
            return Err(CmError::Truncated);
        }
        let mut value = T::new_zeroed();
        for (to, from) in value.as_mut_bytes().iter_mut().zip(self.bytes) {
            *to = *from;
        }
        Ok(value)
    }

    fn read<T: FromBytes + IntoBytes>(&self) -> Result<T, CmError> {
        self.read_at_least(size_of::<T>())
    }

    /// As [`Body::read`] for a command whose response needs `room` bytes. The kernel too
    /// looks at the room first.
    fn read_with_room<T: FromBytes + IntoBytes>(&self, room: usize) -> Result<T, CmError> {
        if usize::from(self.room) < room {
            return Err(CmError::NoRoom);
        }
        self.read()
    }

    fn place(&self, address: u64) -> Place {
        Place {
            address,
            room: self.room,
        }
    }
}

/// Decodes the bytes of one `write` of `len` bytes, of which `bytes` are at least the
/// first [`MAX_COMMAND`].
///
/// # Errors
/// As the kernel's: see [`CmError::errno`].
pub fn decode(bytes: &[u8], len: usize) -> Result<Command, CmError> {
    let (header, rest) =
        rdma_ucm_cmd_hdr::read_from_prefix(bytes).map_err(|_| CmError::Truncated)?;
    if header.cmd > cmd::WRITE_CM_EVENT {
        return Err(CmError::UnknownCommand(header.cmd));
    }
    let inside = usize::from(header.r#in);
    if inside + size_of::<rdma_ucm_cmd_hdr>() > len {
        return Err(CmError::Truncated);
    }
    let body = Body {
        bytes: rest.get(..inside).unwrap_or(rest),
        room: header.out,
    };
    command(header.cmd, &body)
}

fn command(number: u32, body: &Body<'_>) -> Result<Command, CmError> {
    Ok(match number {
        cmd::RDMA_USER_CM_CMD_CREATE_ID => {
            let c: rdma_ucm_create_id = body.read_with_room(size_of::<rdma_ucm_create_id_resp>())?;
            Command::CreateId {
                response: body.place(c.response),
                uid: c.uid,
                port_space: c.ps,
                qp_type: qp_type(c.ps, c.qp_type)?,
            }
        }
        cmd::RDMA_USER_CM_CMD_DESTROY_ID => {
            let (response, id) = ending(body)?;
            Command::DestroyId { response, id }
        }
        cmd::RDMA_USER_CM_CMD_LEAVE_MCAST => {
            let (response, id) = ending(body)?;
            Command::Leave { response, id }
        }
        cmd::RDMA_USER_CM_CMD_BIND_IP => {
            let c: rdma_ucm_bind_ip = body.read()?;
            Command::Bind {
                id: c.id,
                address: address::required(&c.addr)?,
            }
        }
        cmd::RDMA_USER_CM_CMD_BIND => {
            let c: rdma_ucm_bind = body.read()?;
            Command::Bind {
                id: c.id,
                address: address::sized(&c.addr, c.addr_size)?,
            }
        }
        cmd::RDMA_USER_CM_CMD_RESOLVE_IP => {
            let c: rdma_ucm_resolve_ip = body.read()?;
            Command::ResolveAddr {
                id: c.id,
                source: address::optional(&c.src_addr)?,
                destination: address::required(&c.dst_addr)?,
                timeout_ms: c.timeout_ms,
            }
        }
        cmd::RDMA_USER_CM_CMD_RESOLVE_ADDR => {
            let c: rdma_ucm_resolve_addr = body.read()?;
            Command::ResolveAddr {
                id: c.id,
                source: match c.src_size {
                    0 => CmAddress::default(),
                    len => address::sized(&c.src_addr, len)?,
                },
                destination: address::sized(&c.dst_addr, c.dst_size)?,
                timeout_ms: c.timeout_ms,
            }
        }
        cmd::RDMA_USER_CM_CMD_RESOLVE_ROUTE => {
            let c: rdma_ucm_resolve_route = body.read()?;
            Command::ResolveRoute {
                id: c.id,
                timeout_ms: c.timeout_ms,
            }
        }
        cmd::RDMA_USER_CM_CMD_QUERY_ROUTE => {
            let room = offset_of!(rdma_ucm_query_route_resp, ibdev_index);
            let c: rdma_ucm_query = body.read_with_room(room)?;
            Command::QueryRoute {
                response: body.place(c.response),
                id: c.id,
            }
        }
        cmd::RDMA_USER_CM_CMD_QUERY => query(body)?,
        cmd::RDMA_USER_CM_CMD_CONNECT => {
            let c: rdma_ucm_connect = body.read_at_least(offset_of!(rdma_ucm_connect, ece))?;
            if c.conn_param.valid == 0 {
                return Err(CmError::Malformed("parameters of a connection"));
            }
            Command::Connect {
                id: c.id,
                param: param(&c.conn_param, c.ece),
            }
        }
        cmd::RDMA_USER_CM_CMD_LISTEN => {
            let c: rdma_ucm_listen = body.read()?;
            Command::Listen {
                id: c.id,
                backlog: c.backlog,
            }
        }
        cmd::RDMA_USER_CM_CMD_ACCEPT => {
            let c: rdma_ucm_accept = body.read_at_least(offset_of!(rdma_ucm_accept, ece))?;
            let given = c.conn_param.valid != 0;
            Command::Accept {
                id: c.id,
                uid: c.uid,
                param: given.then(|| param(&c.conn_param, c.ece)),
            }
        }
        cmd::RDMA_USER_CM_CMD_REJECT => {
            let c: rdma_ucm_reject = body.read()?;
            Command::Reject {
                id: c.id,
                reason: c.reason,
                private_len: c.private_data_len,
                private_data: c.private_data,
            }
        }
        cmd::RDMA_USER_CM_CMD_DISCONNECT => Command::Disconnect {
            id: body.read::<rdma_ucm_disconnect>()?.id,
        },
        cmd::RDMA_USER_CM_CMD_INIT_QP_ATTR => {
            let room = size_of::<masq_verbs_abi::ib_uverbs_qp_attr>();
            let c: rdma_ucm_init_qp_attr = body.read_with_room(room)?;
            Command::InitQpAttr {
                response: body.place(c.response),
                id: c.id,
                qp_state: c.qp_state,
            }
        }
        cmd::RDMA_USER_CM_CMD_GET_EVENT => {
            let room = offset_of!(rdma_ucm_event_resp, reserved);
            let c: rdma_ucm_get_event = body.read_with_room(room)?;
            Command::GetEvent {
                response: body.place(c.response),
            }
        }
        cmd::RDMA_USER_CM_CMD_SET_OPTION => {
            let c: rdma_ucm_set_option = body.read()?;
            if c.optlen as usize > MAX_OPTION {
                return Err(CmError::Malformed("length of an option"));
            }
            Command::SetOption {
                id: c.id,
                level: c.level,
                name: c.optname,
                value: c.optval,
                len: c.optlen,
            }
        }
        cmd::RDMA_USER_CM_CMD_NOTIFY => {
            let c: rdma_ucm_notify = body.read()?;
            Command::Notify {
                id: c.id,
                event: c.event,
            }
        }
        cmd::RDMA_USER_CM_CMD_JOIN_IP_MCAST => {
            let room = size_of::<rdma_ucm_create_id_resp>();
            let c: rdma_ucm_join_ip_mcast = body.read_with_room(room)?;
            Command::Join {
                response: body.place(c.response),
                uid: c.uid,
                id: c.id,
                group: address::required(&c.addr)?,
                flags: 0,
            }
        }
        cmd::RDMA_USER_CM_CMD_JOIN_MCAST => join(body)?,
        cmd::RDMA_USER_CM_CMD_MIGRATE_ID => {
            let room = size_of::<rdma_ucm_migrate_resp>();
            let c: rdma_ucm_migrate_id = body.read_with_room(room)?;
            Command::Migrate {
                response: body.place(c.response),
                id: c.id,
                fd: c.fd.cast_signed(),
            }
        }
        other => return Err(CmError::NotServed(other)),
    })
}

/// DESTROY_ID and LEAVE_MCAST.
fn ending(body: &Body<'_>) -> Result<(Place, u32), CmError> {
    let room = size_of::<rdma_ucm_destroy_id_resp>();
    let c: rdma_ucm_destroy_id = body.read_with_room(room)?;
    Ok((body.place(c.response), c.id))
}

fn query(body: &Body<'_>) -> Result<Command, CmError> {
    let c: rdma_ucm_query = body.read()?;
    let addresses = offset_of!(rdma_ucm_query_addr_resp, ibdev_index);
    let (question, room) = match c.option {
        0 => (Question::Addresses, addresses),
        1 => (Question::Paths, size_of::<rdma_ucm_query_path_resp>()),
        2 => (Question::Gids, addresses),
        3 => return Err(CmError::NotServed(cmd::RDMA_USER_CM_CMD_QUERY)),
        _ => return Err(CmError::Malformed("what is queried")),
    };
    if usize::from(body.room) < room {
        return Err(CmError::NoRoom);
    }
    Ok(Command::Query {
        response: body.place(c.response),
        id: c.id,
        question,
    })
}

fn join(body: &Body<'_>) -> Result<Command, CmError> {
    let c: rdma_ucm_join_mcast = body.read_with_room(size_of::<rdma_ucm_create_id_resp>())?;
    // RDMA_MC_JOIN_FLAG_RESERVED and up.
    if c.join_flags > 1 {
        return Err(CmError::Malformed("flags of a join"));
    }
    Ok(Command::Join {
        response: body.place(c.response),
        uid: c.uid,
        id: c.id,
        group: address::sized(&c.addr, c.addr_size)?,
        flags: c.join_flags.into(),
    })
}

/// Port spaces but IB's decide the type of the queue pair.
fn qp_type(port_space: u16, asked: u8) -> Result<u8, CmError> {
    const TCP: u16 = 0x106;
    const UDP: u16 = 0x111;
    const IPOIB: u16 = 0x2;
    const IB: u16 = 0x13f;
    match port_space {
        TCP => Ok(QpType::Rc as u8),
        UDP | IPOIB => Ok(QpType::Ud as u8),
        IB => Ok(asked),
        _ => Err(CmError::Malformed("port space")),
    }
}

fn param(from: &rdma_ucm_conn_param, ece: rdma_ucm_ece) -> CmParam {
    CmParam {
        qpn: from.qp_num & 0xff_ffff,
        // The kernel takes it from AF_IB programs only; others leave it unset.
        qkey: 0,
        private_len: from.private_data_len,
        srq: from.srq,
        responder_resources: from.responder_resources,
        initiator_depth: from.initiator_depth,
        flow_control: from.flow_control,
        retry_count: from.retry_count,
        rnr_retry_count: from.rnr_retry_count,
        reserved: 0,
        ece_vendor: ece.vendor_id,
        ece_options: ece.attr_mod,
        private_data: from.private_data,
    }
}

#[cfg(test)]
mod tests;
