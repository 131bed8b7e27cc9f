//! One event channel: its commands, and the counts of its descriptor.
//!
//! # Counts
//! The device counts an event up on the channel's descriptor when it raises it (one that
//! a command raises on its own channel is counted here); a reader
//! counts it down and asks for the oldest event. Events that end with their id leave
//! void counts. They are fungible: any count may be taken back for any event that was
//! dropped. There are as many counts, waiting or taken by readers, as events that wait and
//! void counts together. So a reader that finds no event has used up a void count; it says
//! that it holds one while the device is asked, because meanwhile nobody may take one back.

use crate::abi::*;
use crate::caller::Caller;
use crate::decode::{Command, Place, Question};
use crate::{CmError, encode};
use masq_driver::DriverError;
use masq_spec::command::Opcode;
use masq_spec::verbs::*;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// How long the end of an id waits for counts that another thread of the device is about
/// to signal. What comes later is left to the reader.
const PATIENCE: Duration = Duration::from_millis(50);
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(50);

/// The device, as far as one channel needs it.
pub(crate) trait Device {
    /// Name of the channel's event queue in commands.
    fn name(&self) -> u32;
    /// In network order.
    fn node_guid(&self) -> u64;
    /// Whether ids can move between the two.
    fn is_same_session(&self, other: &Self) -> bool;
    /// Fails when the device is gone, or the channel is the parent's of a forked process.
    fn alive(&self) -> Result<(), DriverError>;
    /// Sends a command.
    fn command<R: FromBytes + IntoBytes>(
        &self,
        opcode: Opcode,
        parts: &[&[u8]],
    ) -> Result<R, DriverError>;
    /// Removes the entry of a count that was taken from the descriptor; false if the
    /// device has not written it yet.
    fn taken(&self) -> Result<bool, DriverError>;
    /// Counts events up that the device did not signal.
    fn raise(&self, count: u32);
    /// Takes up to that many counts back, now; how many.
    fn take_back(&self, count: u32) -> u32;
}

#[derive(Debug, Default)]
struct Counts {
    /// Dropped events that were told, less void counts that were used up. Below zero
    /// for the moment between a reader's finding and the telling.
    void: i64,
    /// Readers that took a count and do not know yet what it was for.
    holders: u32,
}

/// What the device told last of one id, kept until that id's next command or event:
/// librdmacm asks for the same things again and again.
#[derive(Debug, Default)]
struct Told {
    id: u32,
    route: Option<CmRoute>,
    attrs: CmQpAttrs,
}

/// A channel.
pub(crate) struct Channel<D> {
    device: D,
    counts: Mutex<Counts>,
    told: Mutex<Told>,
}

/// What is left to do for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is answered.
    Done,
    /// Take a count from the descriptor, then [`Channel::collect`].
    Wait(Place),
}

impl<D: Device> Channel<D> {
    pub(crate) fn new(device: D) -> Self {
        Self {
            device,
            counts: Mutex::new(Counts::default()),
            told: Mutex::new(Told::default()),
        }
    }

    pub(crate) fn device(&self) -> &D {
        &self.device
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self, id: u32) -> CmTarget {
        CmTarget {
            channel: self.device.name(),
            id,
        }
    }

    fn ask<Q, R>(&self, opcode: Opcode, request: &Q) -> Result<R, CmError>
    where
        Q: IntoBytes + Immutable,
        R: FromBytes + IntoBytes,
    {
        Ok(self.device.command(opcode, &[request.as_bytes()])?)
    }

    /// Sends a command whose answer tells of events that it raised at once.
    fn raising<Q: IntoBytes + Immutable>(
        &self,
        opcode: Opcode,
        request: &Q,
    ) -> Result<(), CmError> {
        let raised = self.ask(opcode, request)?;
        self.count_raised(&raised);
        Ok(())
    }

    /// The device does not signal these: they are counted here.
    fn count_raised(&self, raised: &CmRaised) {
        self.device.raise(raised.events);
    }

    fn number(&self, opcode: Opcode, id: u32, number: u32) -> Result<(), CmError> {
        let request = CmNumber {
            target: self.target(id),
            number,
            reserved: 0,
        };
        self.raising(opcode, &request)
    }

    /// Executes a command. `other` finds the channel that MIGRATE_ID takes the id from.
    pub(crate) fn execute<'a>(
        &self,
        command: &Command,
        caller: Caller,
        other: impl FnOnce(i32) -> Result<&'a Self, CmError>,
    ) -> Result<Next, CmError>
    where
        D: 'a,
    {
        if !matches!(
            command,
            Command::QueryRoute { .. } | Command::Query { .. } | Command::InitQpAttr { .. }
        ) {
            *self.told() = Told::default();
        }
        match command {
            Command::CreateId {
                response,
                uid,
                port_space,
                qp_type,
            } => {
                caller.check(response.address, size_of::<rdma_ucm_create_id_resp>())?;
                let request = CmCreateId {
                    channel: self.device.name(),
                    port_space: *port_space,
                    qp_type: *qp_type,
                    reserved: 0,
                    uid: *uid,
                };
                let created: Created = self.ask(Opcode::CmCreateId, &request)?;
                let id = created.handle;
                respond(caller, *response, &rdma_ucm_create_id_resp { id })?;
            }
            Command::DestroyId { response, id } => {
                self.end(Opcode::CmDestroyId, *response, *id, caller)?;
            }
            Command::Leave { response, id } => {
                self.end(Opcode::CmLeave, *response, *id, caller)?;
            }
            Command::Bind { id, address } => {
                let request = CmBind {
                    target: self.target(*id),
                    address: *address,
                };
                self.raising(Opcode::CmBind, &request)?;
            }
            Command::ResolveAddr {
                id,
                source,
                destination,
                timeout_ms,
            } => {
                let request = CmResolve {
                    target: self.target(*id),
                    source: *source,
                    destination: *destination,
                    timeout_ms: *timeout_ms,
                    reserved: 0,
                };
                self.raising(Opcode::CmResolveAddr, &request)?;
            }
            Command::ResolveRoute { id, timeout_ms } => {
                self.number(Opcode::CmResolveRoute, *id, *timeout_ms)?;
            }
            Command::QueryRoute { response, id } => {
                let route = encode::route(&self.route(*id)?, self.device.node_guid());
                respond(caller, *response, &route)?;
            }
            Command::Query {
                response,
                id,
                question,
            } => self.query(*response, *id, *question, caller)?,
            Command::Connect { id, param } => {
                let request = CmConnect {
                    target: self.target(*id),
                    param: *param,
                };
                self.raising(Opcode::CmConnect, &request)?;
            }
            Command::Listen { id, backlog } => self.number(Opcode::CmListen, *id, *backlog)?,
            Command::Accept { id, uid, param } => {
                let request = CmAccept {
                    target: self.target(*id),
                    uid: *uid,
                    has_param: param.is_some().into(),
                    reserved: 0,
                    param: param.unwrap_or_else(zerocopy::FromZeros::new_zeroed),
                };
                self.raising(Opcode::CmAccept, &request)?;
            }
            Command::Reject {
                id,
                reason,
                private_len,
                private_data,
            } => {
                let request = CmReject {
                    target: self.target(*id),
                    reason: *reason,
                    private_len: *private_len,
                    reserved: [0; 6],
                    private_data: *private_data,
                };
                self.raising(Opcode::CmReject, &request)?;
            }
            Command::Disconnect { id } => {
                self.raising(Opcode::CmDisconnect, &self.target(*id))?;
            }
            Command::InitQpAttr {
                response,
                id,
                qp_state,
            } => {
                let attr = self.qp_attr(*id, *qp_state)?;
                respond(caller, *response, &encode::qp_attr(&attr))?;
            }
            Command::GetEvent { response } => {
                self.device.alive()?;
                let len = usize::from(response.room).min(size_of::<rdma_ucm_event_resp>());
                caller.check(response.address, len)?;
                // Counts that came too late for the end of their id.
                self.settle();
                return Ok(Next::Wait(*response));
            }
            Command::SetOption {
                id,
                level,
                name,
                value,
                len,
            } => {
                let mut bytes = [0; MAX_OPTION];
                let bytes = bytes
                    .get_mut(..*len as usize)
                    .ok_or(CmError::Malformed("length of an option"))?;
                caller.read(*value, bytes)?;
                let request = CmOption {
                    target: self.target(*id),
                    level: *level,
                    name: *name,
                    len: *len,
                    reserved: 0,
                };
                let parts = [request.as_bytes(), bytes];
                self.count_raised(&self.device.command(Opcode::CmSetOption, &parts)?);
            }
            Command::Notify { id, event } => self.number(Opcode::CmNotify, *id, *event)?,
            Command::Join {
                response,
                uid,
                id,
                group,
                flags,
            } => {
                caller.check(response.address, size_of::<rdma_ucm_create_id_resp>())?;
                let request = CmJoin {
                    target: self.target(*id),
                    uid: *uid,
                    group: *group,
                    flags: *flags,
                    reserved: 0,
                };
                let created: Created = self.ask(Opcode::CmJoin, &request)?;
                let id = created.handle;
                respond(caller, *response, &rdma_ucm_create_id_resp { id })?;
            }
            Command::Migrate { response, id, fd } => {
                caller.check(response.address, size_of::<rdma_ucm_migrate_resp>())?;
                let from = other(*fd)?;
                if !self.device.is_same_session(&from.device) {
                    return Err(DriverError::Gone.into());
                }
                let request = CmNumber {
                    target: from.target(*id),
                    number: self.device.name(),
                    reserved: 0,
                };
                let moved: CmEnded = self.ask(Opcode::CmMigrate, &request)?;
                from.drop_counts(moved.dropped);
                let events_reported = moved.reported;
                respond(
                    caller,
                    *response,
                    &rdma_ucm_migrate_resp { events_reported },
                )?;
            }
        }
        Ok(Next::Done)
    }

    fn route(&self, id: u32) -> Result<CmRoute, CmError> {
        let told = self.told();
        if let Some(route) = told.route.filter(|_| told.id == id) {
            return Ok(route);
        }
        drop(told);
        self.ask(Opcode::CmQuery, &self.target(id))
    }

    fn qp_attr(&self, id: u32, state: u32) -> Result<CmQpAttr, CmError> {
        let told = self.told();
        if let Some(attr) = told.attrs.get(state).filter(|_| told.id == id) {
            return Ok(*attr);
        }
        drop(told);
        let request = CmNumber {
            target: self.target(id),
            number: state,
            reserved: 0,
        };
        let attrs: CmQpAttrs = self.ask(Opcode::CmQpAttr, &request)?;
        let mut told = self.told();
        if told.id != id {
            *told = Told::default();
        }
        (told.id, told.attrs) = (id, attrs);
        let missing = DriverError::Unfit("did not answer what was asked");
        Ok(*attrs.get(state).ok_or(missing)?)
    }

    fn query(
        &self,
        response: Place,
        id: u32,
        question: Question,
        caller: Caller,
    ) -> Result<(), CmError> {
        let route = self.route(id)?;
        let guid = self.device.node_guid();
        match question {
            Question::Addresses => respond(caller, response, &encode::addresses(&route, guid)),
            Question::Gids => respond(caller, response, &encode::gids(&route, guid)),
            Question::Paths => {
                let (head, record) = encode::paths(&route);
                respond(caller, response, &head)?;
                let room = usize::from(response.room).saturating_sub(size_of_val(&head));
                match record.filter(|record| size_of_val(record) <= room) {
                    Some(record) => caller.write(
                        response.address.wrapping_add(size_of_val(&head) as u64),
                        record.as_bytes(),
                    ),
                    None => Ok(()),
                }
            }
        }
    }

    /// DESTROY_ID and LEAVE_MCAST.
    fn end(&self, opcode: Opcode, response: Place, id: u32, caller: Caller) -> Result<(), CmError> {
        caller.check(response.address, size_of::<rdma_ucm_destroy_id_resp>())?;
        let ended: CmEnded = self.ask(opcode, &self.target(id))?;
        self.drop_counts(ended.dropped);
        let events_reported = ended.reported;
        respond(
            caller,
            response,
            &rdma_ucm_destroy_id_resp { events_reported },
        )
    }

    /// Takes counts back that are void now, so that nobody is woken for nothing.
    fn drop_counts(&self, dropped: u32) {
        if dropped == 0 {
            return;
        }
        self.counts().void += i64::from(dropped);
        let end = Instant::now() + PATIENCE;
        while !self.settle() && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes back what can be now; true if nothing is void any more.
    fn settle(&self) -> bool {
        let mut counts = self.counts();
        let due = u32::try_from(counts.void).unwrap_or(0);
        if due > 0 && counts.holders == 0 {
            counts.void -= i64::from(self.device.take_back(due));
        }
        counts.void <= 0
    }

    /// Gives out the oldest event for a count that was taken; false if there is none, and
    /// another count is to be waited for.
    pub(crate) fn collect(&self, response: Place, caller: Caller) -> Result<bool, CmError> {
        if !self.device.taken()? {
            return Ok(false);
        }
        self.counts().holders += 1;
        let answer: Result<CmEvent, CmError> = self.ask(Opcode::CmGetEvent, &self.target(0));
        let mut counts = self.counts();
        counts.holders -= 1;
        let event = answer?;
        if event.event == CM_NO_EVENT {
            counts.void -= 1;
            return Ok(false);
        }
        drop(counts);
        *self.told() = Told {
            id: event.id,
            route: Some(event.route),
            attrs: CmQpAttrs::default(),
        };
        respond(caller, response, &encode::event(&event))?;
        Ok(true)
    }
}

/// Writes as much of a response as the caller has room for.
fn respond<T: IntoBytes + Immutable>(
    caller: Caller,
    place: Place,
    response: &T,
) -> Result<(), CmError> {
    let bytes = response.as_bytes();
    let bytes = bytes.get(..usize::from(place.room)).unwrap_or(bytes);
    caller.write(place.address, bytes)
}

#[cfg(test)]
mod tests;
