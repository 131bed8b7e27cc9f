//! A world of driver processes around one engine: sealed memfds as memory,
//! rings written by hand, events recorded, time explicit.
#![allow(unsafe_code)] // a driver writes its own mappings
#![cfg_attr(not(test), allow(dead_code))] // the benchmark uses a part

use crate::engine::{Engine, Inbox, Wire};
use masq_datapath::Engine as _;
use masq_device::{
    AhSpec, CqSpec, Destination, DomainKey, EndpointKey, EventSink, MrSpec, MwSpec, QpChange,
    QpSpec, SessionSpec, SrqSpec,
};
use masq_memory::{DoorbellPage, MappedRing, Region, RemoteMemory, SharedFile, Window};
use masq_spec::event::AsyncEvent;
use masq_spec::queue::*;
use masq_spec::verbs::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::net::{IpAddr, Ipv4Addr};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use zerocopy::{FromZeros, IntoBytes};

/// Bytes of a process's memory.
pub(crate) const ARENA: u64 = 64 << 20;
pub(crate) const ALL: Access = Access::from_bits_retain(31);

/// What a session was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Completion { queue: u32, cq: u32 },
    Async(AsyncEvent, u32),
}

#[derive(Default)]
pub(crate) struct Sink(Mutex<Vec<Event>>);

impl EventSink for Sink {
    fn completion(&self, queue: u32, cq: u32) {
        self.0.lock().unwrap().push(Event::Completion { queue, cq });
    }
    fn asynchronous(&self, kind: AsyncEvent, element: u32) {
        self.0.lock().unwrap().push(Event::Async(kind, element));
    }
}

/// A driver process.
pub(crate) struct Process {
    pub(crate) s: usize,
    pub(crate) file: SharedFile,
    window: Window,
    next: u64,
    handle: u32,
    pub(crate) doorbell: Arc<DoorbellPage>,
    sink: Arc<Sink>,
}

/// A ring as its driver sees it.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    base: NonNull<u8>,
    pub(crate) spec: masq_spec::verbs::Ring,
}

impl Ring {
    fn slot(&self, index: u32) -> *mut u8 {
        let n = (index & (self.spec.slots - 1)) as usize;
        // SAFETY: inside the ring, which the process keeps mapped.
        unsafe {
            self.base
                .as_ptr()
                .add(RING_HEADER as usize + n * self.spec.stride as usize)
        }
    }

    pub(crate) fn header(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: inside the aligned header.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    fn stamp(&self, index: u32) -> &AtomicU32 {
        // SAFETY: the first word of an aligned slot.
        unsafe { AtomicU32::from_ptr(self.slot(index).cast()) }
    }

    /// Writes a slot, then its stamp.
    fn post(&self, index: u32, bytes: &[u8]) {
        assert!(bytes.len() <= self.spec.stride as usize);
        // SAFETY: inside the slot.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes[4..].as_ptr(),
                self.slot(index).add(4),
                bytes.len() - 4,
            );
        }
        self.stamp(index).store(stamp(index), Ordering::Release);
    }

    pub(crate) fn clear(&self) {
        self.fill_stamps(0);
    }

    pub(crate) fn fill_stamps(&self, value: u32) {
        for index in 0..self.spec.slots {
            self.stamp(index).store(value, Ordering::Release);
        }
    }
}

/// A completion queue.
#[derive(Clone, Copy)]
pub(crate) struct TestCq {
    pub(crate) proc: usize,
    pub(crate) handle: u32,
    pub(crate) ring: Ring,
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

impl TestCq {
    /// Polls one completion.
    pub(crate) fn poll(&mut self) -> Option<Cqe> {
        if self.ring.stamp(self.index).load(Ordering::Acquire) != stamp(self.index) {
            return None;
        }
        let mut cqe = Cqe::new_zeroed();
        // SAFETY: inside the slot.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.ring.slot(self.index),
                cqe.as_mut_bytes().as_mut_ptr(),
                CQE_LEN as usize,
            );
        }
        self.index = self.index.wrapping_add(1);
        self.ring
            .header(HDR_CQ_CONSUMER)
            .store(self.index, Ordering::Release);
        Some(cqe)
    }

    pub(crate) fn drain(&mut self) -> Vec<Cqe> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    /// What was completed: (wr_id, status).
    pub(crate) fn results(&mut self) -> Vec<(u64, WcStatus)> {
        self.drain()
            .iter()
            .map(|cqe| (cqe.wr_id, status(cqe)))
            .collect()
    }

    pub(crate) fn arm(&mut self, kind: u32) {
        self.serial += 1;
        self.ring
            .header(HDR_CQ_ARM)
            .store(self.serial << 2 | kind, Ordering::SeqCst);
    }
}

pub(crate) fn status(cqe: &Cqe) -> WcStatus {
    use WcStatus::*;
    [
        Success,
        LocLenErr,
        LocQpOpErr,
        LocProtErr,
        WrFlushErr,
        MwBindErr,
        LocAccessErr,
        RemInvReqErr,
        RemAccessErr,
        RemOpErr,
        RetryExcErr,
        RnrRetryExcErr,
    ]
    .into_iter()
    .find(|s| *s as u8 == cqe.status)
    .expect("a status that the device gives")
}

/// A queue pair.
#[derive(Clone, Copy)]
pub(crate) struct TestQp {
    pub(crate) proc: usize,
    pub(crate) handle: u32,
    pub(crate) qpn: u32,
    pub(crate) slot: u32,
    pub(crate) sq: Ring,
    pub(crate) rq: Option<Ring>,
    pub(crate) sq_tail: u32,
    pub(crate) rq_tail: u32,
    pub(crate) cq: TestCq,
    pub(crate) rcq: TestCq,
}

/// Registered memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mr {
    pub(crate) handle: u32,
    pub(crate) key: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
}

impl Mr {
    pub(crate) fn sge(&self, offset: u64, len: u32) -> Sge {
        Sge {
            addr: self.addr + offset,
            length: len,
            lkey: self.key,
        }
    }
    pub(crate) fn all(&self) -> Sge {
        self.sge(0, self.len as u32)
    }
}

/// A work request.
#[derive(Clone)]
pub(crate) struct Wr {
    pub(crate) opcode: u8,
    pub(crate) flags: SendFlags,
    pub(crate) sges: Vec<Sge>,
    pub(crate) inline: Vec<u8>,
    pub(crate) wqe: SendWqe,
}

impl Wr {
    pub(crate) fn new(opcode: SendOpcode, wr_id: u64) -> Self {
        Self {
            opcode: opcode as u8,
            flags: SendFlags::SIGNALED,
            sges: Vec::new(),
            inline: Vec::new(),
            wqe: SendWqe {
                wr_id,
                ..SendWqe::default()
            },
        }
    }
    pub(crate) fn sge(mut self, sge: Sge) -> Self {
        self.sges.push(sge);
        self
    }
    pub(crate) fn inline(mut self, data: &[u8]) -> Self {
        self.flags |= SendFlags::INLINE;
        self.inline = data.to_vec();
        self
    }
    pub(crate) fn flags(mut self, flags: SendFlags) -> Self {
        self.flags = flags;
        self
    }
    pub(crate) fn imm(mut self, imm: u32) -> Self {
        self.wqe.imm_data = imm;
        self
    }
    pub(crate) fn remote(mut self, addr: u64, key: u32) -> Self {
        (self.wqe.remote_addr, self.wqe.rkey) = (addr, key);
        self
    }
    pub(crate) fn atomic(mut self, compare_add: u64, swap: u64) -> Self {
        (self.wqe.compare_add, self.wqe.swap) = (compare_add, swap);
        self
    }
    pub(crate) fn addressed(mut self, ah: u32, qpn: u32, qkey: u32) -> Self {
        self.wqe.ah = ah;
        self.wqe.compare_add = u64::from(qpn) | u64::from(qkey) << 32;
        self
    }
}

/// How a queue pair is made.
#[derive(Clone, Copy)]
pub(crate) struct QpOptions {
    pub(crate) qp_type: QpType,
    pub(crate) pd: u32,
    pub(crate) sq_slots: u32,
    pub(crate) rq_slots: u32,
    pub(crate) srq: Option<u32>,
    pub(crate) timeout: u8,
    pub(crate) retry_cnt: u8,
    pub(crate) rnr_retry: u8,
    pub(crate) min_rnr_timer: u8,
    pub(crate) access: Access,
    pub(crate) sq_sig_all: bool,
    pub(crate) cqe: u32,
}

impl QpOptions {
    pub(crate) fn of(qp_type: QpType) -> Self {
        Self {
            qp_type,
            pd: 1,
            sq_slots: 64,
            rq_slots: 64,
            srq: None,
            timeout: 14,
            retry_cnt: 7,
            rnr_retry: 7,
            min_rnr_timer: 12,
            access: ALL,
            sq_sig_all: false,
            cqe: 256,
        }
    }
}

pub(crate) const RC: QpType = QpType::Rc;
pub(crate) const UC: QpType = QpType::Uc;
pub(crate) const UD: QpType = QpType::Ud;

/// An engine, processes and the time.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) now: u64,
    pub(crate) procs: Vec<Process>,
    /// What the next address handle may reach.
    pub(crate) only: Option<Box<[u32]>>,
    /// Peers are reached by packets.
    pub(crate) wired: Option<Wired>,
}

/// The network of a world whose packets come back to its only engine.
pub(crate) struct Wired {
    pub(crate) network: masq_port::memory::Network,
    pub(crate) inbox: Arc<Inbox>,
    /// Whoever sends datagrams is told at once, as a control side would.
    pub(crate) introduces: bool,
}

/// The host's address.
pub(crate) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub(crate) fn gid_of(endpoint: u32) -> Gid {
    let mut gid = [0; 16];
    gid[10..12].fill(0xff);
    gid[12..].copy_from_slice(&[10, 0, 0, endpoint as u8]);
    gid
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            engine: Engine::default(),
            now: 1_000_000_000,
            procs: Vec::new(),
            only: None,
            wired: None,
        }
    }

    /// The same processes, but whatever they say to each other travels in packets.
    pub(crate) fn pair_over_the_wire() -> Self {
        let mut world = Self::new();
        world.wire_up(1);
        world.spawn(1, 1);
        world.spawn(1, 2);
        world
    }

    /// Connects the engine to a network where it meets itself.
    pub(crate) fn wire_up(&mut self, seed: u64) {
        self.wire_up_with(seed, masq_wire::Mtu::B4096);
    }

    pub(crate) fn wire_up_with(&mut self, seed: u64, mtu: masq_wire::Mtu) {
        let network = masq_port::memory::Network::new(Default::default(), seed);
        let port = network.port(HOST, mtu).unwrap();
        let inbox = Arc::new(Inbox::new().unwrap());
        let wire = Wire::new(Box::new(port), Arc::clone(&inbox));
        self.engine.connect_to(wire, 0, 1);
        self.wired = Some(Wired {
            network,
            inbox,
            introduces: true,
        });
    }

    /// Where an endpoint is.
    pub(crate) fn place(&self, endpoint: u32) -> Destination {
        match self.wired {
            Some(_) => Destination::Host(HOST),
            None => Destination::Endpoint(EndpointKey(endpoint)),
        }
    }

    /// Two processes: endpoints 1 and 2 of tenant 1.
    pub(crate) fn pair_of_processes() -> Self {
        let mut world = Self::new();
        world.spawn(1, 1);
        world.spawn(1, 2);
        world
    }

    pub(crate) fn spawn(&mut self, domain: u32, endpoint: u32) -> usize {
        self.spawn_with(domain, endpoint, gid_of(endpoint), None)
    }

    pub(crate) fn spawn_with(
        &mut self,
        domain: u32,
        endpoint: u32,
        gid: Gid,
        remote: Option<RemoteMemory>,
    ) -> usize {
        let fd = memfd_create("arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, ARENA).unwrap();
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
        let file = SharedFile::check(fd).unwrap();
        let window = Window::map(&file, 0, ARENA, false).unwrap();
        let doorbell = Arc::new(DoorbellPage::new().unwrap());
        let sink = Arc::new(Sink::default());
        let s = self.engine.open(SessionSpec {
            grants: masq_device::Grants::ALL,
            label: format!("{domain}/{endpoint}#{}", self.procs.len()),
            domain: DomainKey(domain),
            partition: Some(masq_wire::PKey(0x8000 | domain as u16)),
            endpoint: EndpointKey(endpoint),
            gid,
            doorbell: doorbell.clone(),
            kick: Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()),
            events: sink.clone(),
            remote,
        });
        self.procs.push(Process {
            s,
            file,
            window,
            next: 1 << 16,
            handle: 0,
            doorbell,
            sink,
        });
        self.procs.len() - 1
    }

    pub(crate) fn events(&self, proc: usize) -> Vec<Event> {
        std::mem::take(&mut *self.procs[proc].sink.0.lock().unwrap())
    }

    pub(crate) fn async_events(&self, proc: usize) -> Vec<(AsyncEvent, u32)> {
        self.events(proc)
            .into_iter()
            .filter_map(|event| match event {
                Event::Async(kind, element) => Some((kind, element)),
                Event::Completion { .. } => None,
            })
            .collect()
    }

    // --- memory ---

    /// Fresh, page-aligned addresses.
    pub(crate) fn alloc(&mut self, proc: usize, len: u64) -> u64 {
        let process = &mut self.procs[proc];
        let addr = process.next;
        process.next += len.max(1).next_multiple_of(4096);
        assert!(process.next <= ARENA);
        addr
    }

    pub(crate) fn handle(&mut self, proc: usize) -> u32 {
        self.procs[proc].handle += 1;
        self.procs[proc].handle
    }

    pub(crate) fn pointer(&self, proc: usize, addr: u64, len: usize) -> NonNull<u8> {
        self.procs[proc].window.pointer(addr, len as u64).unwrap()
    }

    pub(crate) fn write(&self, proc: usize, addr: u64, data: &[u8]) {
        // SAFETY: inside the window.
        unsafe { masq_memory::store_bytes(self.pointer(proc, addr, data.len()), data) };
    }

    pub(crate) fn read(&self, proc: usize, addr: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        // SAFETY: inside the window.
        unsafe { masq_memory::load_bytes(self.pointer(proc, addr, len), &mut out) };
        out
    }

    pub(crate) fn read_u64(&self, proc: usize, addr: u64) -> u64 {
        u64::from_ne_bytes(self.read(proc, addr, 8).try_into().unwrap())
    }

    pub(crate) fn register(&mut self, proc: usize, pd: u32, len: u64, access: Access) -> Mr {
        let addr = self.alloc(proc, len);
        self.register_at(proc, pd, addr, len, access)
    }

    pub(crate) fn register_at(
        &mut self,
        proc: usize,
        pd: u32,
        addr: u64,
        len: u64,
        access: Access,
    ) -> Mr {
        let segments = [Segment {
            addr,
            len,
            at: addr,
            kind: SegmentKind::Window as u32,
            reserved: 0,
        }];
        self.register_segments(proc, pd, addr, len, access, &segments)
    }

    pub(crate) fn register_segments(
        &mut self,
        proc: usize,
        pd: u32,
        addr: u64,
        len: u64,
        access: Access,
        segments: &[Segment],
    ) -> Mr {
        let region = Region::map(&self.procs[proc].file, addr, len, segments).unwrap();
        let handle = self.handle(proc);
        let s = self.procs[proc].s;
        let key = self
            .engine
            .register(
                s,
                MrSpec {
                    handle,
                    pd,
                    access,
                    iova: addr,
                    region,
                },
            )
            .unwrap();
        Mr {
            handle,
            key,
            addr,
            len,
        }
    }

    /// Memory filled with a pattern that depends on `seed`.
    pub(crate) fn pattern(&mut self, proc: usize, len: u64, seed: u8) -> (Mr, Vec<u8>) {
        let mr = self.register(proc, 1, len, ALL);
        let data = bytes(len as usize, seed);
        self.write(proc, mr.addr, &data);
        (mr, data)
    }

    pub(crate) fn alloc_mw(&mut self, proc: usize, pd: u32, mw_type: MwType) -> (u32, u32) {
        let handle = self.handle(proc);
        let s = self.procs[proc].s;
        let spec = MwSpec {
            handle,
            pd,
            mw_type,
        };
        (handle, self.engine.alloc_mw(s, &spec).unwrap())
    }

    // --- queues ---

    pub(crate) fn ring(&mut self, proc: usize, slots: u32, stride: u32) -> (Ring, MappedRing) {
        let addr = self.alloc(proc, ring_len(slots, stride));
        let spec = masq_spec::verbs::Ring {
            addr,
            slots,
            stride,
        };
        let base = self.pointer(proc, addr, ring_len(slots, stride) as usize);
        let mapped = MappedRing::map(&self.procs[proc].file, spec).unwrap();
        (Ring { base, spec }, mapped)
    }

    pub(crate) fn cq(&mut self, proc: usize, cqe: u32, event_queue: Option<u32>) -> TestCq {
        self.cq_with(proc, cqe, event_queue, false)
    }

    pub(crate) fn cq_with(
        &mut self,
        proc: usize,
        cqe: u32,
        event_queue: Option<u32>,
        ignore_overrun: bool,
    ) -> TestCq {
        let (ring, mapped) = self.ring(proc, cqe.next_power_of_two(), CQE_LEN);
        let handle = self.handle(proc);
        let s = self.procs[proc].s;
        self.engine
            .create_cq(
                s,
                CqSpec {
                    handle,
                    ring: mapped,
                    cqe,
                    event_queue,
                    timestamps: false,
                    ignore_overrun,
                },
            )
            .unwrap();
        TestCq {
            proc,
            handle,
            ring,
            index: 0,
            serial: 0,
        }
    }

    pub(crate) fn srq(&mut self, proc: usize, slots: u32) -> (u32, Ring) {
        let (ring, mapped) = self.ring(proc, slots, 64);
        let handle = self.handle(proc);
        let s = self.procs[proc].s;
        self.engine
            .create_srq(
                s,
                SrqSpec {
                    handle,
                    pd: 1,
                    max_wr: slots,
                    max_sge: 3,
                    limit: 0,
                    ring: mapped,
                },
            )
            .unwrap();
        (handle, ring)
    }

    pub(crate) fn qp(&mut self, proc: usize, o: QpOptions) -> TestQp {
        let (cq, rcq) = (self.cq(proc, o.cqe, None), self.cq(proc, o.cqe, None));
        self.qp_on(proc, o, cq, rcq)
    }

    pub(crate) fn qp_on(&mut self, proc: usize, o: QpOptions, cq: TestCq, rcq: TestCq) -> TestQp {
        let (sq, sq_mapped) = self.ring(proc, o.sq_slots, 512);
        let rq = o.srq.is_none().then(|| self.ring(proc, o.rq_slots, 64));
        let handle = self.handle(proc);
        let s = self.procs[proc].s;
        let caps = QpCaps {
            max_send_wr: o.sq_slots,
            max_recv_wr: o.rq_slots,
            max_send_sge: 8,
            max_recv_sge: 3,
            max_inline_data: 256,
            reserved: 0,
        };
        let (qpn, slot) = self
            .engine
            .create_qp(
                s,
                QpSpec {
                    handle,
                    pd: o.pd,
                    qp_type: o.qp_type,
                    send_cq: cq.handle,
                    recv_cq: rcq.handle,
                    srq: o.srq,
                    sq_sig_all: o.sq_sig_all,
                    caps,
                    sq: sq_mapped,
                    rq: rq.as_ref().map(|(_, mapped)| mapped.clone()),
                },
            )
            .unwrap();
        TestQp {
            proc,
            handle,
            qpn,
            slot,
            sq,
            rq: rq.map(|(ring, _)| ring),
            sq_tail: 0,
            rq_tail: 0,
            cq,
            rcq,
        }
    }

    pub(crate) fn modify(
        &mut self,
        qp: &TestQp,
        mask: QpMask,
        attr: QpAttr,
        destination: Option<Destination>,
    ) -> masq_device::Result<State> {
        let s = self.procs[qp.proc].s;
        let change = QpChange {
            mask,
            attr,
            destination,
        };
        self.engine.modify_qp(s, qp.handle, change)
    }

    pub(crate) fn enter(&mut self, qp: &TestQp, state: State) -> masq_device::Result<State> {
        let attr = QpAttr {
            qp_state: state as u32,
            ..QpAttr::default()
        };
        self.modify(qp, QpMask::STATE, attr, None)
    }

    pub(crate) fn enter_init(&mut self, qp: &TestQp, o: QpOptions) {
        let attr = QpAttr {
            qp_state: State::Init as u32,
            port_num: 1,
            qkey: 0x1111,
            qp_access_flags: o.access.bits(),
            ..QpAttr::default()
        };
        let last = if o.qp_type == UD {
            QpMask::QKEY
        } else {
            QpMask::ACCESS_FLAGS
        };
        let mask = QpMask::STATE | QpMask::PKEY_INDEX | QpMask::PORT | last;
        self.modify(qp, mask, attr, None).unwrap();
    }

    pub(crate) fn enter_rtr(&mut self, qp: &TestQp, o: QpOptions, endpoint: u32, qpn: u32) {
        let attr = QpAttr {
            qp_state: State::Rtr as u32,
            path_mtu: 5,
            dest_qp_num: qpn,
            max_dest_rd_atomic: 16,
            min_rnr_timer: o.min_rnr_timer,
            ..QpAttr::default()
        };
        let uc = QpMask::AV | QpMask::PATH_MTU | QpMask::DEST_QPN | QpMask::RQ_PSN;
        let mask = QpMask::STATE
            | match o.qp_type {
                QpType::Rc => uc | QpMask::MAX_DEST_RD_ATOMIC | QpMask::MIN_RNR_TIMER,
                QpType::Uc => uc,
                QpType::Ud => QpMask::empty(),
            };
        let destination = (o.qp_type != UD).then_some(self.place(endpoint));
        self.modify(qp, mask, attr, destination).unwrap();
    }

    pub(crate) fn enter_rts(&mut self, qp: &TestQp, o: QpOptions) {
        let attr = QpAttr {
            qp_state: State::Rts as u32,
            timeout: o.timeout,
            retry_cnt: o.retry_cnt,
            rnr_retry: o.rnr_retry,
            max_rd_atomic: 16,
            ..QpAttr::default()
        };
        let mask = QpMask::STATE
            | QpMask::SQ_PSN
            | if o.qp_type == RC {
                QpMask::TIMEOUT | QpMask::RETRY_CNT | QpMask::RNR_RETRY | QpMask::MAX_QP_RD_ATOMIC
            } else {
                QpMask::empty()
            };
        self.modify(qp, mask, attr, None).unwrap();
    }

    /// Brings a queue pair from RESET to RTS, connected to (endpoint, qpn).
    pub(crate) fn connect(&mut self, qp: &TestQp, o: QpOptions, endpoint: u32, qpn: u32) {
        self.enter_init(qp, o);
        self.enter_rtr(qp, o, endpoint, qpn);
        self.enter_rts(qp, o);
    }

    /// Two queue pairs of processes 0 and 1, connected.
    pub(crate) fn connected(&mut self, o: QpOptions) -> (TestQp, TestQp) {
        self.connected_at(0, 1, 1, 2, o)
    }

    pub(crate) fn connected_at(
        &mut self,
        pa: usize,
        ea: u32,
        pb: usize,
        eb: u32,
        o: QpOptions,
    ) -> (TestQp, TestQp) {
        let (a, b) = (self.qp(pa, o), self.qp(pb, o));
        self.connect(&a, o, eb, b.qpn);
        self.connect(&b, o, ea, a.qpn);
        (a, b)
    }

    pub(crate) fn ah(&mut self, proc: usize, pd: u32, destination: Destination) -> u32 {
        let handle = self.handle(proc);
        let s = self.procs[proc].s;
        let attr = AhAttr {
            hop_limit: 7,
            traffic_class: 3,
            flow_label: 0xabcde,
            sl: 2,
            ..AhAttr::default()
        };
        self.engine
            .create_ah(
                s,
                AhSpec {
                    handle,
                    pd,
                    destination,
                    attr,
                    only: self.only.take(),
                },
            )
            .unwrap();
        handle
    }

    // --- work ---

    /// Posts without a doorbell.
    pub(crate) fn post_quietly(&mut self, qp: &mut TestQp, wr: &Wr) {
        let mut slot = vec![0u8; qp.sq.spec.stride as usize];
        let wqe = SendWqe {
            opcode: wr.opcode,
            flags: wr.flags.bits(),
            num_sge: wr.sges.len() as u8,
            inline_len: wr.inline.len() as u32,
            ..wr.wqe
        };
        slot[..64].copy_from_slice(wqe.as_bytes());
        if wr.flags.contains(SendFlags::INLINE) {
            slot[64..64 + wr.inline.len()].copy_from_slice(&wr.inline);
        } else {
            slot[64..64 + wr.sges.len() * 16].copy_from_slice(wr.sges.as_bytes());
        }
        qp.sq.post(qp.sq_tail, &slot);
        qp.sq_tail = qp.sq_tail.wrapping_add(1);
    }

    pub(crate) fn ring_doorbell(&self, qp: &TestQp) {
        self.procs[qp.proc].doorbell.ring(qp.slot);
    }

    pub(crate) fn post(&mut self, qp: &mut TestQp, wr: &Wr) {
        self.post_quietly(qp, wr);
        self.ring_doorbell(qp);
    }

    pub(crate) fn recv(&mut self, qp: &mut TestQp, wr_id: u64, sges: &[Sge]) {
        let ring = qp.rq.expect("no SRQ");
        post_recv(&ring, &mut qp.rq_tail, wr_id, sges);
        if ring.header(HDR_RECEIVE_BELL).load(Ordering::SeqCst) != 0 {
            self.ring_doorbell(qp);
        }
    }

    /// Writes into the doorbell page as a driver may: anything anywhere.
    pub(crate) fn doorbell_bytes(&self, page: &DoorbellPage, at: usize, word: u64) {
        use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
        assert!(at + 8 <= 4096);
        // SAFETY: a mapping of the page, as the driver's, of which these bytes
        // are a part.
        unsafe {
            let base = mmap(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                page,
                0,
            )
            .unwrap();
            base.cast::<u8>()
                .add(at)
                .cast::<u64>()
                .write_unaligned(word);
            munmap(base, 4096).unwrap();
        }
    }

    // --- time ---

    pub(crate) fn turn(&mut self) -> bool {
        self.engine.clock.set(self.now);
        let mut busy = self.engine.turn();
        let wired = self.wired.as_ref().filter(|wired| wired.introduces);
        let inbox = wired.map(|wired| Arc::clone(&wired.inbox));
        while let Some(arrival) = inbox.as_ref().and_then(|inbox| inbox.pop()) {
            if let masq_device::Arrival::UnknownSender { sender } = arrival {
                self.introduce(sender);
                busy = true;
            }
        }
        busy
    }

    /// Tells the engine whose a queue pair is: of one of its own endpoints.
    pub(crate) fn introduce(&mut self, sender: masq_device::SenderKey) {
        let endpoint = self.engine.endpoint_of(sender.qpn.get());
        let who = endpoint.map(|EndpointKey(endpoint)| masq_device::Sender {
            gid: gid_of(endpoint),
            trusted: false,
            reach: (0..16).map(EndpointKey).collect(),
        });
        self.engine.learn(sender, who);
    }

    /// Turns until there is nothing to do now.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the engine never comes to rest");
    }

    /// Lets time pass from timer to timer, up to `nanos` from now.
    pub(crate) fn pass(&mut self, nanos: u64) {
        let end = self.now + nanos;
        self.settle();
        while let Some(next) = self.engine.next_timer().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Turns until helpers have answered and `done` holds.
    pub(crate) fn wait_for(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let start = std::time::Instant::now();
        while !done(self) {
            assert!(start.elapsed().as_secs() < 20, "a helper does not answer");
            self.turn();
            if self.wired.is_some() {
                // What was lost is sent again after a time.
                self.now += 10_000;
            }
            std::thread::yield_now();
        }
    }

    pub(crate) fn state(&mut self, qp: &TestQp) -> State {
        let s = self.procs[qp.proc].s;
        let report = self.engine.query_qp(s, qp.handle).unwrap();
        State::from_raw(report.attr.qp_state).unwrap()
    }

    pub(crate) fn counters(&mut self, qp: &TestQp) -> masq_device::QpCounters {
        let s = self.procs[qp.proc].s;
        self.engine.query_qp(s, qp.handle).unwrap().counters
    }
}

pub(crate) fn post_recv(ring: &Ring, tail: &mut u32, wr_id: u64, sges: &[Sge]) {
    let mut slot = vec![0u8; 16 + sges.len() * 16];
    let wqe = RecvWqe {
        stamp: 0,
        num_sge: sges.len() as u32,
        wr_id,
    };
    slot[..16].copy_from_slice(wqe.as_bytes());
    slot[16..].copy_from_slice(sges.as_bytes());
    ring.post(*tail, &slot);
    *tail = tail.wrapping_add(1);
}

pub(crate) fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed)
        .collect()
}
