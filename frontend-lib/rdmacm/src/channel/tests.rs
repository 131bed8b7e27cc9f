use super::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use zerocopy::FromZeros as _;

/// A device whose answers are set in advance.
#[derive(Default)]
struct Fake {
    /// Answers by order; an error is a status.
    answers: RefCell<VecDeque<Result<Vec<u8>, masq_spec::command::Status>>>,
    /// Commands that came.
    asked: RefCell<Vec<(Opcode, Vec<u8>)>>,
    /// Counts that wait on the descriptor.
    waiting: std::cell::Cell<u32>,
}

impl Device for Fake {
    fn name(&self) -> u32 {
        300
    }
    fn node_guid(&self) -> u64 {
        77
    }
    fn is_same_session(&self, _other: &Self) -> bool {
        true
    }
    fn alive(&self) -> Result<(), DriverError> {
        Ok(())
    }
    fn command<R: FromBytes + IntoBytes>(
        &self,
        opcode: Opcode,
        parts: &[&[u8]],
    ) -> Result<R, DriverError> {
        self.asked.borrow_mut().push((opcode, parts.concat()));
        let answer = self.answers.borrow_mut().pop_front().expect("an answer");
        let bytes = answer.map_err(DriverError::Refused)?;
        let mut value = R::new_zeroed();
        value.as_mut_bytes().copy_from_slice(&bytes);
        Ok(value)
    }
    fn taken(&self) -> Result<bool, DriverError> {
        Ok(true)
    }
    fn raise(&self, count: u32) {
        self.waiting.set(self.waiting.get() + count);
    }
    fn take_back(&self, count: u32) -> u32 {
        let taken = count.min(self.waiting.get());
        self.waiting.set(self.waiting.get() - taken);
        taken
    }
}

impl Fake {
    fn will(&self, answer: impl IntoBytes + Immutable) {
        let bytes = answer.as_bytes().to_vec();
        self.answers.borrow_mut().push_back(Ok(bytes));
    }
}

fn channel() -> Channel<Fake> {
    Channel::new(Fake::default())
}

fn caller() -> Caller {
    let marker = 0u8;
    Caller::new((&raw const marker) as u64)
}

fn place<T>(to: &mut T) -> Place {
    Place {
        address: std::ptr::from_mut(to) as u64,
        room: size_of::<T>() as u16,
    }
}

fn run(channel: &Channel<Fake>, command: &Command) -> Result<Next, i32> {
    channel
        .execute(command, caller(), |_| Err(CmError::NoDescriptor))
        .map_err(|error| error.errno())
}

fn ended(reported: u32, dropped: u32) -> CmEnded {
    CmEnded { reported, dropped }
}

#[test]
fn an_id_is_created_under_the_channels_name_and_its_number_is_returned() {
    let channel = channel();
    channel.device.will(Created {
        handle: 9,
        reserved: 0,
    });
    let mut id = Box::new(0u32);
    let command = Command::CreateId {
        response: place(&mut *id),
        uid: 5,
        port_space: 0x106,
        qp_type: 2,
    };
    assert_eq!(run(&channel, &command), Ok(Next::Done));
    assert_eq!(*id, 9);
    let asked = channel.device.asked.borrow();
    let (create, _) = CmCreateId::read_from_prefix(&asked[0].1).unwrap();
    assert_eq!((create.channel, create.uid), (300, 5));
}

#[test]
fn a_response_pointer_that_leads_nowhere_is_found_before_the_device_is_asked() {
    let channel = channel();
    let response = Place {
        address: 64,
        room: 400,
    };
    for command in [
        Command::CreateId {
            response,
            uid: 0,
            port_space: 0x106,
            qp_type: 2,
        },
        Command::DestroyId { response, id: 1 },
        Command::Leave { response, id: 1 },
        Command::GetEvent { response },
        Command::Migrate {
            response,
            id: 1,
            fd: 0,
        },
        Command::SetOption {
            id: 1,
            level: 0,
            name: 0,
            value: 64,
            len: 4,
        },
    ] {
        assert_eq!(run(&channel, &command), Err(libc::EFAULT), "{command:?}");
    }
    assert!(channel.device.asked.borrow().is_empty());
}

#[test]
fn a_refusal_is_the_errno_of_its_status() {
    use masq_spec::command::Status;
    let channel = channel();
    for status in [Status::AddressInUse, Status::NoSuchObject, Status::Denied] {
        channel.device.answers.borrow_mut().push_back(Err(status));
        let answer = run(&channel, &Command::Listen { id: 1, backlog: 2 });
        assert_eq!(answer, Err(status.errno()));
    }
}

#[test]
fn events_that_a_command_raises_on_its_own_channel_are_counted_here() {
    let channel = channel();
    for events in [1, 0, 2] {
        channel.device.will(CmRaised {
            events,
            reserved: 0,
        });
        let command = Command::ResolveRoute {
            id: 1,
            timeout_ms: 1,
        };
        assert_eq!(run(&channel, &command), Ok(Next::Done));
    }
    assert_eq!(channel.device.waiting.get(), 3);
}

#[test]
fn counts_of_dropped_events_are_taken_back_with_the_id() {
    let channel = channel();
    channel.device.waiting.set(5);
    channel.device.will(ended(4, 3));
    let mut reported = Box::new(0u32);
    let command = Command::DestroyId {
        response: place(&mut *reported),
        id: 1,
    };
    run(&channel, &command).unwrap();
    assert_eq!((*reported, channel.device.waiting.get()), (4, 2));
}

#[test]
fn a_count_that_comes_too_late_is_taken_back_by_the_next_reader() {
    let channel = channel();
    channel.device.will(ended(0, 1));
    let mut reported = Box::new(0u32);
    let command = Command::DestroyId {
        response: place(&mut *reported),
        id: 1,
    };
    run(&channel, &command).unwrap();
    assert_eq!(channel.counts().void, 1);
    channel.device.waiting.set(1);
    let mut event = Box::new([0u8; 336]);
    let response = place(&mut *event);
    let command = Command::GetEvent { response };
    assert_eq!(run(&channel, &command), Ok(Next::Wait(response)));
    assert_eq!(
        (channel.counts().void, channel.device.waiting.get()),
        (0, 0)
    );
}

#[test]
fn a_reader_that_finds_no_event_has_used_up_a_void_count_even_before_it_is_told() {
    let channel = channel();
    let mut none = CmEvent::new_zeroed();
    none.event = CM_NO_EVENT;
    channel.device.will(none);
    let mut event = Box::new([0u8; 336]);
    let response = place(&mut *event);
    assert!(!channel.collect(response, caller()).unwrap());
    // The count of a live event must not pay for the one that the reader took.
    channel.device.waiting.set(1);
    channel.device.will(ended(0, 1));
    let mut reported = Box::new(0u32);
    let command = Command::DestroyId {
        response: place(&mut *reported),
        id: 1,
    };
    run(&channel, &command).unwrap();
    assert_eq!(
        (channel.counts().void, channel.device.waiting.get()),
        (0, 1)
    );
}

#[test]
fn nothing_is_taken_back_while_a_reader_holds_a_count() {
    let channel = channel();
    channel.device.waiting.set(1);
    *channel.counts() = Counts {
        void: 1,
        holders: 1,
    };
    assert!(!channel.settle());
    channel.counts().holders = 0;
    assert!(channel.settle());
    assert_eq!(channel.device.waiting.get(), 0);
}

#[test]
fn an_event_is_written_as_far_as_an_older_caller_has_room() {
    let channel = channel();
    let mut event = CmEvent::new_zeroed();
    event.uid = 0x1234;
    event.event = 9;
    event.param.ece_vendor = u32::MAX;
    channel.device.will(event);
    let mut to = Box::new([0xaau8; 336]);
    let mut response = place(&mut *to);
    response.room = 324;
    assert!(channel.collect(response, caller()).unwrap());
    assert_eq!(to[..8], 0x1234u64.to_ne_bytes());
    assert_eq!(to[12..16], 9u32.to_ne_bytes());
    assert_eq!(to[324..], [0xaa; 12]);
}

#[test]
fn a_path_is_told_only_if_there_is_room_for_it() {
    let channel = channel();
    let route = CmRoute {
        bound: 1,
        paths: 1,
        ..CmRoute::default()
    };
    for (room, last) in [(8u16, 0xaa), (80, 0)] {
        channel.device.will(route);
        let mut to = Box::new([0xaau8; 80]);
        let mut response = place(&mut *to);
        response.room = room;
        let command = Command::Query {
            response,
            id: 1,
            question: Question::Paths,
        };
        run(&channel, &command).unwrap();
        assert_eq!((to[0], to[79]), (1, last));
    }
}
