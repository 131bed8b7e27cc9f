//! Memory that lies in a process only. Reaching it can block without limit, so
//! a helper thread of the session that owns it does so; the queue pair that
//! waits for it has a deadline, after which the memory counts as lost.

use super::Engine;
use super::objects::Waiting;
#[cfg(test)]
use crossbeam_channel::Receiver;
use crossbeam_queue::SegQueue;
use masq_memory::RemoteMemory;
use masq_spec::queue::{Cqe, WcStatus};
use masq_transport::{AtomicOp, Nanos};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

/// How long a helper may take for one chunk.
pub(super) const DEADLINE: Nanos = 1_000_000_000;
/// Datagrams that may wait for one helper; further ones are dropped. Other jobs
/// are at most one a queue pair.
const BACKLOG: usize = 2048;

/// Names a job; the serial of its timer.
pub(crate) type JobId = u64;

/// Bytes of a chunk that lie in a process.
pub(crate) struct Part {
    pub(super) addr: u64,
    pub(super) at: usize,
    pub(super) len: usize,
}

/// What a helper does.
pub(crate) enum JobKind {
    Read {
        parts: Vec<Part>,
        buffer: Vec<u8>,
    },
    Write {
        parts: Vec<Part>,
        buffer: Vec<u8>,
        /// The last byte of the buffer, if it ends the message and lies in a
        /// window: the engine stores it after the rest.
        last: Option<u8>,
    },
    Atomic {
        addr: u64,
        op: AtomicOp,
    },
    Deliver {
        parts: Vec<Part>,
        buffer: Vec<u8>,
        deferred: Deferred,
    },
}

/// The completion of a receive that waits for its bytes.
pub(crate) struct Deferred {
    pub(super) qpn: u32,
    pub(super) epoch: u32,
    pub(super) cqe: Cqe,
    pub(super) solicited: bool,
}

/// A job, with the queue pair and session that wait for it.
pub(crate) struct Job {
    id: JobId,
    qp: usize,
    session: usize,
    kind: JobKind,
    answers: RemotePort,
}

/// The answer to a job.
pub(crate) struct JobDone {
    id: JobId,
    qp: usize,
    session: usize,
    outcome: Option<Stage>,
}

/// How far the chunk of a request has come.
#[derive(Default)]
pub(crate) enum Stage {
    /// A slot that was not read yet.
    #[default]
    New,
    /// Nothing is in the buffer.
    Fresh,
    /// The bytes at the request's offset were read.
    Gathered(Vec<u8>),
    /// That many bytes were written, but for the last one.
    Scattered { len: u64, last: Option<u8> },
    /// A datagram was written.
    Delivered(Deferred),
    /// Memory did not answer.
    Failed { reading: bool },
}

impl Stage {
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::New)
    }

    pub(super) fn take_gathered(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(self, Self::Fresh) {
            Self::Gathered(buffer) => Some(buffer),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Where helpers leave answers, and how they wake the data-path thread.
#[derive(Clone, Default)]
pub(crate) struct RemotePort {
    done: Arc<SegQueue<JobDone>>,
    waker: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl RemotePort {
    pub(crate) fn new(waker: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            done: Arc::default(),
            waker: Some(waker),
        }
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.done.is_empty()
    }
}

/// The helper of one session; its thread starts with its first job.
pub(crate) struct Helper {
    memory: Option<RemoteMemory>,
    jobs: Option<Jobs>,
    label: String,
    /// Jobs without an answer, oldest first: it takes them in order.
    outstanding: VecDeque<JobId>,
    stuck: bool,
    /// The helper waits for a message before each job.
    #[cfg(test)]
    pub(crate) gate: Option<Receiver<()>>,
}

impl Helper {
    pub(crate) fn new(memory: Option<RemoteMemory>, label: String) -> Self {
        Self {
            memory,
            jobs: None,
            label,
            outstanding: VecDeque::new(),
            stuck: false,
            #[cfg(test)]
            gate: None,
        }
    }

    /// Whether it may still be at a job up to `upto`. One that is stuck counts
    /// as gone: what it may yet touch is the memory of its own process.
    pub(super) fn is_busy(&self, upto: JobId) -> bool {
        !self.stuck && self.outstanding.front().is_some_and(|id| *id <= upto)
    }

    pub(super) fn has_job(&self, id: JobId) -> bool {
        self.outstanding.binary_search(&id).is_ok()
    }

    #[cfg(test)]
    pub(crate) fn has_jobs(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Whether it takes another datagram.
    pub(super) fn takes_datagrams(&self) -> bool {
        !self.stuck && self.outstanding.len() < BACKLOG
    }

    pub(super) fn submit(&mut self, id: JobId, qp: usize, session: usize, work: Work<'_>) -> bool {
        if self.stuck {
            return false;
        }
        if let Some(memory) = self.memory.take() {
            let tray = Arc::new(Tray::default());
            let own = Arc::clone(&tray);
            #[cfg(test)]
            let gate = self.gate.take();
            let spawned = std::thread::Builder::new()
                .name("masq-remote".into())
                .stack_size(64 << 10)
                .spawn(move || {
                    masq_sched::shorten_slice();
                    serve(&memory, &own, || {
                        #[cfg(test)]
                        if let Some(gate) = &gate {
                            let _ = gate.recv();
                        }
                    });
                });
            match spawned {
                Ok(helper) => {
                    let helper = helper.thread().clone();
                    self.jobs = Some(Jobs { tray, helper });
                }
                Err(error) => tracing::error!(session = self.label, %error, "no helper thread"),
            }
        }
        let Some(jobs) = &self.jobs else { return false };
        jobs.tray.waiting.push(Job {
            id,
            qp,
            session,
            kind: work.kind,
            answers: work.answers.clone(),
        });
        jobs.helper.unpark();
        self.outstanding.push_back(id);
        true
    }

    /// A job was answered.
    fn answered(&mut self, id: JobId) {
        if let Ok(at) = self.outstanding.binary_search(&id) {
            self.outstanding.remove(at);
        }
        if self.outstanding.is_empty() {
            self.stuck = false;
        }
    }

    /// A deadline passed: nothing more is asked of this helper until it has
    /// answered.
    fn give_up(&mut self) {
        if !self.stuck {
            self.stuck = true;
            tracing::warn!(
                session = self.label,
                "memory of the process does not answer"
            );
        }
    }
}

/// What is handed to a helper.
pub(super) struct Work<'a> {
    pub(super) kind: JobKind,
    pub(super) answers: &'a RemotePort,
}

/// Jobs on their way to a helper. It sleeps as soon as there are none: a channel would
/// have it yield several times first, which is dear where it shares a processor.
#[derive(Default)]
struct Tray {
    waiting: SegQueue<Job>,
    ended: AtomicBool,
}

/// The session's end of a tray.
struct Jobs {
    tray: Arc<Tray>,
    helper: Thread,
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.tray.ended.store(true, Ordering::Release);
        self.helper.unpark();
    }
}

/// The helper thread: ends when it has done what its session left behind.
fn serve(memory: &RemoteMemory, tray: &Tray, before_job: impl Fn()) {
    loop {
        // Before the look at the tray, which gets nothing afterwards.
        let ended = tray.ended.load(Ordering::Acquire);
        let Some(job) = tray.waiting.pop() else {
            if ended {
                return;
            }
            std::thread::park();
            continue;
        };
        before_job();
        let outcome = perform(memory, job.kind);
        job.answers.done.push(JobDone {
            id: job.id,
            qp: job.qp,
            session: job.session,
            outcome,
        });
        if let Some(waker) = &job.answers.waker {
            waker();
        }
    }
}

fn perform(memory: &RemoteMemory, kind: JobKind) -> Option<Stage> {
    match kind {
        JobKind::Read { parts, mut buffer } => {
            for part in parts {
                let out = buffer.get_mut(part.at..part.at + part.len)?;
                memory.read(part.addr, out).ok()?;
            }
            Some(Stage::Gathered(buffer))
        }
        JobKind::Write {
            parts,
            buffer,
            last,
        } => {
            let final_part = parts.len().checked_sub(1);
            for (n, part) in parts.into_iter().enumerate() {
                let data = buffer.get(part.at..part.at + part.len)?;
                match data.split_last() {
                    // The last byte after all others: programs poll on it.
                    Some((end, body)) if Some(n) == final_part => {
                        memory.write(part.addr, body).ok()?;
                        memory.write(part.addr + body.len() as u64, &[*end]).ok()?;
                    }
                    _ => memory.write(part.addr, data).ok()?,
                }
            }
            let len = buffer.len() as u64;
            Some(Stage::Scattered { len, last })
        }
        JobKind::Deliver {
            parts,
            buffer,
            mut deferred,
        } => {
            let written = parts.iter().all(|part| {
                buffer
                    .get(part.at..part.at + part.len)
                    .is_some_and(|data| memory.write(part.addr, data).is_ok())
            });
            if !written {
                deferred.cqe.status = WcStatus::LocProtErr as u8;
            }
            Some(Stage::Delivered(deferred))
        }
        // One helper a session, one job at a time: atomic among queue pairs.
        JobKind::Atomic { addr, op } => {
            let mut value = [0; 8];
            memory.read(addr, &mut value).ok()?;
            let old = u64::from_ne_bytes(value);
            memory.write(addr, &op.apply(old).to_ne_bytes()).ok()?;
            Some(Stage::Gathered(value.to_vec()))
        }
    }
}

impl Engine {
    /// Takes the answers of helpers.
    pub(super) fn take_jobs(&mut self) -> bool {
        let mut busy = false;
        while let Some(done) = self.port.done.pop() {
            busy = true;
            // The session may be another one by now; its helper does not know
            // the job then.
            if let Some(session) = self.sessions.get_mut(done.session) {
                session.helper.answered(done.id);
                self.resume_flushes(done.session);
            }
            if let Some(Stage::Delivered(deferred)) = done.outcome {
                self.datagram_written(done.qp, &deferred);
                continue;
            }
            self.finish_job(done.qp, done.id, done.outcome);
        }
        busy
    }

    /// The deadline of a job passed: its helper is given up, and `q` ends its
    /// wait, if the job was not answered.
    pub(super) fn job_overdue(&mut self, q: usize, session_index: usize, id: JobId) -> bool {
        if let Some(session) = self.sessions.get_mut(session_index)
            && session.helper.has_job(id)
        {
            session.helper.give_up();
            self.resume_flushes(session_index);
        }
        self.finish_job(q, id, None)
    }

    /// Queue pairs of a session that wait for its helper look again.
    fn resume_flushes(&mut self, s: usize) {
        let Some(session) = self.sessions.get_mut(s) else {
            return;
        };
        if session.flush_waiters.is_empty() {
            return;
        }
        for q in std::mem::take(&mut session.flush_waiters) {
            if let Some(qp) = self.qps.get_mut(q)
                && qp.waiting == Waiting::Helper
            {
                qp.waiting = Waiting::Nothing;
                self.enqueue(q);
            }
        }
    }

    fn finish_job(&mut self, q: usize, id: JobId, outcome: Option<Stage>) -> bool {
        if self.qps.get(q).is_some_and(|qp| qp.link.is_some()) {
            return self.link_job_done(q, id, outcome);
        }
        let Some(qp) = self.qps.get_mut(q) else {
            return false;
        };
        let reading = match qp.waiting {
            Waiting::Job {
                id: waits_for,
                reading,
            } if waits_for == id => reading,
            _ => return false,
        };
        qp.waiting = Waiting::Nothing;
        if let Some(current) = &mut qp.current {
            current.stage = outcome.unwrap_or(Stage::Failed { reading });
        }
        self.enqueue(q);
        true
    }
}
