//! The checks of a request, and its execution (IBA 9.7.4.1, 9.8.2.2). Nothing
//! is changed before all checks that can refuse the packet are passed.

use super::replies::Data;
use super::{Delivery, Executed, Executes, Message, Refusal, Resource, Responder};
use crate::Memory;
use crate::request::{MAX_MESSAGE, packets_of};
use masq_spec::verbs::Access;
use masq_transport::{AtomicOp, Need, ResponderFault};
use masq_wire::{AtomicEth, Extended, Headers, ImmDt, Operation, Position, RKey, Reth};

const MALFORMED: Refusal = Refusal::Fault(ResponderFault::Malformed);

impl Responder {
    /// Executes a packet at its place in the message.
    pub(super) fn execute(
        &mut self,
        headers: &Headers,
        payload: usize,
        memory: &mut impl Memory,
    ) -> Result<Executes, Refusal> {
        let traits = headers.bth.opcode.traits();
        let mtu = self.config.mtu.bytes();
        // IBA 9.7.4.1.
        let length_is_right = match traits.position {
            Position::First | Position::Middle => payload == mtu,
            Position::Last => (1..=mtu).contains(&payload),
            Position::Only => payload <= mtu,
        };
        // Opcodes follow each other in the order of a message (IBA 9.7.4.1).
        let fits = match (self.message, traits.operation) {
            (None, _) => traits.position.begins(),
            (Some(Message::Send { .. }), Operation::Send) => !traits.position.begins(),
            (Some(Message::Write { .. }), Operation::Write) => !traits.position.begins(),
            (Some(_), _) => false,
        };
        if !length_is_right || !fits {
            return Err(MALFORMED);
        }
        // At most one MTU.
        let payload = payload as u32;
        match (traits.operation, headers.extended) {
            (Operation::Send, _) => self.send(headers, payload, memory),
            (Operation::Write, _) => self.write(headers, payload, memory),
            (Operation::ReadRequest, Extended::Reth(reth)) => self.read(reth, memory),
            (operation, Extended::Atomic(eth)) => self.atomic(operation, eth, memory),
            _ => Err(MALFORMED),
        }
    }

    fn send(
        &mut self,
        headers: &Headers,
        payload: u32,
        memory: &mut impl Memory,
    ) -> Result<Executes, Refusal> {
        let offset = match self.message {
            Some(Message::Send { offset }) => offset,
            _ => 0,
        };
        let room = self.take_receive(memory)?;
        let after = offset + u64::from(payload);
        if after > room {
            return Err(ResponderFault::ReceiveTooShort.into());
        }
        if after > u64::from(MAX_MESSAGE) {
            return Err(MALFORMED);
        }
        if payload > 0 {
            memory.place_receive(offset, payload)?;
        }
        if !headers.bth.opcode.traits().position.ends() {
            self.message = Some(Message::Send { offset: after });
            return Ok(Executes {
                packets: 1,
                delivery: None,
            });
        }
        let invalidated = match headers.extended {
            Extended::Inv(ieth) => Some(ieth.rkey),
            _ => None,
        };
        if let Some(key) = invalidated {
            memory.invalidate(key)?;
        }
        self.receive = None;
        // At most MAX_MESSAGE.
        Ok(self.ends(headers, false, after as u32, true, invalidated))
    }

    fn write(
        &mut self,
        headers: &Headers,
        payload: u32,
        memory: &mut impl Memory,
    ) -> Result<Executes, Refusal> {
        let ends = headers.bth.opcode.traits().position.ends();
        let (addr, key, offset, length) = match (self.message, headers.extended) {
            (
                Some(Message::Write {
                    addr,
                    key,
                    offset,
                    length,
                }),
                _,
            ) => (addr, key, offset, length),
            (_, Extended::Reth(reth) | Extended::RethImm(reth, _)) => {
                self.admit(Access::REMOTE_WRITE, Need::RemoteWrite, reth, memory)?;
                (reth.address, reth.rkey, 0, reth.length)
            }
            _ => return Err(MALFORMED),
        };
        // The payloads add up to the RETH's length (IBA 9.7.4.1).
        let after = offset.checked_add(payload).ok_or(MALFORMED)?;
        let adds_up = if ends {
            after == length
        } else {
            after < length
        };
        if !adds_up {
            return Err(MALFORMED);
        }
        let tells = immediate(&headers.extended).is_some();
        if tells {
            self.take_receive(memory)?;
        }
        if payload > 0 {
            let at = addr.checked_add(u64::from(offset)).ok_or(MALFORMED)?;
            memory.place(key, at, payload)?;
        }
        if !ends {
            self.message = Some(Message::Write {
                addr,
                key,
                offset: after,
                length,
            });
            return Ok(Executes {
                packets: 1,
                delivery: None,
            });
        }
        if tells {
            self.receive = None;
        }
        Ok(self.ends(headers, true, length, tells, None))
    }

    fn read(&mut self, reth: Reth, memory: &mut impl Memory) -> Result<Executes, Refusal> {
        self.admit(Access::REMOTE_READ, Need::RemoteRead, reth, memory)?;
        self.make_room()?;
        let packets = packets_of(reth.length, self.config.mtu);
        self.remember(packets, Executed::Read(reth));
        Ok(Executes {
            packets,
            delivery: None,
        })
    }

    fn atomic(
        &mut self,
        operation: Operation,
        eth: AtomicEth,
        memory: &mut impl Memory,
    ) -> Result<Executes, Refusal> {
        // IBA 9.4.5.
        if !eth.address.is_multiple_of(8) {
            return Err(MALFORMED);
        }
        let reth = Reth {
            address: eth.address,
            rkey: eth.rkey,
            length: 8,
        };
        self.admit(Access::REMOTE_ATOMIC, Need::RemoteAtomic, reth, memory)?;
        self.make_room()?;
        let op = match operation {
            Operation::CompareSwap => AtomicOp::CompareSwap {
                compare: eth.compare,
                swap: eth.swap_add,
            },
            _ => AtomicOp::FetchAdd { add: eth.swap_add },
        };
        let original = memory.atomic(eth.rkey, eth.address, op)?;
        let what = Executed::Atomic {
            operation,
            addr: eth.address,
            original,
        };
        self.remember(1, what);
        Ok(Executes {
            packets: 1,
            delivery: None,
        })
    }

    /// Right of the queue pair, length, key and range of a whole request.
    fn admit(
        &self,
        right: Access,
        need: Need,
        reth: Reth,
        memory: &mut impl Memory,
    ) -> Result<(), Refusal> {
        let answers = need != Need::RemoteWrite;
        let none = answers && self.config.max_dest_rd_atomic == 0;
        if !self.config.access.contains(right) || none || reth.length > MAX_MESSAGE {
            return Err(MALFORMED);
        }
        // Without bytes there is nothing to check (IBA 9.7.4.1).
        if reth.length > 0 {
            memory.check(need, reth.rkey, reth.address, reth.length)?;
        }
        Ok(())
    }

    /// The receive of the message: held already, or taken now.
    fn take_receive(&mut self, memory: &mut impl Memory) -> Result<u64, Refusal> {
        if self.receive.is_none() {
            self.receive = memory.take_receive();
        }
        self.receive.ok_or(Refusal::NotReady)
    }

    /// Forgets the oldest READ or atomic, unless that was never answered: then
    /// the requester has more outstanding than agreed.
    fn make_room(&mut self) -> Result<(), Refusal> {
        while self.resources.len() >= usize::from(self.config.max_dest_rd_atomic) {
            let oldest = self.resources.front().ok_or(MALFORMED)?;
            if !self.replies.forget(oldest.first) {
                return Err(MALFORMED);
            }
            self.resources.pop_front();
        }
        Ok(())
    }

    /// Remembers a READ or atomic, and queues its answer.
    fn remember(&mut self, packets: u64, what: Executed) {
        let (first, end) = (self.expected, self.expected.plus(packets));
        self.resources.push_back(Resource {
            first,
            end,
            msn_before: self.msn,
            what,
        });
        self.msn = self.msn.next();
        self.replies.push_data(Data {
            first,
            start: first,
            next: first,
            end,
            what,
            msn: self.msn,
            repeats: false,
        });
    }

    /// A SEND or WRITE ended.
    fn ends(
        &mut self,
        headers: &Headers,
        write: bool,
        length: u32,
        receive: bool,
        invalidated: Option<RKey>,
    ) -> Executes {
        self.message = None;
        self.msn = self.msn.next();
        let delivery = Some(Delivery {
            receive,
            write,
            length,
            imm: immediate(&headers.extended),
            invalidated,
            solicited: headers.bth.solicited,
        });
        Executes {
            packets: 1,
            delivery,
        }
    }
}

fn immediate(extended: &Extended) -> Option<ImmDt> {
    match extended {
        Extended::Imm(imm) | Extended::RethImm(_, imm) => Some(*imm),
        _ => None,
    }
}
