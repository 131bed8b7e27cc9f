//! A session with the backend.

use crate::control::Control;
use crate::doorbell::Doorbell;
use crate::event_queue::EventQueue;
use crate::handshake::{Connection, OUR_VERSION, connect};
use crate::watch::{self, Liveness};
use crate::{DriverError, handshake};
use masq_spec::command::{MAX_COMMAND_LEN, Opcode, Status};
use masq_spec::device::{
    ASYNC_EVENT_QUEUE, CONTROL_QUEUE, Config, FIRST_EVENT_QUEUE, Features, QUEUE_LAYOUT_MASQ,
    SPEC_VERSION, version_str, version_text,
};
use masq_spec::verbs::{Handle, Hello, HelloReply};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use vhost::VhostBackend as _;
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

/// An open session; closing it (drop) frees all that the backend holds for it.
pub struct Session {
    frontend: Mutex<Frontend>,
    control: Control,
    alive: Arc<Liveness>,
    doorbell: Doorbell,
    async_events: Arc<EventQueue>,
    /// Event queues in use, by index.
    queues: Mutex<Vec<bool>>,
    config: Config,
    features: Features,
}

impl Session {
    /// Connects to the endpoint's socket and opens a session.
    ///
    /// # Errors
    /// [`DriverError::Version`] if the sides cannot talk; else what failed.
    pub fn open(path: &Path) -> Result<Self, DriverError> {
        let mut connection = connect(path)?;
        let features = connection.negotiate()?;
        let alive = Liveness::new(connection.socket.try_clone()?.into())?;
        let control = Control::new(Arc::clone(&alive))?;
        let kick = control.with_ring(|ring| ring.kick.try_clone())?;
        let doorbell = connection.doorbell(Arc::new(kick))?;
        let async_events = Arc::new(EventQueue::new(ASYNC_EVENT_QUEUE, Arc::clone(&alive))?);
        let Connection {
            mut frontend,
            config,
            ..
        } = connection;
        control.with_ring(|r| Connection::start_queue(&mut frontend, CONTROL_QUEUE, r))?;
        async_events.with_ring(|r| Connection::start_queue(&mut frontend, ASYNC_EVENT_QUEUE, r))?;
        let last = (config.max_event_queues as usize + 2).min(256);
        let session = Self {
            frontend: Mutex::new(frontend),
            control,
            alive,
            doorbell,
            async_events,
            queues: Mutex::new(
                (0..last)
                    .map(|i| i < usize::from(FIRST_EVENT_QUEUE))
                    .collect(),
            ),
            config,
            features,
        };
        session.hello()?;
        session
            .async_events
            .with_ring(|r| session.alive.wakes(&r.call))?;
        watch::start(&session.alive)?;
        Ok(session)
    }

    fn hello(&self) -> Result<(), DriverError> {
        let mut program = [0; 32];
        let name = std::env::current_exe().unwrap_or_default();
        let name = name.file_name().unwrap_or_default().as_encoded_bytes();
        for (to, from) in program.iter_mut().zip(name) {
            *to = *from;
        }
        let hello = Hello {
            spec_version: SPEC_VERSION,
            queue_layout: QUEUE_LAYOUT_MASQ,
            frontend_version: version_text(OUR_VERSION),
            program,
        };
        let mut reply = HelloReply::new_zeroed();
        let answer = self
            .control
            .call(Opcode::Hello, &[hello.as_bytes()], reply.as_mut_bytes())?;
        match answer.status {
            Status::Ok => Ok(()),
            Status::Version => Err(DriverError::Version {
                ours: handshake::OUR_VERSION.to_owned(),
                theirs: version_str(&reply.backend_version),
            }),
            status => Err(DriverError::Refused(status)),
        }
    }

    /// The configuration space.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The features that both sides accepted.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Whether the backend hung up.
    pub fn is_gone(&self) -> bool {
        self.alive.is_gone()
    }

    /// The doorbell page.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// The queue of asynchronous events.
    pub fn async_events(&self) -> &Arc<EventQueue> {
        &self.async_events
    }

    /// Sends a command with body `request` and reads a body of type `R`.
    ///
    /// # Errors
    /// [`DriverError::Refused`] with the status, if it is not OK.
    pub fn command<Q, R>(&self, opcode: Opcode, request: &Q) -> Result<R, DriverError>
    where
        Q: IntoBytes + Immutable + ?Sized,
        R: FromBytes + IntoBytes,
    {
        self.command_parts(opcode, &[request.as_bytes()])
    }

    /// Destroys the object with this handle. An object of a session that is gone, or of
    /// the parent of a forked process, is gone already.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn destroy(&self, opcode: Opcode, handle: u32) -> Result<(), DriverError> {
        let request = Handle {
            handle,
            reserved: 0,
        };
        match self.command(opcode, &request) {
            Err(DriverError::Gone) => Ok(()),
            other => other,
        }
    }

    /// As [`Session::command`], the body made of several parts.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn command_parts<R>(&self, opcode: Opcode, parts: &[&[u8]]) -> Result<R, DriverError>
    where
        R: FromBytes + IntoBytes,
    {
        let mut response = R::new_zeroed();
        let answer = self.control.call(opcode, parts, response.as_mut_bytes())?;
        match answer.status {
            Status::Ok if answer.len < size_of::<R>() => {
                Err(DriverError::Unfit("answered with too short a response"))
            }
            Status::Ok => Ok(response),
            status => Err(DriverError::Refused(status)),
        }
    }

    /// As [`Session::command`], for answers of varying length.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn command_bytes(&self, opcode: Opcode, request: &[u8]) -> Result<Vec<u8>, DriverError> {
        let mut bytes = vec![0; MAX_COMMAND_LEN];
        let answer = self.control.call(opcode, &[request], &mut bytes)?;
        match answer.status {
            Status::Ok => {
                bytes.truncate(answer.len);
                Ok(bytes)
            }
            status => Err(DriverError::Refused(status)),
        }
    }

    /// Sets up an event queue for a completion channel.
    ///
    /// # Errors
    /// NoMemory when all that the backend allows are in use.
    pub fn open_event_queue(&self) -> Result<Arc<EventQueue>, DriverError> {
        if !self.alive.is_ours() || self.alive.is_gone() {
            return Err(DriverError::Gone);
        }
        let index = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            let free = queues.iter().position(|used| !used);
            let index = free.ok_or(DriverError::Refused(Status::NoMemory))?;
            queues[index] = true;
            index as u8
        };
        self.start_event_queue(index)
            .inspect_err(|_| self.release(index))
    }

    fn start_event_queue(&self, index: u8) -> Result<Arc<EventQueue>, DriverError> {
        let queue = EventQueue::new(index, Arc::clone(&self.alive))?;
        let mut frontend = self.frontend.lock().unwrap_or_else(PoisonError::into_inner);
        queue.with_ring(|ring| Connection::start_queue(&mut frontend, index, ring))?;
        queue.with_ring(|ring| self.alive.wakes(&ring.call))?;
        Ok(Arc::new(queue))
    }

    /// Stops an event queue, whose CQs are destroyed.
    ///
    /// # Errors
    /// A backend that is gone.
    pub fn close_event_queue(&self, queue: &EventQueue) -> Result<(), DriverError> {
        if !self.alive.is_ours() {
            return Err(DriverError::Gone);
        }
        {
            let mut frontend = self.frontend.lock().unwrap_or_else(PoisonError::into_inner);
            stop_queue(&mut frontend, queue.index())?;
        }
        queue.with_ring(|ring| self.alive.forgets(&ring.call));
        self.release(queue.index());
        Ok(())
    }

    fn release(&self, index: u8) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = queues.get_mut(usize::from(index)) {
            *used = false;
        }
    }
}

/// Has the backend let go of a queue; it has when it answers.
fn stop_queue(frontend: &mut Frontend, index: u8) -> Result<(), DriverError> {
    frontend.set_vring_enable(index.into(), false)?;
    frontend.get_vring_base(index.into())?;
    Ok(())
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.alive.is_ours() {
            return;
        }
        self.alive.stop();
        // The rings' memory is freed with the session: the backend must have let go of
        // them, or it would take the zeros that it finds for a damaged ring.
        let mut frontend = self.frontend.lock().unwrap_or_else(PoisonError::into_inner);
        for index in [CONTROL_QUEUE, ASYNC_EVENT_QUEUE] {
            if stop_queue(&mut frontend, index).is_err() {
                break;
            }
        }
    }
}
