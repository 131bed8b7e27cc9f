//! HELLO and JOIN: what a connection is for.

use super::Server;
use super::connection::{Conn, Role};
use crate::ledger::Kind;
use crate::notifier::Sink;
use crate::refusal::Refused;
use crate::session::{Opening, Session, parse, response};
use crate::world::VERSION;
use masq_device::SessionSpec;
use masq_memory::RemoteMemory;
use masq_spec::command::{Opcode, RequestHeader, Status};
use masq_spec::device::{
    ASYNC_EVENT_QUEUE, FIRST_EVENT_QUEUE, Features, MAX_QUEUES, QUEUE_LAYOUT_MASQ, SPEC_VERSION,
    VersionText, version_str, version_text,
};
use masq_spec::verbs::{Hello, HelloReply, Join};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Event queues of a joined connection.
const QUEUES_OF_JOINED: u64 = MAX_QUEUES as u64 - FIRST_EVENT_QUEUE as u64;

impl Server {
    /// HELLO or JOIN.
    pub(super) fn first_command(&mut self, index: usize, request: &[u8]) -> Vec<u8> {
        let Some(id) = self.conns.get(index).map(|conn| conn.endpoint.clone()) else {
            return response(Status::Gone, &[]);
        };
        let Ok((header, body)) = RequestHeader::read_from_prefix(request) else {
            return response(Status::Invalid, &[]);
        };
        let (verb, result) = match Opcode::from_raw(header.opcode) {
            Some(Opcode::Hello) => ("hello", parse(body).and_then(|h| self.hello(index, &h))),
            Some(Opcode::Join) => ("join", parse(body).and_then(|j| self.join(index, &j))),
            _ => (
                "first",
                Err(Refused::invalid("the first command must be HELLO or JOIN")),
            ),
        };
        match result {
            Ok(answer) => answer,
            Err(refused) => {
                self.world.refusals.record(&id, 0, verb, &refused);
                response(refused.status, &[])
            }
        }
    }

    fn hello(&mut self, index: usize, hello: &Hello) -> Result<Vec<u8>, Refused> {
        let gone = || Refused::new(Status::Gone, "interface", "the connection is gone");
        let mut reply = HelloReply {
            spec_version: SPEC_VERSION,
            reserved: 0,
            session: 0,
            secret: [0; 16],
            backend_version: version_text(VERSION),
        };
        let conn = self.conns.get_mut(index).ok_or_else(gone)?;
        let frontend_version = printable(&hello.frontend_version);
        let major_differs = hello.spec_version >> 16 != SPEC_VERSION >> 16;
        if major_differs || hello.queue_layout != QUEUE_LAYOUT_MASQ {
            let reason = format!("library {frontend_version} and masqd {VERSION} do not agree");
            let refused = Refused::new(Status::Version, "version", reason);
            let id = conn.endpoint.clone();
            self.world.refusals.record(&id, 0, "hello", &refused);
            return Ok(response(Status::Version, reply.as_bytes()));
        }
        let protocol = conn.protocol();
        if !protocol
            .accepted
            .is_some_and(|f| f.contains(Features::REQUIRED))
        {
            return Err(Refused::invalid("features were not agreed on"));
        }
        let memory = protocol
            .memory
            .clone()
            .ok_or(Refused::invalid("no memory was shared"))?;
        let doorbell = protocol.doorbell.clone().ok_or_else(gone)?;
        let kick = protocol
            .vring(ASYNC_EVENT_QUEUE)
            .and_then(|v| v.kick.file())
            .ok_or(Refused::invalid(
                "the asynchronous-event queue is not set up",
            ))?
            .try_clone()
            .map_err(|e| Refused::new(Status::NoMemory, "host", e.to_string()))?;
        drop(protocol);
        let peer = conn.peer.take().ok_or_else(gone)?;
        let id = conn.endpoint.clone();
        let notifier = Arc::clone(&conn.notifier);
        let number = self.world.next_session();
        let label = format!("{id}#{number}");
        let remote = RemoteMemory::open(peer.pidfd.as_fd(), peer.pid, peer.uid)
            .inspect_err(|error| tracing::info!(session = label, %error, "only shared memory"))
            .ok();
        let has_remote = remote.is_some();
        let key = self.world.endpoint_key(&id);
        let gid = self.world.gids(&id).ok_or_else(gone)?.first();
        let spec = SessionSpec {
            grants: crate::session::grants(&self.world.policy, &id),
            label,
            domain: self.world.domain(&id),
            partition: self.world.partition(&id),
            endpoint: key,
            gid,
            doorbell,
            kick: Arc::new(OwnedFd::from(kick)),
            events: Arc::new(Sink(Arc::clone(&notifier))),
            remote,
        };
        let on = self.world.device_of(&id);
        let device = self.world.devices.get(on).open(spec)?;
        let session = Session::new(Opening {
            id: number,
            endpoint: id.clone(),
            peer,
            program: printable(&hello.program),
            frontend_version,
            notifier,
            memory,
            has_remote,
            on,
            device,
        })?;
        (reply.session, reply.secret) = (session.id, session.secret);
        tracing::info!(
            endpoint = %id,
            session = number,
            pid = session.peer.pid,
            program = session.program,
            "session opened"
        );
        if let Some(conn) = self.conns.get_mut(index) {
            conn.role = Role::Session(Box::new(session));
        }
        Ok(response(Status::Ok, reply.as_bytes()))
    }

    fn join(&mut self, index: usize, join: &Join) -> Result<Vec<u8>, Refused> {
        let Some(id) = self.conns.get(index).map(|conn| conn.endpoint.clone()) else {
            return Ok(Vec::new());
        };
        let same = |conn: &&Conn| {
            conn.session().is_some_and(|s| {
                s.id == join.session && s.endpoint == id && equal(&s.secret, &join.secret)
            })
        };
        let mut conns = self.conns.iter().map(|(_, conn)| conn);
        let events = conns
            .find(same)
            .map(|conn| Arc::clone(&conn.events))
            .ok_or_else(|| {
                Refused::new(Status::Denied, "interface", "no such session or secret")
            })?;
        let bases: Vec<u32> = self
            .conns
            .iter()
            .filter(|(_, conn)| Arc::ptr_eq(&conn.events, &events))
            .filter_map(|(_, conn)| match conn.role {
                Role::Joined { base } => Some(base),
                _ => None,
            })
            .collect();
        if join.base == 0 || !join.base.is_multiple_of(256) || bases.contains(&join.base) {
            return Err(Refused::invalid("base is no unused multiple of 256"));
        }
        // No more than a session with all the event queues of the quota needs.
        let most = self.world.policy.quotas(&id).event_queues / QUEUES_OF_JOINED + 1;
        if bases.len() as u64 >= most {
            let reason = format!("{most} connections of the session joined already");
            return Err(Refused::new(Status::NoMemory, "quota event_queues", reason));
        }
        let Some(conn) = self.conns.get_mut(index) else {
            return Ok(Vec::new());
        };
        // The queues that it has set up move to the session's event thread;
        // its control queue does not.
        conn.events = events;
        conn.role = Role::Joined { base: join.base };
        conn.protocol().events = (Arc::clone(&conn.events), join.base);
        for queue in conn.event_queues.clone() {
            if let Some(conn) = self.conns.get(index) {
                conn.notifier.remove_queue(u32::from(queue));
            }
            self.start_events(index, queue)
                .map_err(|reason| Refused::new(Status::Invalid, "interface", reason))?;
        }
        // A joined connection is no further session.
        self.world.ledger.refund(&id, Kind::Sessions, 1);
        Ok(response(Status::Ok, &[]))
    }
}

/// Text of a tenant, without what would command a terminal.
fn printable(text: &VersionText) -> String {
    let keep = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    version_str(text).chars().map(keep).collect()
}

/// Compares in a time that does not depend on where the first difference is.
fn equal(a: &[u8; 16], b: &[u8; 16]) -> bool {
    let differ = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differ) == 0
}
