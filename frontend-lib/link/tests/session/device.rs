//! A device for tests of the library alone: one endpoint, no policy, no checks, all by
//! reads and writes of files. Queue pairs of all its sessions reach each other.

use crate::cm::Cm;
use crate::memory::Memory;
use crate::vring::Vring;
use masq_spec::command::{Opcode, RequestHeader, ResponseHeader, Status};
use masq_spec::event::{COMPLETION, Event};
use masq_spec::queue::*;
use masq_spec::verbs::*;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

/// All sessions of the device.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) sessions: BTreeMap<u64, Session>,
    last: u64,
    left_started: Vec<usize>,
}

/// One connection with its objects.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) memory: Option<Memory>,
    pub(crate) doorbell: Option<File>,
    pub(crate) backend: Option<vhost::vhost_user::Backend>,
    pub(crate) vrings: HashMap<u32, Vring>,
    /// The session that this connection joined, and its base there.
    pub(crate) joined: Option<(u64, u32)>,
    last: u32,
    mrs: HashMap<u32, (RegMr, Vec<Segment>)>,
    cqs: HashMap<u32, Cq>,
    srqs: HashMap<u32, Queue>,
    qps: HashMap<u32, Qp>,
    ahs: HashMap<u32, AhAttr>,
    pub(crate) cm: Cm,
}

struct Cq {
    ring: Ring,
    produced: u32,
    event_queue: u32,
    armed_seen: u32,
}

#[derive(Clone, Copy)]
struct Queue {
    ring: Ring,
    index: u32,
}

struct Qp {
    create: CreateQp,
    attr: QpAttr,
    send: Queue,
    recv: Queue,
}

/// The numbers by which peers know QPs: session and handle.
fn qpn(session: u64, handle: u32) -> u32 {
    (session as u32) << 12 | handle
}

/// A listening device; it ends with the test process.
pub(crate) struct Device {
    pub(crate) socket: PathBuf,
    streams: Arc<Mutex<Vec<UnixStream>>>,
    world: Arc<Mutex<World>>,
}

impl Device {
    pub(crate) fn start(dir: &Path, name: &str) -> Self {
        let socket = dir.join(format!("{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let accepting = Arc::clone(&world);
        let streams = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&streams);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                let world = Arc::clone(&accepting);
                std::thread::spawn(move || crate::connection::serve(stream, world));
            }
        });
        let working = Arc::clone(&world);
        let device = Self {
            socket,
            streams,
            world,
        };
        std::thread::spawn(move || {
            loop {
                if !working.lock().unwrap().turn() {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
        device
    }

    /// For each session that ended, the channels' event queues that it had left started.
    pub(crate) fn left_started(&self) -> Vec<usize> {
        self.world.lock().unwrap().left_started.clone()
    }

    /// Ends every connection.
    pub(crate) fn hang_up(&self) {
        for stream in self.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl World {
    pub(crate) fn add(&mut self, session: Session) -> u64 {
        self.last += 1;
        self.sessions.insert(self.last, session);
        self.last
    }

    pub(crate) fn end(&mut self, id: u64) {
        let session = self.sessions.remove(&id);
        let vrings = session.into_iter().flat_map(|s| s.vrings);
        let left = vrings.filter(|(name, vring)| *name >= 2 && vring.enabled);
        self.left_started.push(left.count());
    }

    /// Serves each control queue and send queue once; false if there was nothing.
    fn turn(&mut self) -> bool {
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        let mut busy = false;
        for id in ids {
            let session = self.sessions.get_mut(&id).unwrap();
            busy |= session.control(id);
            let qps: Vec<u32> = session.qps.keys().copied().collect();
            for qp in qps {
                while self.send(id, qp) {
                    busy = true;
                }
            }
        }
        busy
    }

    /// Serves one send request; false if there is none or it must wait for a receive.
    fn send(&mut self, from: u64, handle: u32) -> bool {
        let session = &self.sessions[&from];
        let memory = session.memory.as_ref().unwrap();
        let qp = &session.qps[&handle];
        let slot = slot(&qp.send);
        if qp.attr.qp_state != State::Rts as u32 || memory.get::<u32>(slot) != stamp(qp.send.index)
        {
            return false;
        }
        let wqe: SendWqe = memory.get(slot);
        let is_ud = qp.create.qp_type == QpType::Ud as u32;
        let signalled = wqe.flags & SendFlags::SIGNALED.bits() != 0 || qp.create.sq_sig_all != 0;
        let cq = qp.create.send_cq;
        let peer_qpn = if is_ud {
            wqe.compare_add as u32
        } else {
            qp.attr.dest_qp_num
        };
        let (to, peer) = (u64::from(peer_qpn >> 12), peer_qpn & 0xfff);
        let opcode = SendOpcode::from_raw(wqe.opcode).expect("an opcode of the ring");
        let mut done = Cqe {
            wr_id: wqe.wr_id,
            index: qp.send.index,
            qp_num: qpn(from, handle),
            ..Cqe::default()
        };
        let data = if wqe.flags & SendFlags::INLINE.bits() != 0 {
            memory.bytes(slot + SEND_DATA as u64, wqe.inline_len as usize)
        } else {
            session.gather(slot + SEND_DATA as u64, wqe.num_sge.into())
        };
        done.byte_len = data.len() as u32;
        use SendOpcode as Op;
        let mut received = Cqe {
            opcode: WcOpcode::Recv as u8,
            src_qp: qpn(from, handle),
            qp_num: peer_qpn,
            imm_data: wqe.imm_data,
            byte_len: data.len() as u32,
            ..Cqe::default()
        };
        received.flags = match opcode {
            Op::SendWithImm | Op::RdmaWriteWithImm => WcFlags::WITH_IMM.bits(),
            Op::SendWithInv => WcFlags::WITH_INV.bits(),
            _ => 0,
        };
        if opcode == Op::RdmaWriteWithImm {
            received.opcode = WcOpcode::RecvRdmaWithImm as u8;
        }
        let arrives = match opcode {
            Op::Send | Op::SendWithImm | Op::SendWithInv => Some(&data[..]),
            Op::RdmaWriteWithImm => Some(&[][..]),
            _ => None,
        };
        if arrives.is_some_and(|data| !self.deliver(to, peer, data, is_ud, received)) {
            return false;
        }
        let sges = slot + SEND_DATA as u64;
        match opcode {
            Op::RdmaWrite | Op::RdmaWriteWithImm => {
                done.opcode = WcOpcode::RdmaWrite as u8;
                self.sessions[&to].access(wqe.rkey, wqe.remote_addr, &mut data.clone(), true);
            }
            Op::RdmaRead => {
                done.opcode = WcOpcode::RdmaRead as u8;
                let mut data = data;
                self.sessions[&to].access(wqe.rkey, wqe.remote_addr, &mut data, false);
                self.sessions[&from].scatter(sges, wqe.num_sge.into(), &data);
            }
            Op::CompareSwap | Op::FetchAdd => {
                let mut old = [0; 8];
                self.sessions[&to].access(wqe.rkey, wqe.remote_addr, &mut old, false);
                let value = u64::from_le_bytes(old);
                let new = if opcode == Op::FetchAdd {
                    done.opcode = WcOpcode::FetchAdd as u8;
                    value.wrapping_add(wqe.compare_add)
                } else {
                    done.opcode = WcOpcode::CompSwap as u8;
                    if value == wqe.compare_add {
                        wqe.swap
                    } else {
                        value
                    }
                };
                let mut new = new.to_le_bytes();
                self.sessions[&to].access(wqe.rkey, wqe.remote_addr, &mut new, true);
                self.sessions[&from].scatter(sges, wqe.num_sge.into(), &old);
            }
            Op::LocalInv | Op::BindMw => done.status = WcStatus::LocQpOpErr as u8,
            Op::Send | Op::SendWithImm | Op::SendWithInv => {}
        }
        let session = self.sessions.get_mut(&from).unwrap();
        let qp = session.qps.get_mut(&handle).unwrap();
        qp.send.index += 1;
        let (index, header) = (qp.send.index, qp.send.ring.addr);
        session.memory.as_ref().unwrap().put(header, &index);
        if signalled {
            session.complete(cq, done);
        }
        true
    }

    /// Fills the peer's next receive; false if none waits.
    fn deliver(&mut self, to: u64, peer: u32, data: &[u8], is_ud: bool, mut cqe: Cqe) -> bool {
        let Some(session) = self.sessions.get_mut(&to) else {
            return false;
        };
        let Some(qp) = session.qps.get(&peer) else {
            return false;
        };
        let (srq, recv_cq) = (qp.create.srq, qp.create.recv_cq);
        let queue = session.srqs.get(&srq).copied().unwrap_or(qp.recv);
        let memory = session.memory.as_ref().unwrap();
        let slot = slot(&queue);
        if queue.ring.slots == 0 || memory.get::<u32>(slot) != stamp(queue.index) {
            return false;
        }
        let wqe: RecvWqe = memory.get(slot);
        let mut all = if is_ud { vec![0; 40] } else { Vec::new() };
        all.extend_from_slice(data);
        session.scatter(slot + RECV_DATA as u64, wqe.num_sge, &all);
        memory.put(queue.ring.addr, &(queue.index + 1));
        if srq == NO_HANDLE {
            session.qps.get_mut(&peer).unwrap().recv.index += 1;
        } else {
            session.srqs.get_mut(&srq).unwrap().index += 1;
        }
        cqe.wr_id = wqe.wr_id;
        cqe.index = queue.index;
        if is_ud {
            cqe.byte_len += 40;
            cqe.flags |= WcFlags::GRH.bits();
        }
        session.complete(recv_cq, cqe);
        true
    }
}

fn slot(queue: &Queue) -> u64 {
    let slot = queue.index & (queue.ring.slots.max(1) - 1);
    queue.ring.addr + RING_HEADER + u64::from(slot) * u64::from(queue.ring.stride)
}

pub(crate) fn body<T: FromBytes + IntoBytes>(bytes: &[u8]) -> T {
    let mut value = T::new_zeroed();
    value
        .as_mut_bytes()
        .copy_from_slice(&bytes[..size_of::<T>()]);
    value
}

pub(crate) fn ok<T: IntoBytes + Immutable>(value: T) -> Result<Vec<u8>, Status> {
    Ok(value.as_bytes().to_vec())
}

impl Session {
    fn sges(&self, at: u64, count: u32) -> Vec<Sge> {
        let memory = self.memory.as_ref().unwrap();
        (0..u64::from(count))
            .map(|i| memory.get(at + 16 * i))
            .collect()
    }

    fn gather(&self, at: u64, count: u32) -> Vec<u8> {
        let mut all = Vec::new();
        for sge in self.sges(at, count) {
            let mut part = vec![0; sge.length as usize];
            self.access(sge.lkey, sge.addr, &mut part, false);
            all.extend(part);
        }
        all
    }

    fn scatter(&self, at: u64, count: u32, mut data: &[u8]) {
        for sge in self.sges(at, count) {
            let (part, rest) = data.split_at(data.len().min(sge.length as usize));
            self.access(sge.lkey, sge.addr, &mut part.to_vec(), true);
            data = rest;
        }
        assert!(data.is_empty(), "the receive was too short");
    }

    /// Copies to or from registered memory.
    fn access(&self, key: u32, addr: u64, data: &mut [u8], write: bool) {
        let memory = self.memory.as_ref().unwrap();
        let (region, segments) = self.mrs.get(&key).expect("a key of this session");
        let (mut at, mut rest) = (addr - region.iova + region.addr, data);
        while !rest.is_empty() {
            let inside = |s: &&Segment| at >= s.addr && at < s.addr + s.len;
            let segment = segments.iter().find(inside).expect("inside the region");
            let len = rest.len().min((segment.addr + segment.len - at) as usize);
            let (part, after) = rest.split_at_mut(len);
            let window = segment.kind == SegmentKind::Window as u32;
            let (file, place) = if window {
                (&memory.shared, segment.at + (at - segment.addr))
            } else {
                (&memory.process, at)
            };
            if write {
                file.write_all_at(part, place).unwrap();
            } else {
                file.read_exact_at(part, place).unwrap();
            }
            at += len as u64;
            rest = after;
        }
    }

    /// Writes a completion, and an event if the CQ is armed.
    fn complete(&mut self, id: u32, mut cqe: Cqe) {
        let memory = self.memory.as_ref().unwrap();
        let cq = self.cqs.get_mut(&id).expect("a live CQ");
        let queue = Queue {
            ring: cq.ring,
            index: cq.produced,
        };
        cqe.stamp = stamp(cq.produced);
        let at = slot(&queue);
        memory.put(at + 4, &cqe.as_bytes()[4..]);
        memory.put(at, &cqe.stamp);
        cq.produced += 1;
        let arm: u32 = memory.get(cq.ring.addr + HDR_CQ_ARM as u64);
        if arm == cq.armed_seen || cq.event_queue == NO_EVENT_QUEUE {
            return;
        }
        cq.armed_seen = arm;
        let event = Event {
            kind: COMPLETION,
            element: id,
            reserved: 0,
        };
        let queue = cq.event_queue;
        self.deliver_event(queue, &event);
    }

    /// Writes an event and signals it.
    pub(crate) fn deliver_event(&mut self, queue: u32, event: &Event) {
        let memory = self.memory.as_ref().unwrap();
        let vring = self.vrings.get_mut(&queue).unwrap();
        let (head, chain) = vring.next(memory).expect("room for an event");
        memory.put(chain[0].addr, event);
        vring.finish(memory, head, size_of::<Event>() as u32, true);
    }

    fn control(&mut self, id: u64) -> bool {
        let Some(memory) = &self.memory else {
            return false;
        };
        let Some(vring) = self.vrings.get_mut(&0) else {
            return false;
        };
        let Some((head, chain)) = vring.next(memory) else {
            return false;
        };
        let [request, response] = &chain[..] else {
            // A driver whose connection ended may free its rings before this is noticed.
            vring.enabled = false;
            return false;
        };
        assert!(!request.writable && response.writable);
        let bytes = memory.bytes(request.addr, request.len);
        let at = response.addr;
        let header: RequestHeader = body(&bytes);
        let opcode = Opcode::from_raw(header.opcode).expect("a known opcode");
        let rest = &bytes[size_of::<RequestHeader>()..];
        assert_eq!(rest.len(), header.len as usize, "{opcode:?}");
        let (status, answer) = match self.command(id, opcode, rest) {
            Ok(answer) => (Status::Ok, answer),
            Err(status) => (status, Vec::new()),
        };
        let header = ResponseHeader {
            status: status.raw(),
            len: answer.len() as u32,
        };
        let memory = self.memory.as_ref().unwrap();
        memory.put(at, &header);
        memory.put(at + 8, &answer[..]);
        let vring = self.vrings.get_mut(&0).unwrap();
        vring.finish(memory, head, 8 + answer.len() as u32, false);
        true
    }

    pub(crate) fn created(&mut self) -> Created {
        self.last += 1;
        Created {
            handle: self.last,
            reserved: 0,
        }
    }

    fn keys(&mut self) -> MrCreated {
        let handle = self.created().handle;
        MrCreated {
            handle,
            lkey: handle,
            rkey: handle,
            reserved: 0,
        }
    }

    fn command(&mut self, id: u64, opcode: Opcode, bytes: &[u8]) -> Result<Vec<u8>, Status> {
        match opcode {
            Opcode::Hello => {
                let mut reply = HelloReply::new_zeroed();
                reply.session = id;
                reply.secret = [7; 16];
                ok(reply)
            }
            Opcode::Join => {
                let join: Join = body(bytes);
                assert_eq!(join.secret, [7; 16]);
                self.joined = Some((join.session, join.base));
                Ok(Vec::new())
            }
            Opcode::QueryDevice => ok(device_attr()),
            Opcode::QueryPort if body::<QueryPort>(bytes).port == 1 => ok(port_attr()),
            Opcode::QueryPort => Err(Status::Invalid),
            Opcode::QueryGidTable => Ok(gid_table()),
            Opcode::AllocPd => ok(self.created()),
            Opcode::RegMr => {
                let segments = &bytes[size_of::<RegMr>()..];
                let segments = segments.chunks(size_of::<Segment>()).map(body).collect();
                let created = self.keys();
                self.mrs.insert(created.handle, (body(bytes), segments));
                ok(created)
            }
            Opcode::DeregMr => {
                let known = self.mrs.remove(&body::<Handle>(bytes).handle);
                known.map(|_| Vec::new()).ok_or(Status::NoSuchObject)
            }
            Opcode::CreateCq => {
                let create: CreateCq = body(bytes);
                let created = self.created();
                let cq = Cq {
                    ring: create.ring,
                    produced: 0,
                    event_queue: create.event_queue,
                    armed_seen: 0,
                };
                self.cqs.insert(created.handle, cq);
                ok(created)
            }
            Opcode::ResizeCq => {
                let resize: ResizeCq = body(bytes);
                let cq = self
                    .cqs
                    .get_mut(&resize.handle)
                    .ok_or(Status::NoSuchObject)?;
                cq.ring = resize.ring;
                ok(CqResized {
                    first_index: cq.produced,
                    reserved: 0,
                })
            }
            Opcode::CreateSrq => {
                let ring = body::<CreateSrq>(bytes).ring;
                let created = self.created();
                self.srqs.insert(created.handle, Queue { ring, index: 0 });
                ok(created)
            }
            Opcode::CreateQp => {
                let create: CreateQp = body(bytes);
                let handle = self.created().handle;
                let queue = |ring| Queue { ring, index: 0 };
                let attr = QpAttr {
                    caps: create.caps,
                    ..QpAttr::default()
                };
                let (send, recv) = (queue(create.sq), queue(create.rq));
                let qp = Qp {
                    create,
                    attr,
                    send,
                    recv,
                };
                self.qps.insert(handle, qp);
                ok(QpCreated {
                    handle,
                    qpn: qpn(id, handle),
                    doorbell: handle,
                    reserved: 0,
                })
            }
            Opcode::ModifyQp => {
                let modify: ModifyQp = body(bytes);
                let qp = self
                    .qps
                    .get_mut(&modify.handle)
                    .ok_or(Status::NoSuchObject)?;
                let mask = QpMask::from_bits_truncate(modify.mask);
                if mask.contains(QpMask::STATE) {
                    qp.attr.qp_state = modify.attr.qp_state;
                }
                if mask.contains(QpMask::DEST_QPN) {
                    qp.attr.dest_qp_num = modify.attr.dest_qp_num;
                }
                ok(QpState {
                    state: qp.attr.qp_state,
                    reserved: 0,
                })
            }
            Opcode::QueryQp => {
                let qp = self.qps.get(&body::<Handle>(bytes).handle);
                ok(qp.ok_or(Status::NoSuchObject)?.attr)
            }
            Opcode::CreateAh => {
                let created = self.created();
                self.ahs
                    .insert(created.handle, body::<CreateAh>(bytes).attr);
                ok(created)
            }
            Opcode::DestroyQp => {
                self.qps.remove(&body::<Handle>(bytes).handle);
                Ok(Vec::new())
            }
            Opcode::DestroyCq => {
                self.cqs.remove(&body::<Handle>(bytes).handle);
                Ok(Vec::new())
            }
            Opcode::DeallocPd | Opcode::DestroySrq | Opcode::DestroyAh => Ok(Vec::new()),
            _ => self.cm_command(opcode, bytes),
        }
    }
}

fn device_attr() -> DeviceAttr {
    DeviceAttr {
        max_mr_size: 1 << 40,
        page_size_cap: 4096,
        max_qp: 64,
        max_qp_wr: 4096,
        max_sge: 16,
        max_sge_rd: 16,
        max_cq: 64,
        max_cqe: 65536,
        max_mr: 64,
        max_pd: 64,
        max_qp_rd_atom: 16,
        max_qp_init_rd_atom: 16,
        max_res_rd_atom: 64,
        max_ah: 64,
        max_srq: 64,
        max_srq_wr: 4096,
        max_srq_sge: 16,
        max_inline_data: 512,
        ..DeviceAttr::default()
    }
}

fn port_attr() -> PortAttr {
    PortAttr {
        state: 4,
        max_mtu: 5,
        active_mtu: 3,
        gid_tbl_len: 8,
        port_cap_flags: 1 << 16,
        max_msg_sz: 1 << 30,
        pkey_tbl_len: 1,
        active_width: 2,
        active_speed: 32,
        phys_state: 5,
    }
}

fn gid_table() -> Vec<u8> {
    let link_local = [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0xff, 0xfe, 0, 0, 1,
    ];
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
    let mut bytes = GidTable { count: 4, len: 8 }.as_bytes().to_vec();
    for (index, (gid, gid_type)) in [(link_local, 1), (link_local, 2), (mapped, 1), (mapped, 2)]
        .into_iter()
        .enumerate()
    {
        let entry = GidEntry {
            gid,
            index: index as u32,
            gid_type,
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    bytes
}
