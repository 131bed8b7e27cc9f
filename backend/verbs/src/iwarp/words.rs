//! What two masqds say to each other about a connection: in the private data of the
//! kernel's connection manager, and in datagrams beside it.

use super::place::Placement;

/// What everything begins with.
pub(crate) const MAGIC: [u8; 6] = *b"masq\0\x02";
pub(crate) const LEN: usize = MAGIC.len() + 4 + 8 + 8;

const REQUEST: u8 = 1;
const HELLO: u8 = 2;
const CONNECTED: u8 = 1;
const ASKS: u8 = 2;
/// Queue pair numbers have 24 bits.
const QPN: u32 = 0xff_ffff;

/// The two queue pairs of a connection, as who speaks sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) own: u32,
    pub(crate) peer: u32,
    /// Where the speaker's card has what peers may reach.
    pub(crate) place: Placement,
}

/// "My queue pair is to be connected to yours": sent while it is not, and as the
/// answer to one that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) names: Names,
    /// The sender's card is connected: the other side may send.
    pub(crate) connected: bool,
    /// The sender wants an answer.
    pub(crate) asks: bool,
}

fn encode(kind: u8, flags: u8, names: Names) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let fields = MAGIC.into_iter().chain([kind, flags, names.place.bits, 0]);
    let numbers = names
        .own
        .to_be_bytes()
        .into_iter()
        .chain(names.peer.to_be_bytes());
    let shift = names.place.shift.to_be_bytes();
    for (to, from) in bytes.iter_mut().zip(fields.chain(numbers).chain(shift)) {
        *to = from;
    }
    bytes
}

fn decode(bytes: &[u8; LEN]) -> Option<(u8, u8, Names)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (&[kind, flags, bits, 0], rest) = rest.split_first_chunk()? else {
        return None;
    };
    let (own, rest) = rest.split_first_chunk()?;
    let (peer, rest) = rest.split_first_chunk()?;
    let (shift, _) = rest.split_first_chunk()?;
    let names = Names {
        own: u32::from_be_bytes(*own),
        peer: u32::from_be_bytes(*peer),
        place: Placement {
            bits,
            shift: u64::from_be_bytes(*shift),
        },
    };
    let fits = names.own <= QPN && names.peer <= QPN && bits < 64;
    fits.then_some((kind, flags, names))
}

impl Hello {
    pub(crate) fn encode(self) -> [u8; LEN] {
        let flags = (u8::from(self.connected) * CONNECTED) | (u8::from(self.asks) * ASKS);
        encode(HELLO, flags, self.names)
    }

    pub(crate) fn decode(datagram: &[u8]) -> Option<Self> {
        match decode(datagram.try_into().ok()?)? {
            (HELLO, flags, names) if flags & !(CONNECTED | ASKS) == 0 => Some(Self {
                names,
                connected: flags & CONNECTED != 0,
                asks: flags & ASKS != 0,
            }),
            _ => None,
        }
    }
}

/// Private data of a request.
pub(crate) fn request(names: Names) -> [u8; LEN] {
    encode(REQUEST, 0, names)
}

/// Whom the private data of a request names; some transports pad it with zeros.
pub(crate) fn requested(private: &[u8]) -> Option<Names> {
    let (bytes, padding) = private.split_first_chunk()?;
    match decode(bytes)? {
        (REQUEST, 0, names) if padding.iter().all(|byte| *byte == 0) => Some(names),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> impl Strategy<Value = Names> {
        let all = (0..=QPN, 0..=QPN, 0..64u8, any::<u64>());
        all.prop_map(|(own, peer, bits, shift)| Names {
            own,
            peer,
            place: Placement { bits, shift },
        })
    }

    proptest! {
        #[test]
        fn a_hello_comes_through(names in names(), connected: bool, asks: bool) {
            let hello = Hello { names, connected, asks };
            prop_assert_eq!(Hello::decode(&hello.encode()), Some(hello));
            prop_assert_eq!(requested(&hello.encode()), None);
        }

        #[test]
        fn a_request_comes_through_padded_or_not(names in names(), padding in 0..40usize) {
            let mut private = request(names).to_vec();
            prop_assert_eq!(Hello::decode(&private), None);
            private.resize(LEN + padding, 0);
            prop_assert_eq!(requested(&private), Some(names));
        }

        /// Whatever is taken is one that could have been sent, byte for byte.
        #[test]
        fn nothing_else_is_taken(
            head in prop_oneof![Just(MAGIC.to_vec()), any::<Vec<u8>>()],
            tail in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..24),
        ) {
            let bytes = [head, tail].concat();
            if let Some(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode().to_vec(), bytes.clone());
            }
            if let Some(names) = requested(&bytes) {
                prop_assert!(bytes.starts_with(&request(names)));
            }
        }
    }
}
