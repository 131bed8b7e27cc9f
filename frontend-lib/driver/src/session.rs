//! A session with the backend.

use crate::DriverError;
use crate::control::Control;
use crate::doorbell::Doorbell;
use crate::event_queue::EventQueue;
use crate::handshake::{Connection, OUR_VERSION, connect, stop_queue};
use crate::vring::Vring;
use crate::watch::{self, Liveness, Uncancelled};
use masq_spec::command::{MAX_COMMAND_LEN, Opcode, Status};
use masq_spec::device::{
    ASYNC_EVENT_QUEUE, CONTROL_QUEUE, Config, FIRST_EVENT_QUEUE, Features, MAX_QUEUES,
    QUEUE_LAYOUT_MASQ, SPEC_VERSION, version_str, version_text,
};
use masq_spec::verbs::{Handle, Hello, HelloReply, Join};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vhost::VhostBackend as _;
use vhost::vhost_user::Frontend;
use vmm_sys_util::eventfd::EventFd;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

/// Event queues that a session keeps started without use; they count in its quota.
const MOST_SPARE: u32 = 16;

/// An open session; closing it (drop) frees all that the backend holds for it.
pub struct Session {
    /// The connection that opened the session, and those that joined it.
    links: Mutex<Vec<Link>>,
    path: PathBuf,
    /// What lets a connection join.
    ticket: HelloReply,
    control: Control,
    alive: Arc<Liveness>,
    doorbell: Doorbell,
    async_events: Arc<EventQueue>,
    /// Event queues that are started and not used.
    spare: Mutex<Vec<Arc<EventQueue>>>,
    /// What those are signalled by: nobody reads it.
    nobody: Arc<EventFd>,
    /// The kick of all further event queues: a device that waits for it looks at each.
    channel_kick: Arc<EventFd>,
    config: Config,
    features: Features,
}

impl Session {
    /// Connects to the endpoint's socket and opens a session.
    ///
    /// # Errors
    /// [`DriverError::Version`] if the sides cannot talk; else what failed.
    pub fn open(path: &Path) -> Result<Self, DriverError> {
        let _whole = Uncancelled::new();
        let mut connection = connect(path)?;
        let features = connection.negotiate()?;
        let alive = Liveness::new(connection.socket.try_clone()?.into())?;
        let control = Control::new(Arc::clone(&alive))?;
        let async_events = Arc::new(EventQueue::new(
            ASYNC_EVENT_QUEUE.into(),
            Arc::clone(&alive),
            Vring::new_kick()?,
        )?);
        // The kick of the event queue is the doorbell's: that of the control queue is
        // for commands only.
        let kick = async_events.with_ring(|ring| Arc::clone(&ring.kick));
        let doorbell = connection.doorbell(kick)?;
        let Connection {
            mut frontend,
            config,
            ..
        } = connection;
        control.with_ring(|r| Connection::start_queue(&mut frontend, CONTROL_QUEUE, r))?;
        async_events.with_ring(|r| Connection::start_queue(&mut frontend, ASYNC_EVENT_QUEUE, r))?;
        let ticket = hello(&control)?;
        let session = Self {
            links: Mutex::new(vec![Link::new(frontend, &config)]),
            path: path.to_owned(),
            ticket,
            control,
            alive,
            doorbell,
            async_events,
            spare: Mutex::default(),
            nobody: Vring::new_call()?,
            channel_kick: Vring::new_kick()?,
            config,
            features,
        };
        session.alive.wakes(&session.async_events);
        watch::start(&session.alive)?;
        Ok(session)
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
    /// NoMemory when the tenant's quota is exhausted.
    pub fn open_event_queue(&self) -> Result<Arc<EventQueue>, DriverError> {
        if !self.alive.is_ours() || self.alive.is_gone() {
            return Err(DriverError::Gone);
        }
        let _whole = Uncancelled::new();
        let spare = self.spare().pop();
        if let Some(queue) = spare {
            // A started ring is never dropped: the device still knows its memory.
            let successor = Vring::new_call().and_then(|call| self.succeed(&queue, call));
            return successor.inspect_err(|_| self.spare().push(queue));
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |links: &mut Vec<Link>| {
            let mut all = links.iter_mut().enumerate();
            all.find_map(|(link, l)| l.take().map(|index| (link, index)))
        };
        let (link, index) = match free(&mut links) {
            Some(place) => place,
            None => {
                self.join(&mut links)?;
                free(&mut links).ok_or(DriverError::Refused(Status::NoMemory))?
            }
        };
        let name = (link * MAX_QUEUES) as u32 + u32::from(index);
        let link = &mut links[link];
        let started = EventQueue::new(
            name,
            Arc::clone(&self.alive),
            Arc::clone(&self.channel_kick),
        )
        .and_then(|queue| {
            queue.with_ring(|ring| Connection::start_queue(&mut link.frontend, index, ring))?;
            let queue = Arc::new(queue);
            self.alive.wakes(&queue);
            Ok(queue)
        });
        started.inspect_err(|_| link.release(index))
    }

    /// Adds a connection for further event queues.
    fn join(&self, links: &mut Vec<Link>) -> Result<(), DriverError> {
        let mut connection = connect(&self.path)?;
        connection.negotiate()?;
        let alive = Liveness::new(connection.socket.try_clone()?.into())?;
        let control = Control::new(alive)?;
        let Connection {
            mut frontend,
            config,
            ..
        } = connection;
        control.with_ring(|r| Connection::start_queue(&mut frontend, CONTROL_QUEUE, r))?;
        let join = Join {
            session: self.ticket.session,
            secret: self.ticket.secret,
            base: links.len() as u32 * MAX_QUEUES as u32,
            reserved: 0,
        };
        let answer = control.call(Opcode::Join, &[join.as_bytes()], &mut [])?;
        if answer.status != Status::Ok {
            return Err(DriverError::Refused(answer.status));
        }
        let mut link = Link::new(frontend, &config);
        link.control = Some(control);
        links.push(link);
        Ok(())
    }

    /// Keeps the ring of a queue that is no longer used for the next that is wanted: to
    /// stop one and start another takes eight messages, to give it another descriptor one.
    fn put_aside(&self, queue: &Arc<EventQueue>) -> bool {
        let most = (self.config.max_event_queues / 8).min(MOST_SPARE) as usize;
        if self.spare().len() >= most {
            return false;
        }
        let Ok(successor) = self.succeed(queue, Arc::clone(&self.nobody)) else {
            return false;
        };
        self.spare().push(successor);
        true
    }

    /// Gives a started ring another descriptor.
    fn succeed(
        &self,
        queue: &Arc<EventQueue>,
        call: Arc<EventFd>,
    ) -> Result<Arc<EventQueue>, DriverError> {
        let (link, index) = place(queue.name());
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.get_mut(link).ok_or(DriverError::Gone)?;
        link.frontend.set_vring_call(index.into(), &call)?;
        drop(links);
        let successor = Arc::new(queue.successor(call));
        self.alive.forgets(queue);
        self.alive.wakes(&successor);
        Ok(successor)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Arc<EventQueue>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the use of an event queue, whose CQs or ids are destroyed.
    ///
    /// # Errors
    /// A backend that is gone.
    pub fn close_event_queue(&self, queue: &Arc<EventQueue>) -> Result<(), DriverError> {
        if !self.alive.is_ours() {
            return Err(DriverError::Gone);
        }
        let _whole = Uncancelled::new();
        if !self.is_gone() && self.put_aside(queue) {
            return Ok(());
        }
        self.stop_event_queue(queue)
    }

    /// Stops an event queue for good, so that its descriptor is used no more.
    ///
    /// # Errors
    /// A backend that is gone.
    pub fn stop_event_queue(&self, queue: &EventQueue) -> Result<(), DriverError> {
        if !self.alive.is_ours() {
            return Err(DriverError::Gone);
        }
        let _whole = Uncancelled::new();
        let (link, index) = place(queue.name());
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.get_mut(link).ok_or(DriverError::Gone)?;
        stop_queue(&mut link.frontend, index)?;
        self.alive.forgets(queue);
        link.release(index);
        Ok(())
    }
}

/// One connection of a session.
struct Link {
    frontend: Frontend,
    /// Event queues in use, by index.
    queues: Vec<bool>,
    /// Of a connection that joined; it served one command.
    control: Option<Control>,
}

impl Link {
    fn new(frontend: Frontend, config: &Config) -> Self {
        let first = usize::from(FIRST_EVENT_QUEUE);
        let last = (config.max_event_queues as usize)
            .saturating_add(first)
            .min(MAX_QUEUES);
        Self {
            frontend,
            queues: (0..last).map(|index| index < first).collect(),
            control: None,
        }
    }

    /// Takes a free index.
    fn take(&mut self) -> Option<u8> {
        let free = self.queues.iter_mut().enumerate().find(|(_, used)| !**used);
        free.map(|(index, used)| {
            *used = true;
            index as u8
        })
    }

    fn release(&mut self, index: u8) {
        if let Some(used) = self.queues.get_mut(usize::from(index)) {
            *used = false;
        }
    }
}

/// The connection and index of an event queue by its name in commands.
fn place(name: u32) -> (usize, u8) {
    let queues = MAX_QUEUES as u32;
    ((name / queues) as usize, (name % queues) as u8)
}

/// Opens the session; the answer lets further connections join it.
fn hello(control: &Control) -> Result<HelloReply, DriverError> {
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
    let answer = control.call(Opcode::Hello, &[hello.as_bytes()], reply.as_mut_bytes())?;
    match answer.status {
        Status::Ok => Ok(reply),
        Status::Version => Err(DriverError::Version {
            ours: OUR_VERSION.to_owned(),
            theirs: version_str(&reply.backend_version),
        }),
        status => Err(DriverError::Refused(status)),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.alive.is_ours() {
            return;
        }
        let _whole = Uncancelled::new();
        self.alive.stop();
        // The rings' memory is freed with the session, and may be another's at once: the
        // backend must have let go of them.
        let spare = std::mem::take(&mut *self.spare());
        for queue in &spare {
            if self.stop_event_queue(queue).is_err() {
                return;
            }
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, link) in links.iter_mut().enumerate() {
            let last = if number == 0 {
                ASYNC_EVENT_QUEUE
            } else {
                CONTROL_QUEUE
            };
            for index in CONTROL_QUEUE..=last {
                if stop_queue(&mut link.frontend, index).is_err() {
                    return;
                }
            }
        }
    }
}
