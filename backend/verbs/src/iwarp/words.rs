//! What two masqds say to each other about a connection: in the private data of the
//! kernel's connection manager, and in datagrams beside it.
//!
//! Each side draws a number by chance (a nonce) for each connection, and believes only
//! what repeats its own: so who can send from the peer's address and not receive there
//! is not believed.

use super::place::Placement;
use std::num::NonZeroU64;

/// What everything begins with.
pub(crate) const MAGIC: [u8; 6] = *b"masq\0\x03";
pub(crate) const LEN: usize = MAGIC.len() + 4 + 8 + 8 + 16;

const REQUEST: u8 = 1;
const HELLO: u8 = 2;
const CONNECTED: u8 = 1;
const ASKS: u8 = 2;
/// Queue pair numbers have 24 bits.
const QPN: u32 = 0xff_ffff;

/// A number of one side of one connection, that nobody can guess.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nonce(pub(super) NonZeroU64);

impl Nonce {
    pub(crate) fn draw() -> std::io::Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| {
            std::io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
        })?;
        // One of 2^64 draws is taken for another.
        let number = NonZeroU64::new(u64::from_ne_bytes(bytes));
        Ok(Self(number.unwrap_or(NonZeroU64::MAX)))
    }
}

impl std::fmt::Debug for Nonce {
    /// Not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonce")
    }
}

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
    /// The sender's.
    pub(crate) nonce: Nonce,
    /// The other side's, as far as the sender knows it.
    pub(crate) echo: Option<Nonce>,
    /// The sender's card is connected: the other side may send.
    pub(crate) connected: bool,
    /// The sender wants an answer.
    pub(crate) asks: bool,
}

/// Private data of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) names: Names,
    /// The sender's.
    pub(crate) nonce: Nonce,
    /// The other side's.
    pub(crate) echo: Nonce,
}

fn encode(kind: u8, flags: u8, names: Names, nonce: Nonce, echo: Option<Nonce>) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let fields = MAGIC.into_iter().chain([kind, flags, names.place.bits, 0]);
    let numbers = names
        .own
        .to_be_bytes()
        .into_iter()
        .chain(names.peer.to_be_bytes());
    let shift = names.place.shift.to_be_bytes();
    let nonce = nonce.0.get().to_be_bytes();
    let echo = echo.map_or(0, |echo| echo.0.get()).to_be_bytes();
    let rest = shift.into_iter().chain(nonce).chain(echo);
    for (to, from) in bytes.iter_mut().zip(fields.chain(numbers).chain(rest)) {
        *to = from;
    }
    bytes
}

struct Decoded {
    kind: u8,
    flags: u8,
    names: Names,
    nonce: Nonce,
    echo: Option<Nonce>,
}

fn decode(bytes: &[u8; LEN]) -> Option<Decoded> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (&[kind, flags, bits, 0], rest) = rest.split_first_chunk()? else {
        return None;
    };
    let (own, rest) = rest.split_first_chunk()?;
    let (peer, rest) = rest.split_first_chunk()?;
    let (shift, rest) = rest.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (echo, _) = rest.split_first_chunk()?;
    let names = Names {
        own: u32::from_be_bytes(*own),
        peer: u32::from_be_bytes(*peer),
        place: Placement {
            bits,
            shift: u64::from_be_bytes(*shift),
        },
    };
    let fits = names.own <= QPN && names.peer <= QPN && bits < 64;
    let nonce = Nonce(NonZeroU64::new(u64::from_be_bytes(*nonce))?);
    fits.then_some(Decoded {
        kind,
        flags,
        names,
        nonce,
        echo: NonZeroU64::new(u64::from_be_bytes(*echo)).map(Nonce),
    })
}

impl Hello {
    pub(crate) fn encode(self) -> [u8; LEN] {
        let flags = (u8::from(self.connected) * CONNECTED) | (u8::from(self.asks) * ASKS);
        encode(HELLO, flags, self.names, self.nonce, self.echo)
    }

    pub(crate) fn decode(datagram: &[u8]) -> Option<Self> {
        let decoded = decode(datagram.try_into().ok()?)?;
        let known = decoded.kind == HELLO && decoded.flags & !(CONNECTED | ASKS) == 0;
        known.then_some(Self {
            names: decoded.names,
            nonce: decoded.nonce,
            echo: decoded.echo,
            connected: decoded.flags & CONNECTED != 0,
            asks: decoded.flags & ASKS != 0,
        })
    }
}

impl Request {
    pub(crate) fn encode(self) -> [u8; LEN] {
        encode(REQUEST, 0, self.names, self.nonce, Some(self.echo))
    }

    /// Some transports pad private data with zeros.
    pub(crate) fn decode(private: &[u8]) -> Option<Self> {
        let (bytes, padding) = private.split_first_chunk()?;
        let decoded = decode(bytes)?;
        let known = decoded.kind == REQUEST && decoded.flags == 0;
        let known = known && padding.iter().all(|byte| *byte == 0);
        let echo = decoded.echo.filter(|_| known)?;
        Some(Self {
            names: decoded.names,
            nonce: decoded.nonce,
            echo,
        })
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

    fn nonce() -> impl Strategy<Value = Nonce> {
        any::<NonZeroU64>().prop_map(Nonce)
    }

    proptest! {
        #[test]
        fn a_hello_comes_through(
            names in names(),
            nonce in nonce(),
            echo in prop::option::of(nonce()),
            connected: bool,
            asks: bool,
        ) {
            let hello = Hello { names, nonce, echo, connected, asks };
            prop_assert_eq!(Hello::decode(&hello.encode()), Some(hello));
            prop_assert_eq!(Request::decode(&hello.encode()), None);
        }

        #[test]
        fn a_request_comes_through_padded_or_not(
            names in names(),
            nonce in nonce(),
            echo in nonce(),
            padding in 0..40usize,
        ) {
            let request = Request { names, nonce, echo };
            let mut private = request.encode().to_vec();
            prop_assert_eq!(Hello::decode(&private), None);
            private.resize(LEN + padding, 0);
            prop_assert_eq!(Request::decode(&private), Some(request));
        }

        /// Whatever is taken is one that could have been sent, byte for byte.
        #[test]
        fn nothing_else_is_taken(
            head in prop_oneof![Just(MAGIC.to_vec()), any::<Vec<u8>>()],
            tail in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..40),
        ) {
            let bytes = [head, tail].concat();
            if let Some(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode().to_vec(), bytes.clone());
            }
            if let Some(request) = Request::decode(&bytes) {
                prop_assert!(bytes.starts_with(&request.encode()));
            }
        }
    }

    #[test]
    fn no_two_nonces_are_alike() {
        assert!(Nonce::draw().unwrap() != Nonce::draw().unwrap());
    }
}
