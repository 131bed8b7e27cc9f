//! As much of connection management as shows what the library makes of it: ids and
//! their events, no peers. Two commands are bent to raise events at will.

use crate::device::{Session, body, ok};
use masq_spec::command::{Opcode, Status};
use masq_spec::event::{CONNECTION, Event};
use masq_spec::verbs::*;
use std::collections::{HashMap, VecDeque};
use zerocopy::FromZeros as _;

/// The ids of a session.
#[derive(Default)]
pub(crate) struct Cm {
    ids: HashMap<u32, Id>,
    /// Events that wait, by channel.
    waiting: HashMap<u32, VecDeque<CmEvent>>,
}

struct Id {
    channel: u32,
    uid: u64,
    reported: u32,
}

impl Cm {
    fn id(&mut self, target: CmTarget) -> Result<&mut Id, Status> {
        let id = self.ids.get_mut(&target.id).ok_or(Status::NoSuchObject)?;
        if id.channel == target.channel {
            Ok(id)
        } else {
            Err(Status::Invalid)
        }
    }

    fn raise(&mut self, target: CmTarget, count: u32) -> Result<(), Status> {
        let uid = self.id(target)?.uid;
        let waiting = self.waiting.entry(target.channel).or_default();
        for number in 0..count {
            let mut event = CmEvent::new_zeroed();
            (event.uid, event.id, event.event) = (uid, target.id, number);
            waiting.push_back(event);
        }
        Ok(())
    }

    /// Takes the events of an id away.
    fn take(&mut self, target: CmTarget) -> Result<(u32, Vec<CmEvent>), Status> {
        let reported = self.id(target)?.reported;
        let waiting = self.waiting.entry(target.channel).or_default();
        let (gone, rest): (VecDeque<_>, _) = waiting.drain(..).partition(|e| e.id == target.id);
        *waiting = rest;
        Ok((reported, gone.into()))
    }
}

fn raised(events: u32) -> Result<Vec<u8>, Status> {
    ok(CmRaised {
        events,
        reserved: 0,
    })
}

fn ended(reported: u32, dropped: usize) -> Result<Vec<u8>, Status> {
    let dropped = dropped as u32;
    ok(CmEnded { reported, dropped })
}

impl Session {
    pub(crate) fn cm_command(&mut self, opcode: Opcode, bytes: &[u8]) -> Result<Vec<u8>, Status> {
        match opcode {
            Opcode::CmCreateId => {
                let create: CmCreateId = body(bytes);
                let created = self.created();
                let id = Id {
                    channel: create.channel,
                    uid: create.uid,
                    reported: 0,
                };
                self.cm.ids.insert(created.handle, id);
                ok(created)
            }
            Opcode::CmBind => {
                let bind: CmBind = body(bytes);
                self.cm.id(bind.target)?;
                match bind.address.port {
                    80 => Err(Status::AddressInUse),
                    _ => raised(0),
                }
            }
            // As many events as milliseconds, which the answer tells of.
            Opcode::CmResolveRoute => {
                let CmNumber { target, number, .. } = body(bytes);
                self.cm.raise(target, number)?;
                raised(number)
            }
            // As many events as the number says, which are signalled.
            Opcode::CmNotify => {
                let CmNumber { target, number, .. } = body(bytes);
                self.cm.raise(target, number)?;
                for _ in 0..number {
                    self.signal(target);
                }
                raised(0)
            }
            Opcode::CmSetOption => {
                let option: CmOption = body(bytes);
                assert_eq!(&bytes[size_of::<CmOption>()..], b"value");
                self.cm.id(option.target)?;
                raised(0)
            }
            Opcode::CmQuery => {
                self.cm.id(body(bytes))?;
                ok(CmRoute {
                    bound: 1,
                    sgid: [7; 16],
                    ..CmRoute::default()
                })
            }
            Opcode::CmGetEvent => {
                let target: CmTarget = body(bytes);
                let waiting = self.cm.waiting.entry(target.channel).or_default();
                let event = waiting.pop_front().unwrap_or_else(|| {
                    let mut none = CmEvent::new_zeroed();
                    none.event = CM_NO_EVENT;
                    none
                });
                if let Some(id) = self.cm.ids.get_mut(&event.id) {
                    id.reported += 1;
                }
                ok(event)
            }
            Opcode::CmDestroyId => {
                let target: CmTarget = body(bytes);
                let (reported, gone) = self.cm.take(target)?;
                self.cm.ids.remove(&target.id);
                ended(reported, gone.len())
            }
            Opcode::CmMigrate => {
                let CmNumber { target, number, .. } = body(bytes);
                let (reported, moved) = self.cm.take(target)?;
                self.cm.id(target)?.channel = number;
                let dropped = moved.len();
                self.cm.waiting.entry(number).or_default().extend(moved);
                for _ in 0..dropped {
                    self.signal(CmTarget {
                        channel: number,
                        id: target.id,
                    });
                }
                ended(reported, dropped)
            }
            Opcode::CmCloseChannel => {
                let target: CmTarget = body(bytes);
                self.cm.ids.retain(|_, id| id.channel != target.channel);
                self.cm.waiting.remove(&target.channel);
                Ok(Vec::new())
            }
            _ => Err(Status::Unsupported),
        }
    }

    fn signal(&mut self, target: CmTarget) {
        let event = Event {
            kind: CONNECTION,
            element: target.id,
            reserved: 0,
        };
        self.deliver_event(target.channel, &event);
    }
}
