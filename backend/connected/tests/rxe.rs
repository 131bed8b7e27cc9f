//! Our halves against what Linux's rdma_rxe was seen to send: its requests get
//! from our responder the answers that rxe gave, and for its answers our
//! requester sends the packets that rxe sent.

use masq_connected::{
    Fate, Landing, Memory, Payload, Request, Requester, RequesterConfig, Responder, ResponderConfig,
};
use masq_spec::queue::{SendOpcode, WcStatus};
use masq_spec::verbs::{Access, QpType};
use masq_transport::{AtomicOp, Need, ResponderFault};
use masq_wire::{
    AtomicEth, Datagram, Extended, Headers, ImmDt, Mtu, Opcode, Operation, Psn, Qpn, RKey, Reth,
    Service,
};
use std::net::IpAddr;

/// A packet of a capture: its headers and the length of its payload.
type Seen = (Headers, usize);

/// The RC packets of a capture (classic pcap, little endian, Ethernet).
fn capture(name: &str) -> Vec<(IpAddr, Seen)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/captures");
    let bytes = std::fs::read(format!("{folder}/{name}.pcap")).unwrap();
    let mut rest = &bytes[24..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (frame, after) = rest[16..].split_at(len);
        rest = after;
        let Ok(datagram) = Datagram::parse(&frame[14..]) else {
            continue;
        };
        let packet = datagram.packet();
        if packet.traits().service == Service::Rc {
            let mut headers = packet.headers();
            // rxe leaves it 0, as if the path could still migrate; a queue pair
            // without an alternate path is migrated (IBA 9.2.4).
            assert!(!headers.bth.mig_req);
            headers.bth.mig_req = true;
            let from = datagram.flow().addresses.src();
            packets.push((from, (headers, packet.payload().len())));
        }
    }
    packets
}

/// Splits a capture by the way that requests go: for each way the peer, and the
/// packets in their order.
fn directions(name: &str) -> Vec<(Qpn, Vec<Seen>)> {
    let packets = capture(name);
    let is_request = |seen: &Seen| seen.0.bth.opcode.is_request();
    let mut ways: Vec<(IpAddr, Qpn)> = Vec::new();
    for (from, seen) in packets.iter().filter(|(_, seen)| is_request(seen)) {
        if !ways.iter().any(|way| way.0 == *from) {
            ways.push((*from, seen.0.bth.dest_qpn));
        }
    }
    let of = |way: IpAddr| {
        let belongs = |(from, seen): &&(IpAddr, Seen)| (*from == way) == is_request(seen);
        packets
            .iter()
            .filter(belongs)
            .map(|(_, seen)| *seen)
            .collect()
    };
    ways.iter().map(|(way, qpn)| (*qpn, of(*way))).collect()
}

/// Memory that grants what rxe granted.
struct Peer<'a> {
    answers: &'a [Seen],
    originals: Vec<u64>,
    posted: bool,
    refuses: Option<RKey>,
}

impl Memory for Peer<'_> {
    fn take_receive(&mut self) -> Option<u64> {
        self.posted.then_some(1 << 20)
    }
    fn place_receive(&mut self, _: u64, _: u32) -> Result<(), ResponderFault> {
        Ok(())
    }
    fn check(&mut self, _: Need, key: RKey, _: u64, _: u32) -> Result<(), ResponderFault> {
        if self.refuses == Some(key) {
            return Err(ResponderFault::Access);
        }
        Ok(())
    }
    fn place(&mut self, _: RKey, _: u64, _: u32) -> Result<(), ResponderFault> {
        Ok(())
    }
    fn atomic(&mut self, _: RKey, _: u64, _: AtomicOp) -> Result<Option<u64>, ResponderFault> {
        if self.originals.is_empty() {
            let values = self
                .answers
                .iter()
                .filter_map(|seen| match seen.0.extended {
                    Extended::AtomicAck(_, ack) => Some(ack.original),
                    _ => None,
                });
            self.originals = values.collect();
            self.originals.reverse();
        }
        Ok(self.originals.pop())
    }
    fn invalidate(&mut self, _: RKey) -> Result<(), ResponderFault> {
        Ok(())
    }
}

impl Landing for Peer<'_> {
    fn place(&mut self, _: u64, _: u32, _: u32) -> Result<(), WcStatus> {
        Ok(())
    }
    fn place_atomic(&mut self, _: u64, _: u64) -> Result<(), WcStatus> {
        Ok(())
    }
}

fn peer(answers: &[Seen]) -> Peer<'_> {
    Peer {
        answers,
        originals: Vec::new(),
        posted: true,
        refuses: None,
    }
}

fn responder(seen: &[Seen], mtu: Mtu) -> Responder {
    let answer = seen.iter().find(|seen| !seen.0.bth.opcode.is_request());
    let request = seen.iter().find(|seen| seen.0.bth.opcode.is_request());
    Responder::new(ResponderConfig {
        qp_type: QpType::Rc,
        dest_qpn: answer.map_or(Qpn::new(0), |seen| seen.0.bth.dest_qpn),
        psn: request.unwrap().0.bth.psn,
        mtu,
        max_dest_rd_atomic: 4,
        min_rnr_timer: 12,
        access: Access::REMOTE_READ | Access::REMOTE_WRITE | Access::REMOTE_ATOMIC,
    })
}

const ALIKE: [(&str, Mtu); 14] = [
    ("rc_send_small", Mtu::B1024),
    ("rc_send_multi", Mtu::B1024),
    ("rc_send_mtu256", Mtu::B256),
    ("rc_send_ipv6", Mtu::B1024),
    ("rc_write_small", Mtu::B1024),
    ("rc_write_multi", Mtu::B1024),
    ("rc_read_small", Mtu::B1024),
    ("rc_read_multi", Mtu::B1024),
    ("rc_atomic_fadd", Mtu::B1024),
    ("rc_atomic_cas", Mtu::B1024),
    ("pv_imm", Mtu::B1024),
    ("pv_pad", Mtu::B1024),
    ("pv_atomic", Mtu::B1024),
    ("pv_solicited", Mtu::B1024),
];

#[test]
fn our_answers_are_those_of_rxe() {
    for (name, mtu) in ALIKE {
        for (_, seen) in directions(name) {
            let (requests, answers): (Vec<_>, Vec<_>) = seen
                .iter()
                .copied()
                .partition(|seen| seen.0.bth.opcode.is_request());
            let mut memory = peer(&answers);
            let mut responder = responder(&seen, mtu);
            let mut ours = Vec::new();
            for (headers, payload) in requests {
                let arrival = responder.handle(&headers, payload, &mut memory);
                assert_eq!(arrival.fate, Fate::Taken, "{name}");
                while let Some(transmit) = responder.poll_packet() {
                    ours.push((transmit.headers, transmit.payload.len() as usize));
                }
            }
            assert_eq!(ours, answers, "{name}");
        }
    }
}

/// The refusals: key, receive.
#[test]
fn our_refusals_are_those_of_rxe() {
    for name in ["pv_rkey", "pv_rkeyread", "pv_rnr"] {
        let seen: Vec<_> = capture(name).into_iter().map(|(_, seen)| seen).collect();
        let mut memory = peer(&[]);
        memory.posted = false;
        let mut responder = responder(&seen, Mtu::B1024);
        let mut checked = 0;
        for pair in seen.chunks(2) {
            let [(request, payload), (answer, _)] = pair else {
                panic!("{name}: requests and answers");
            };
            if let Extended::Reth(reth) = request.extended {
                memory.refuses = Some(reth.rkey);
            }
            responder.handle(request, *payload, &mut memory);
            let ours = responder.poll_packet().map(|transmit| transmit.headers);
            assert_eq!(
                ours.map(|headers| headers.extended),
                Some(answer.extended),
                "{name}"
            );
            checked += 1;
        }
        assert!(checked > 0);
    }
}

/// The work requests that rxe had, as its packets tell.
fn work(requests: &[Seen]) -> Vec<Request> {
    let mut work: Vec<Request> = Vec::new();
    for (headers, payload) in requests {
        let traits = headers.bth.opcode.traits();
        if traits.position.begins() {
            work.push(Request {
                id: work.len() as u64,
                opcode: SendOpcode::Send,
                length: 0,
                remote_addr: 0,
                rkey: RKey(0),
                imm: ImmDt([0; 4]),
                invalidate: RKey(0),
                compare_add: 0,
                swap: 0,
                fence: false,
                solicited: false,
            });
        }
        let request = work.last_mut().unwrap();
        request.length += *payload as u32;
        request.solicited |= headers.bth.solicited;
        let with = |imm: Option<ImmDt>| match (traits.operation, imm) {
            (Operation::Write, None) => SendOpcode::RdmaWrite,
            (Operation::Write, Some(_)) => SendOpcode::RdmaWriteWithImm,
            (_, Some(_)) => SendOpcode::SendWithImm,
            (_, None) => SendOpcode::Send,
        };
        let mut reth = |Reth {
                            address,
                            rkey,
                            length,
                        }| {
            (request.remote_addr, request.rkey) = (address, rkey);
            if traits.operation == Operation::ReadRequest {
                request.length = length;
            }
        };
        match headers.extended {
            Extended::Reth(it) | Extended::RethImm(it, _) => reth(it),
            _ => {}
        }
        request.opcode = match headers.extended {
            Extended::Imm(imm) | Extended::RethImm(_, imm) => {
                request.imm = imm;
                with(Some(imm))
            }
            Extended::Inv(ieth) => {
                request.invalidate = ieth.rkey;
                SendOpcode::SendWithInv
            }
            Extended::Atomic(AtomicEth {
                address,
                rkey,
                swap_add,
                compare,
            }) => {
                (request.remote_addr, request.rkey, request.length) = (address, rkey, 8);
                if headers.bth.opcode == Opcode::RcFetchAdd {
                    request.compare_add = swap_add;
                    SendOpcode::FetchAdd
                } else {
                    (request.compare_add, request.swap) = (compare, swap_add);
                    SendOpcode::CompareSwap
                }
            }
            _ if traits.operation == Operation::ReadRequest => SendOpcode::RdmaRead,
            _ => with(None),
        };
    }
    work
}

#[test]
fn our_requests_are_those_of_rxe() {
    for (name, mtu) in ALIKE {
        for (target, seen) in directions(name) {
            let (requests, _): (Vec<_>, Vec<_>) = seen
                .iter()
                .copied()
                .partition(|seen| seen.0.bth.opcode.is_request());
            let mut requester = Requester::new(RequesterConfig {
                qp_type: QpType::Rc,
                dest_qpn: target,
                psn: Psn::new(requests[0].0.bth.psn.get()),
                mtu,
                max_rd_atomic: 16,
                timeout: 14,
                retry_cnt: 7,
                rnr_retry: 7,
                depth: 128,
                window: (512, 512),
            });
            let work = work(&requests);
            for request in &work {
                requester.post(*request).unwrap();
            }
            let mut memory = peer(&[]);
            for (headers, payload) in &seen {
                if !headers.bth.opcode.is_request() {
                    let fate = requester.handle(headers, *payload, 0, &mut memory);
                    assert_eq!(fate, Fate::Taken, "{name} {headers:?}");
                    continue;
                }
                let ours = requester.poll_packet(0).unwrap();
                assert_eq!(
                    (ours.headers, ours.payload),
                    (*headers, ours.payload),
                    "{name}"
                );
                if !matches!(ours.payload, Payload::None) {
                    assert_eq!(ours.payload.len() as usize, *payload, "{name}");
                }
            }
            let done = std::iter::from_fn(|| requester.poll_completion());
            let good = done.filter(|done| done.status == WcStatus::Success);
            assert_eq!(good.count(), work.len(), "{name}");
        }
    }
}
