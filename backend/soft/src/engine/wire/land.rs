//! Where what arrives goes: the responder's receives and memory, and the
//! requester's own pieces, by the keys of the engine.

use super::Link;
use crate::engine::Engine;
use crate::engine::copy::{Performed, perform};
use crate::engine::keys::sge_len;
use crate::engine::objects::{Current, Receive};
use crate::engine::remote::{JobId, JobKind};
use masq_connected::{Landing, Memory};
use masq_spec::queue::WcStatus;
use masq_transport::{AtomicOp, Need, ResponderFault};
use masq_wire::RKey;
use std::collections::VecDeque;

/// Receives that are told to the peer as posted: enough for a window.
const CREDITS: [u32; 6] = [256, 64, 16, 8, 4, 1];

/// A helper's job, and where its bytes belong: up to `end` of the place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) place: Place,
    pub(super) end: u64,
}

/// A place that a packet's bytes belong to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// The receive of the arriving message.
    Receive,
    /// Memory under a key.
    Memory { key: RKey, addr: u64 },
    /// The own pieces of a request.
    Request(u64),
}

impl Engine {
    /// Stores the last byte of a place, which waited for a helper.
    pub(super) fn store_end(&mut self, q: usize, link: &Link, job: &Job, last: u8) {
        let Some(qp) = self.qps.get(q) else { return };
        let end = job.end;
        self.to.clear();
        let found = match job.place {
            Place::Receive => {
                let (receive, to) = (&link.receive, &mut self.to);
                let (pd, list) = (receive.pd, receive.list());
                let need = Need::LocalWrite;
                self.keys
                    .resolve_list(pd, qp.qpn, list, end, need, to)
                    .is_ok()
            }
            Place::Memory { key, addr } => {
                let (need, to) = (Need::RemoteWrite, &mut self.to);
                self.keys
                    .resolve(qp.pd, qp.qpn, key.0, addr, end, need, to)
                    .is_ok()
            }
            Place::Request(id) => link
                .request(id)
                .is_some_and(|request| self.gather(q, request, Need::LocalWrite).is_ok()),
        };
        if found {
            self.store_last(end, Some(last));
        }
    }
}

/// The responder of queue pair `q`, while a packet is handled.
pub(super) struct Reach<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) q: usize,
    pub(super) payload: &'a [u8],
    pub(super) receive: &'a mut Receive,
    /// The helper's job that the packet led to.
    pub(super) job: &'a mut Option<Job>,
}

impl Reach<'_> {
    /// Stores the payload at `offset` of what `engine.to` lists.
    fn store(&mut self, offset: u64, place: Place) -> Result<(), ResponderFault> {
        store(self.engine, self.q, self.payload, offset, place, self.job)
            .ok_or(ResponderFault::Memory)
    }

    fn resolve(
        &mut self,
        need: Need,
        key: RKey,
        addr: u64,
        len: u64,
    ) -> Result<(), ResponderFault> {
        let engine = &mut *self.engine;
        let qp = engine.qps.get(self.q).ok_or(ResponderFault::Memory)?;
        engine.to.clear();
        engine
            .keys
            .resolve(qp.pd, qp.qpn, key.0, addr, len, need, &mut engine.to)
            .map_err(|_| ResponderFault::Access)
    }
}

/// Stores bytes at `offset` of what `engine.to` lists; a helper writes what
/// lies in a process only. None: it takes no more.
fn store(
    engine: &mut Engine,
    q: usize,
    payload: &[u8],
    offset: u64,
    place: Place,
    job: &mut Option<Job>,
) -> Option<()> {
    if engine.store_mapped(offset, payload) {
        return Some(());
    }
    *job = engine.store_remote(q, offset, payload)?.map(|id| Job {
        id,
        place,
        end: offset + payload.len() as u64,
    });
    Some(())
}

impl Memory for Reach<'_> {
    fn take_receive(&mut self) -> Option<u64> {
        self.engine
            .take_receive(self.q, self.receive)
            .then(|| self.receive.list().iter().map(sge_len).sum())
    }

    fn place_receive(&mut self, offset: u64, len: u32) -> Result<(), ResponderFault> {
        let engine = &mut *self.engine;
        let qp = engine.qps.get(self.q).ok_or(ResponderFault::Memory)?;
        engine.to.clear();
        let (receive, end) = (&*self.receive, offset + u64::from(len));
        engine
            .keys
            .resolve_list(
                receive.pd,
                qp.qpn,
                receive.list(),
                end,
                Need::LocalWrite,
                &mut engine.to,
            )
            .map_err(|_| ResponderFault::ReceiveProtection)?;
        self.store(offset, Place::Receive)
    }

    fn check(&mut self, need: Need, key: RKey, addr: u64, len: u32) -> Result<(), ResponderFault> {
        if need == Need::RemoteAtomic && !addr.is_multiple_of(8) {
            return Err(ResponderFault::Malformed);
        }
        self.resolve(need, key, addr, u64::from(len))
    }

    fn place(&mut self, key: RKey, addr: u64, len: u32) -> Result<(), ResponderFault> {
        self.resolve(Need::RemoteWrite, key, addr, u64::from(len))?;
        self.store(0, Place::Memory { key, addr })
    }

    fn atomic(
        &mut self,
        key: RKey,
        addr: u64,
        op: AtomicOp,
    ) -> Result<Option<u64>, ResponderFault> {
        self.resolve(Need::RemoteAtomic, key, addr, 8)?;
        match perform(&self.engine.to, op).ok_or(ResponderFault::Memory)? {
            Performed::Found(old) => Ok(Some(old)),
            Performed::Elsewhere { session, addr } => {
                let kind = JobKind::Atomic { addr, op };
                let job = self.engine.send_job(self.q, session as usize, kind);
                *self.job = Some(Job {
                    id: job.ok_or(ResponderFault::Memory)?,
                    place: Place::Memory { key, addr },
                    end: 0,
                });
                Ok(None)
            }
        }
    }

    fn invalidate(&mut self, key: RKey) -> Result<(), ResponderFault> {
        self.engine.invalidate_for_peer(self.q, key.0)
    }

    fn credits(&self) -> Option<u32> {
        let qp = self.engine.qps.get(self.q)?;
        let rq = qp.rq.as_ref()?;
        if qp.held.is_some() {
            return Some(1);
        }
        // Receives are posted in order: the last of so many stands for all.
        let posted = |n: &u32| rq.ring.is_published(rq.head.wrapping_add(n - 1));
        let fits = |n: &&u32| **n <= qp.attr.caps.max_recv_wr.max(1);
        Some(
            CREDITS
                .iter()
                .filter(fits)
                .find(|n| posted(n))
                .copied()
                .unwrap_or(0),
        )
    }
}

/// The requester of queue pair `q`, while an answer is handled.
pub(super) struct Home<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) q: usize,
    pub(super) payload: &'a [u8],
    pub(super) posted: &'a VecDeque<Box<Current>>,
    pub(super) first: u64,
    pub(super) job: &'a mut Option<Job>,
}

impl Home<'_> {
    fn store(&mut self, id: u64, offset: u64, bytes: &[u8]) -> Result<(), WcStatus> {
        let at = id
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok());
        let request = at.and_then(|at| self.posted.get(at));
        let request = request.ok_or(WcStatus::FatalErr)?;
        self.engine.to.clear();
        self.engine.gather(self.q, request, Need::LocalWrite)?;
        let place = Place::Request(id);
        store(self.engine, self.q, bytes, offset, place, self.job).ok_or(WcStatus::LocProtErr)
    }
}

impl Landing for Home<'_> {
    fn place(&mut self, id: u64, offset: u32, _len: u32) -> Result<(), WcStatus> {
        let payload = self.payload;
        self.store(id, u64::from(offset), payload)
    }

    fn place_atomic(&mut self, id: u64, original: u64) -> Result<(), WcStatus> {
        self.store(id, 0, &original.to_ne_bytes())
    }
}
