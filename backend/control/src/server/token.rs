//! What the numbers mean that epoll gives back.

use rustix::event::epoll;

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Wake,
    Listener(u32),
    Socket(u32, u32),
    Kick(u32, u32),
    Exit(u32, u32),
    Container(u32, u32),
    Init(u32, u32),
    Directory,
    /// Of the device with this number.
    Network(u32),
}

impl Token {
    /// A connection's slot is used again; its generation is not.
    pub(super) fn data(self) -> epoll::EventData {
        let pack = |kind: u64, generation: u32, index: u32| {
            kind << 60 | u64::from(generation & 0x0fff_ffff) << 32 | u64::from(index)
        };
        epoll::EventData::new_u64(match self {
            Self::Wake => 0,
            Self::Listener(index) => pack(1, 0, index),
            Self::Socket(index, generation) => pack(2, generation, index),
            Self::Kick(index, generation) => pack(3, generation, index),
            Self::Exit(index, generation) => pack(4, generation, index),
            Self::Container(index, generation) => pack(5, generation, index),
            Self::Init(index, generation) => pack(6, generation, index),
            Self::Directory => pack(7, 0, 0),
            Self::Network(device) => pack(8, 0, device),
        })
    }

    pub(super) fn from_data(data: u64) -> Option<Self> {
        let (index, generation) = (data as u32, (data >> 32) as u32 & 0x0fff_ffff);
        Some(match data >> 60 {
            0 => Self::Wake,
            1 => Self::Listener(index),
            2 => Self::Socket(index, generation),
            3 => Self::Kick(index, generation),
            4 => Self::Exit(index, generation),
            5 => Self::Container(index, generation),
            6 => Self::Init(index, generation),
            7 => Self::Directory,
            8 => Self::Network(index),
            _ => return None,
        })
    }
}
