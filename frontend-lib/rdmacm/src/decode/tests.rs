use super::*;
use masq_spec::verbs::CmAddress;
use proptest::prelude::*;
use zerocopy::FromZeros as _;

/// How librdmacm writes a command.
fn encode(command: &Command) -> Vec<u8> {
    fn put<T: IntoBytes + zerocopy::Immutable>(cmd: u32, out: u16, body: &T) -> Vec<u8> {
        let header = rdma_ucm_cmd_hdr {
            cmd,
            r#in: size_of::<T>() as u16,
            out,
        };
        [header.as_bytes(), body.as_bytes()].concat()
    }
    fn ending(cmd: u32, response: &Place, id: u32) -> Vec<u8> {
        let body = rdma_ucm_destroy_id {
            response: response.address,
            id,
            reserved: 0,
        };
        put(cmd, response.room, &body)
    }
    fn query(cmd: u32, response: &Place, id: u32, option: u32) -> Vec<u8> {
        let body = rdma_ucm_query {
            response: response.address,
            id,
            option,
        };
        put(cmd, response.room, &body)
    }
    fn side(param: &CmParam) -> (rdma_ucm_conn_param, rdma_ucm_ece) {
        let to = rdma_ucm_conn_param {
            qp_num: param.qpn,
            qkey: 99,
            private_data: param.private_data,
            private_data_len: param.private_len,
            srq: param.srq,
            responder_resources: param.responder_resources,
            initiator_depth: param.initiator_depth,
            flow_control: param.flow_control,
            retry_count: param.retry_count,
            rnr_retry_count: param.rnr_retry_count,
            valid: 1,
        };
        let ece = rdma_ucm_ece {
            vendor_id: param.ece_vendor,
            attr_mod: param.ece_options,
        };
        (to, ece)
    }
    match command {
        Command::CreateId {
            response,
            uid,
            port_space,
            qp_type,
        } => {
            let body = rdma_ucm_create_id {
                uid: *uid,
                response: response.address,
                ps: *port_space,
                qp_type: *qp_type,
                reserved: [0; 5],
            };
            put(cmd::RDMA_USER_CM_CMD_CREATE_ID, response.room, &body)
        }
        Command::DestroyId { response, id } => {
            ending(cmd::RDMA_USER_CM_CMD_DESTROY_ID, response, *id)
        }
        Command::Leave { response, id } => ending(cmd::RDMA_USER_CM_CMD_LEAVE_MCAST, response, *id),
        Command::Bind { id, address } => {
            let body = rdma_ucm_bind_ip {
                response: 0,
                addr: address::to_in6(address),
                id: *id,
            };
            put(cmd::RDMA_USER_CM_CMD_BIND_IP, 0, &body)
        }
        Command::ResolveAddr {
            id,
            source,
            destination,
            timeout_ms,
        } => {
            let (src_addr, src_size) = address::to_storage(source);
            let (dst_addr, dst_size) = address::to_storage(destination);
            let body = rdma_ucm_resolve_addr {
                id: *id,
                timeout_ms: *timeout_ms,
                src_size,
                dst_size,
                reserved: 0,
                src_addr,
                dst_addr,
            };
            put(cmd::RDMA_USER_CM_CMD_RESOLVE_ADDR, 0, &body)
        }
        Command::ResolveRoute { id, timeout_ms } => {
            let body = rdma_ucm_resolve_route {
                id: *id,
                timeout_ms: *timeout_ms,
            };
            put(cmd::RDMA_USER_CM_CMD_RESOLVE_ROUTE, 0, &body)
        }
        Command::QueryRoute { response, id } => {
            query(cmd::RDMA_USER_CM_CMD_QUERY_ROUTE, response, *id, 0)
        }
        Command::Query {
            response,
            id,
            question,
        } => query(cmd::RDMA_USER_CM_CMD_QUERY, response, *id, *question as u32),
        Command::Connect { id, param } => {
            let (conn_param, ece) = side(param);
            let body = rdma_ucm_connect {
                conn_param,
                id: *id,
                reserved: 0,
                ece,
            };
            put(cmd::RDMA_USER_CM_CMD_CONNECT, 0, &body)
        }
        Command::Listen { id, backlog } => {
            let body = rdma_ucm_listen {
                id: *id,
                backlog: *backlog,
            };
            put(cmd::RDMA_USER_CM_CMD_LISTEN, 0, &body)
        }
        Command::Accept { id, uid, param } => {
            let mut body = rdma_ucm_accept::new_zeroed();
            body.id = *id;
            body.uid = *uid;
            if let Some(param) = param {
                (body.conn_param, body.ece) = side(param);
            }
            put(cmd::RDMA_USER_CM_CMD_ACCEPT, 0, &body)
        }
        Command::Reject {
            id,
            reason,
            private_len,
            private_data,
        } => {
            let body = rdma_ucm_reject {
                id: *id,
                private_data_len: *private_len,
                reason: *reason,
                reserved: [0; 2],
                private_data: *private_data,
            };
            put(cmd::RDMA_USER_CM_CMD_REJECT, 0, &body)
        }
        Command::Disconnect { id } => put(
            cmd::RDMA_USER_CM_CMD_DISCONNECT,
            0,
            &rdma_ucm_disconnect { id: *id },
        ),
        Command::InitQpAttr {
            response,
            id,
            qp_state,
        } => {
            let body = rdma_ucm_init_qp_attr {
                response: response.address,
                id: *id,
                qp_state: *qp_state,
            };
            put(cmd::RDMA_USER_CM_CMD_INIT_QP_ATTR, response.room, &body)
        }
        Command::GetEvent { response } => {
            let body = rdma_ucm_get_event {
                response: response.address,
            };
            put(cmd::RDMA_USER_CM_CMD_GET_EVENT, response.room, &body)
        }
        Command::SetOption {
            id,
            level,
            name,
            value,
            len,
        } => {
            let body = rdma_ucm_set_option {
                optval: *value,
                id: *id,
                level: *level,
                optname: *name,
                optlen: *len,
            };
            put(cmd::RDMA_USER_CM_CMD_SET_OPTION, 0, &body)
        }
        Command::Notify { id, event } => {
            let body = rdma_ucm_notify {
                id: *id,
                event: *event,
            };
            put(cmd::RDMA_USER_CM_CMD_NOTIFY, 0, &body)
        }
        Command::Join {
            response,
            uid,
            id,
            group,
            flags,
        } => {
            let (addr, addr_size) = address::to_storage(group);
            let body = rdma_ucm_join_mcast {
                response: response.address,
                uid: *uid,
                id: *id,
                addr_size,
                join_flags: *flags as u16,
                addr,
            };
            put(cmd::RDMA_USER_CM_CMD_JOIN_MCAST, response.room, &body)
        }
        Command::Migrate { response, id, fd } => {
            let body = rdma_ucm_migrate_id {
                response: response.address,
                id: *id,
                fd: fd.cast_unsigned(),
            };
            put(cmd::RDMA_USER_CM_CMD_MIGRATE_ID, response.room, &body)
        }
    }
}

fn inet() -> impl Strategy<Value = CmAddress> {
    (any::<u16>(), any::<[u8; 4]>()).prop_map(|(port, four)| {
        let mut ip = [0; 16];
        ip[..4].copy_from_slice(&four);
        CmAddress {
            family: 2,
            port,
            scope: 0,
            ip,
        }
    })
}

fn inet6() -> impl Strategy<Value = CmAddress> {
    (any::<u16>(), any::<u32>(), any::<[u8; 16]>()).prop_map(|(port, scope, ip)| CmAddress {
        family: 10,
        port,
        scope,
        ip,
    })
}

fn addresses() -> impl Strategy<Value = CmAddress> {
    prop_oneof![inet(), inet6()]
}

fn params() -> impl Strategy<Value = CmParam> {
    (
        0..1u32 << 24,
        any::<[u8; 7]>(),
        any::<(u32, u32)>(),
        prop::collection::vec(any::<u8>(), 256),
    )
        .prop_map(|(qpn, bytes, (ece_vendor, ece_options), data)| CmParam {
            qpn,
            qkey: 0,
            private_len: bytes[0],
            srq: bytes[1],
            responder_resources: bytes[2],
            initiator_depth: bytes[3],
            flow_control: bytes[4],
            retry_count: bytes[5],
            rnr_retry_count: bytes[6],
            reserved: 0,
            ece_vendor,
            ece_options,
            private_data: data.try_into().unwrap(),
        })
}

/// A place with room for any response.
fn places() -> impl Strategy<Value = Place> {
    (any::<u64>(), 336..=u16::MAX).prop_map(|(address, room)| Place { address, room })
}

fn commands() -> impl Strategy<Value = Command> {
    let id = any::<u32>;
    prop_oneof![
        (
            places(),
            any::<u64>(),
            prop::sample::select(vec![(0x106, 2), (0x111, 4), (2, 4), (0x13f, 9)])
        )
            .prop_map(|(response, uid, (port_space, qp_type))| Command::CreateId {
                response,
                uid,
                port_space,
                qp_type
            }),
        (places(), id()).prop_map(|(response, id)| Command::DestroyId { response, id }),
        (id(), addresses()).prop_map(|(id, address)| Command::Bind { id, address }),
        (
            id(),
            prop_oneof![Just(CmAddress::default()), addresses()],
            addresses(),
            any::<u32>()
        )
            .prop_map(
                |(id, source, destination, timeout_ms)| Command::ResolveAddr {
                    id,
                    source,
                    destination,
                    timeout_ms
                }
            ),
        (id(), any::<u32>()).prop_map(|(id, timeout_ms)| Command::ResolveRoute { id, timeout_ms }),
        (places(), id()).prop_map(|(response, id)| Command::QueryRoute { response, id }),
        (
            places(),
            id(),
            prop::sample::select(vec![Question::Addresses, Question::Paths, Question::Gids])
        )
            .prop_map(|(response, id, question)| Command::Query {
                response,
                id,
                question
            }),
        (id(), params()).prop_map(|(id, param)| Command::Connect { id, param }),
        (id(), any::<u32>()).prop_map(|(id, backlog)| Command::Listen { id, backlog }),
        (id(), any::<u64>(), prop::option::of(params()))
            .prop_map(|(id, uid, param)| Command::Accept { id, uid, param }),
        (id(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(
            |(id, reason, private_len, byte)| {
                Command::Reject {
                    id,
                    reason,
                    private_len,
                    private_data: [byte; 256],
                }
            }
        ),
        id().prop_map(|id| Command::Disconnect { id }),
        (places(), id(), any::<u32>()).prop_map(|(response, id, qp_state)| Command::InitQpAttr {
            response,
            id,
            qp_state
        }),
        places().prop_map(|response| Command::GetEvent { response }),
        (id(), any::<(u32, u32, u64)>(), 0..=512u32).prop_map(|(id, (level, name, value), len)| {
            Command::SetOption {
                id,
                level,
                name,
                value,
                len,
            }
        }),
        (id(), any::<u32>()).prop_map(|(id, event)| Command::Notify { id, event }),
        (places(), any::<u64>(), id(), addresses(), 0..=1u32).prop_map(
            |(response, uid, id, group, flags)| Command::Join {
                response,
                uid,
                id,
                group,
                flags
            }
        ),
        (places(), id()).prop_map(|(response, id)| Command::Leave { response, id }),
        (places(), id(), any::<i32>()).prop_map(|(response, id, fd)| Command::Migrate {
            response,
            id,
            fd
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_again(command in commands()) {
        let bytes = encode(&command);
        prop_assert!(bytes.len() <= MAX_COMMAND);
        prop_assert_eq!(decode(&bytes, bytes.len()).unwrap(), command);
    }

    #[test]
    fn a_command_cut_anywhere_is_refused_or_has_lost_its_last_optional_part(
        command in commands(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&command);
        let len = cut.index(bytes.len());
        bytes.truncate(len);
        let refused = decode(&bytes, len).is_err_and(|e| e.errno() == libc::EINVAL);
        prop_assert!(refused, "the header says more than there is");
        if len < 8 {
            return Ok(());
        }
        bytes[4..6].copy_from_slice(&((len - 8) as u16).to_ne_bytes());
        let ece = matches!(command, Command::Connect { .. } | Command::Accept { .. });
        prop_assert!(decode(&bytes, len).is_err() || ece);
    }

    #[test]
    fn random_bytes_under_every_number_never_panic(
        number in 0..32u32, lie in any::<u16>(), room in any::<u16>(),
        body in prop::collection::vec(any::<u8>(), 0..700), honest in any::<bool>(),
    ) {
        let inside = if honest { body.len() as u16 } else { lie };
        let header = rdma_ucm_cmd_hdr { cmd: number, r#in: inside, out: room };
        let bytes = [header.as_bytes(), &body].concat();
        let seen = &bytes[..bytes.len().min(MAX_COMMAND)];
        if let Err(error) = decode(seen, bytes.len()) {
            prop_assert!([libc::EINVAL, libc::ENOSYS, libc::ENOSPC].contains(&error.errno()));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes, bytes.len());
    }
}

fn errno(cmd: u32, out: u16, body: &[u8]) -> i32 {
    let header = rdma_ucm_cmd_hdr {
        cmd,
        r#in: body.len() as u16,
        out,
    };
    let bytes = [header.as_bytes(), body].concat();
    decode(&bytes, bytes.len()).map_or_else(|e| e.errno(), |_| 0)
}

#[test]
fn unknown_commands_are_invalid_and_those_not_served_say_so() {
    for unknown in [25, 100, u32::MAX] {
        assert_eq!(errno(unknown, 400, &[0; 300]), libc::EINVAL);
    }
    for known in [cmd::RDMA_USER_CM_CMD_GET_OPTION, 23, 24] {
        assert_eq!(errno(known, 400, &[0; 300]), libc::ENOSYS);
    }
}

#[test]
fn a_response_without_room_is_refused_whatever_else_is_wrong() {
    for (number, room) in [
        (cmd::RDMA_USER_CM_CMD_CREATE_ID, 4),
        (cmd::RDMA_USER_CM_CMD_DESTROY_ID, 4),
        (cmd::RDMA_USER_CM_CMD_QUERY_ROUTE, 200),
        (cmd::RDMA_USER_CM_CMD_INIT_QP_ATTR, 144),
        (cmd::RDMA_USER_CM_CMD_GET_EVENT, 324),
        (cmd::RDMA_USER_CM_CMD_JOIN_IP_MCAST, 4),
        (cmd::RDMA_USER_CM_CMD_LEAVE_MCAST, 4),
        (cmd::RDMA_USER_CM_CMD_MIGRATE_ID, 4),
        (cmd::RDMA_USER_CM_CMD_JOIN_MCAST, 4),
    ] {
        assert_eq!(errno(number, room - 1, &[]), libc::ENOSPC, "{number}");
        assert_eq!(errno(number, room, &[]), libc::EINVAL, "{number}");
    }
    for (option, room) in [(0, 272), (1, 8), (2, 272)] {
        let query = rdma_ucm_query {
            response: 0,
            id: 1,
            option,
        };
        let number = cmd::RDMA_USER_CM_CMD_QUERY;
        assert_eq!(errno(number, room - 1, query.as_bytes()), libc::ENOSPC);
        assert_eq!(errno(number, room, query.as_bytes()), 0);
    }
}

#[test]
fn an_older_library_without_enhanced_connection_establishment_connects() {
    let mut connect = rdma_ucm_connect::new_zeroed();
    connect.conn_param.valid = 1;
    connect.ece.vendor_id = 5;
    let number = cmd::RDMA_USER_CM_CMD_CONNECT;
    assert_eq!(errno(number, 0, &connect.as_bytes()[..280]), 0);
    assert_eq!(errno(number, 0, &connect.as_bytes()[..279]), libc::EINVAL);
    connect.conn_param.valid = 0;
    assert_eq!(errno(number, 0, connect.as_bytes()), libc::EINVAL);
}

#[test]
fn af_ib_is_refused_so_that_librdmacm_asks_in_the_ip_way() {
    let (addr, _) = address::gid_to_storage(&[1; 16], 0xffff);
    let bind = rdma_ucm_bind {
        id: 1,
        addr_size: 48,
        reserved: 0,
        addr,
    };
    let number = cmd::RDMA_USER_CM_CMD_BIND;
    assert_eq!(errno(number, 0, bind.as_bytes()), libc::EINVAL);
}

#[test]
fn an_option_longer_than_the_device_takes_is_refused() {
    let mut option = rdma_ucm_set_option::new_zeroed();
    option.optlen = MAX_OPTION as u32;
    let number = cmd::RDMA_USER_CM_CMD_SET_OPTION;
    assert_eq!(errno(number, 0, option.as_bytes()), 0);
    option.optlen += 1;
    assert_eq!(errno(number, 0, option.as_bytes()), libc::EINVAL);
}

#[test]
fn the_port_space_decides_the_type_of_the_queue_pair() {
    for (port_space, asked, want) in [(0x106, 9, 2), (0x111, 2, 4), (2, 2, 4), (0x13f, 3, 3)] {
        assert_eq!(qp_type(port_space, asked).unwrap(), want);
    }
    assert!(qp_type(0x107, 2).is_err());
}
