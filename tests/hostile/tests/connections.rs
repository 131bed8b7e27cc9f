//! More lies about connection management (SPEC clause 9.9) than `cm.rs` tells:
//! channels that are none, private data that fits nowhere, commands at random.

use masq_hostile::{Client, Masqd, eventually};
use masq_spec::command::{Opcode, Status};
use masq_spec::verbs::{
    CM_NO_EVENT, CmAddress, CmBind, CmConnect, CmCreateId, CmEvent, CmNumber, CmParam, CmReject,
    CmResolve, CmTarget, Created,
};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

const TCP: u16 = 0x106;
const RC: u8 = 2;
const SERVICE: u16 = 7471;
/// `enum rdma_cm_event_type`.
const REJECTED: u32 = 8;

fn target(channel: u32, id: u32) -> CmTarget {
    CmTarget { channel, id }
}

fn address(ip: [u8; 4], port: u16) -> CmAddress {
    let mut address = CmAddress {
        family: 2,
        port,
        ..Default::default()
    };
    address.ip[..4].copy_from_slice(&ip);
    address
}

fn number(target: CmTarget, number: u32) -> Vec<u8> {
    let body = CmNumber {
        target,
        number,
        reserved: 0,
    };
    body.as_bytes().to_vec()
}

/// What a test does with a client.
trait Managed {
    fn try_new_id(&mut self, channel: u32) -> (Status, u32);
    fn new_id(&mut self, channel: u32) -> u32;
    fn on(&mut self, opcode: Opcode, body: &[u8]) -> Status;
    fn listen(&mut self, channel: u32, backlog: u32) -> u32;
    fn request(&mut self, channel: u32, to: [u8; 4], private_len: u8) -> (u32, Status);
    fn events(&mut self, channel: u32) -> Vec<CmEvent>;
}

impl Managed for Client {
    fn try_new_id(&mut self, channel: u32) -> (Status, u32) {
        let request = CmCreateId {
            channel,
            port_space: TCP,
            qp_type: RC,
            reserved: 0,
            uid: 1,
        };
        let (status, body) = self.call(Opcode::CmCreateId, request.as_bytes());
        let made = Created::read_from_bytes(&body).map_or(0, |made| made.handle);
        (status, made)
    }

    fn new_id(&mut self, channel: u32) -> u32 {
        let (status, id) = self.try_new_id(channel);
        assert_eq!(status, Status::Ok, "CM_CREATE_ID");
        id
    }

    fn on(&mut self, opcode: Opcode, body: &[u8]) -> Status {
        self.call(opcode, body).0
    }

    fn listen(&mut self, channel: u32, backlog: u32) -> u32 {
        let id = self.new_id(channel);
        let bind = CmBind {
            target: target(channel, id),
            address: address([0; 4], SERVICE),
        };
        assert_eq!(self.on(Opcode::CmBind, bind.as_bytes()), Status::Ok);
        let listen = number(target(channel, id), backlog);
        assert_eq!(self.on(Opcode::CmListen, &listen), Status::Ok);
        id
    }

    fn request(&mut self, channel: u32, to: [u8; 4], private_len: u8) -> (u32, Status) {
        let id = self.new_id(channel);
        let resolve = CmResolve {
            target: target(channel, id),
            source: CmAddress::default(),
            destination: address(to, SERVICE),
            timeout_ms: 2000,
            reserved: 0,
        };
        let status = self.on(Opcode::CmResolveAddr, resolve.as_bytes());
        assert_eq!(status, Status::Ok, "CM_RESOLVE_ADDR");
        let route = number(target(channel, id), 2000);
        assert_eq!(self.on(Opcode::CmResolveRoute, &route), Status::Ok);
        let mut param = CmParam::new_zeroed();
        param.qpn = 1;
        param.private_len = private_len;
        let connect = CmConnect {
            target: target(channel, id),
            param,
        };
        (id, self.on(Opcode::CmConnect, connect.as_bytes()))
    }

    /// All that wait.
    fn events(&mut self, channel: u32) -> Vec<CmEvent> {
        let mut events = Vec::new();
        loop {
            let ask = target(channel, 0);
            let (status, body) = self.call(Opcode::CmGetEvent, ask.as_bytes());
            assert_eq!(status, Status::Ok, "CM_GET_EVENT");
            let event = CmEvent::read_from_bytes(&body).expect("a CmEvent");
            if event.event == CM_NO_EVENT {
                return events;
            }
            events.push(event);
        }
    }
}

/// A session with two channels, event queues 2 and 3.
fn open(masqd: &Masqd, endpoint: &str) -> Client {
    let client = masqd.open(endpoint);
    client.start_events(2);
    client.start_events(3);
    client
}

fn used(masqd: &Masqd, quota: &str) -> u64 {
    let report = masqd.overview();
    let endpoints = report.endpoints.iter();
    endpoints
        .filter_map(|e| e.quotas.get(quota))
        .map(|q| q.used)
        .sum()
}

#[test]
fn an_id_migrates_to_channels_of_its_session_only() {
    let masqd = Masqd::start();
    let mut client = open(&masqd, "red/a");
    let id = client.new_id(2);
    for channel in [4, 300, u32::MAX] {
        let status = client.on(Opcode::CmMigrate, &number(target(2, id), channel));
        assert_eq!(status, Status::Invalid, "{channel}");
    }
    let moved = client.on(Opcode::CmMigrate, &number(target(2, id), 3));
    assert_eq!(moved, Status::Ok);
    let old = target(2, id);
    assert_eq!(
        client.on(Opcode::CmDestroyId, old.as_bytes()),
        Status::Invalid
    );
}

#[test]
fn private_data_beyond_its_message_is_invalid() {
    let masqd = Masqd::start();
    let mut server = open(&masqd, "blue/a");
    let mut client = open(&masqd, "blue/b");
    server.listen(2, 8);
    for len in [57, 64, 255] {
        assert_eq!(client.request(2, [10, 0, 0, 1], len).1, Status::Invalid);
    }
    assert!(server.events(2).is_empty(), "none of them was sent");
    assert_eq!(client.request(2, [10, 0, 0, 1], 56).1, Status::Ok);
    let events = server.events(2);
    let [request] = &*events else {
        panic!("{} events", events.len());
    };
    let mut reject = CmReject {
        target: target(2, request.id),
        reason: 28,
        private_len: 149,
        reserved: [0; 6],
        private_data: [7; 256],
    };
    let status = server.on(Opcode::CmReject, reject.as_bytes());
    assert_eq!(status, Status::Invalid);
    reject.private_len = 148;
    assert_eq!(server.on(Opcode::CmReject, reject.as_bytes()), Status::Ok);
    let last = client.events(2).pop().expect("an event");
    assert_eq!((last.event, last.status), (REJECTED, 28));
}

/// Commands that mean something now and then, from three sessions of two
/// endpoints that may meet.
#[test]
fn random_commands_leave_nothing_and_disturb_nobody() {
    let masqd = Masqd::start();
    let mut clients = [
        open(&masqd, "blue/a"),
        open(&masqd, "blue/b"),
        open(&masqd, "blue/b"),
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32 % below
    };
    for _ in 0..30_000 {
        let client = &mut clients[random(3) as usize];
        let (channel, id) = (2 + random(2), random(24));
        match random(12) {
            0 => {
                client.try_new_id(channel);
            }
            1 => {
                let bind = CmBind {
                    target: target(channel, id),
                    address: address([0; 4], SERVICE + random(2) as u16),
                };
                client.on(Opcode::CmBind, bind.as_bytes());
            }
            2 => {
                let resolve = CmResolve {
                    target: target(channel, id),
                    source: CmAddress::default(),
                    destination: address([10, 0, 0, 1 + random(2) as u8], SERVICE),
                    timeout_ms: 1,
                    reserved: 0,
                };
                client.on(Opcode::CmResolveAddr, resolve.as_bytes());
            }
            3 => {
                client.events(channel);
            }
            _ => {
                let opcode = 0x80 + random(0x13) as u16;
                let opcode = Opcode::from_raw(opcode).expect("an opcode");
                let mut body = vec![0; 312];
                for byte in &mut body {
                    *byte = if random(4) == 0 { random(256) as u8 } else { 0 };
                }
                body[..8].copy_from_slice(target(channel, id).as_bytes());
                // The length that the command has, or any.
                let len = [8, 16, 24, 32, 48, 64, 272, 288, 304, random(312)];
                body.truncate(len[random(10) as usize] as usize);
                client.call(opcode, &body);
            }
        }
    }
    for client in &mut clients {
        assert!(client.works());
    }
    assert!(masqd.serves_others());
    drop(clients);
    assert!(eventually(|| used(&masqd, "cm_ids") == 0));
    assert!(eventually(|| used(&masqd, "sessions") == 0));
}
