//! Memory that lies in a process only. Reaching it can block without limit, so
//! a helper thread of the session that owns it does so; the queue pair that
//! waits for it has a deadline, after which the memory counts as lost.

use super::objects::{Current, Waiting};
use super::{Engine, Step};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam_queue::SegQueue;
use masq_memory::{AtomicOp, RemoteMemory};
use masq_spec::queue::{Cqe, WcStatus};
use masq_transport::Nanos;
use std::sync::Arc;

/// How long a helper may take for one chunk.
pub(super) const DEADLINE: Nanos = 1_000_000_000;
/// Jobs that may wait for one helper.
const BACKLOG: usize = 256;

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
    /// That many bytes were written.
    Scattered(u64),
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
    jobs: Option<Sender<Job>>,
    label: String,
    pub(super) in_flight: u32,
    stuck: bool,
}

impl Helper {
    pub(crate) fn new(memory: Option<RemoteMemory>, label: String) -> Self {
        Self {
            memory,
            jobs: None,
            label,
            in_flight: 0,
            stuck: false,
        }
    }

    /// Whether a helper may still be writing to the process.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight > 0 && !self.stuck
    }

    pub(super) fn submit(
        &mut self,
        id: JobId,
        qp: usize,
        session: usize,
        kind: JobKind,
        answers: &RemotePort,
    ) -> bool {
        if self.stuck {
            return false;
        }
        if let Some(memory) = self.memory.take() {
            let (sender, receiver) = bounded(BACKLOG);
            let spawned = std::thread::Builder::new()
                .name("masq-remote".into())
                .stack_size(64 << 10)
                .spawn(move || serve(&memory, &receiver));
            match spawned {
                Ok(_) => self.jobs = Some(sender),
                Err(error) => tracing::error!(session = self.label, %error, "no helper thread"),
            }
        }
        let Some(jobs) = &self.jobs else { return false };
        match jobs.try_send(Job {
            id,
            qp,
            session,
            kind,
            answers: answers.clone(),
        }) {
            Ok(()) => {
                self.in_flight += 1;
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// A deadline passed: nothing more is asked of this helper.
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

/// The helper thread: ends when its session drops the sender.
fn serve(memory: &RemoteMemory, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
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
        JobKind::Write { parts, buffer } => {
            for part in parts {
                memory
                    .write(part.addr, buffer.get(part.at..part.at + part.len)?)
                    .ok()?;
            }
            Some(Stage::Scattered(buffer.len() as u64))
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
            if let Some(session) = self.sessions.get_mut(done.session) {
                session.helper.in_flight = session.helper.in_flight.saturating_sub(1);
            }
            if let Some(Stage::Delivered(deferred)) = done.outcome {
                if self
                    .qps
                    .get(done.qp)
                    .is_some_and(|qp| qp.qpn == deferred.qpn)
                {
                    self.datagram_arrived(done.qp, deferred.cqe, deferred.solicited);
                }
                continue;
            }
            self.finish_job(done.qp, done.id, done.outcome);
        }
        busy
    }

    /// A job's deadline passed.
    pub(super) fn job_overdue(&mut self, q: usize, id: JobId) -> bool {
        let Some(Waiting::Job {
            id: waits_for,
            session,
            ..
        }) = self.qps.get(q).map(|qp| qp.waiting)
        else {
            return false;
        };
        if waits_for != id {
            return false;
        }
        if let Some(session) = self.sessions.get_mut(session) {
            session.helper.give_up();
        }
        self.finish_job(q, id, None);
        true
    }

    fn finish_job(&mut self, q: usize, id: JobId, outcome: Option<Stage>) {
        let Some(qp) = self.qps.get_mut(q) else {
            return;
        };
        let Waiting::Job {
            id: waits_for,
            reading,
            ..
        } = qp.waiting
        else {
            return;
        };
        if waits_for != id {
            return;
        }
        qp.waiting = Waiting::Nothing;
        if let Some(current) = &mut qp.current {
            current.stage = outcome.unwrap_or(Stage::Failed { reading });
        }
        self.enqueue(q);
    }

    /// An atomic on memory that lies in a process only.
    pub(super) fn submit_atomic(
        &mut self,
        q: usize,
        cur: &mut Current,
        session: u32,
        addr: u64,
        op: AtomicOp,
    ) -> Result<Step, bool> {
        if let Stage::Failed { reading } = cur.stage {
            return Err(reading);
        }
        self.submit(q, session as usize, JobKind::Atomic { addr, op }, true)
    }
}
