//! A ring of received frames that a packet socket shares with the kernel
//! (TPACKET_V2, packet_mmap in the kernel's documentation).
//!
//! A frame belongs to the kernel or to us, as its status word says. Ours are
//! those from `first` on, `held` of them; nothing else of the ring is read. The
//! version is 2, although 3 packs frames more tightly: 3 hands frames over by
//! blocks, that is, up to a millisecond late.
#![allow(unsafe_code)] // memory that is shared with the kernel

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::options::{Filter, attach_filter, set};

/// Bytes of a frame: the longest RoCEv2 packet over IPv6 with all headers, and
/// the kernel's. What is longer is fetched by a system call.
const FRAME: usize = 4608;
const BLOCK: usize = 1 << 20;
const FRAMES_PER_BLOCK: usize = BLOCK / FRAME;
/// What precedes the Ethernet header: `struct virtio_net_hdr`.
pub(crate) const OFFLOAD_LEN: usize = size_of::<Offload>();

const PACKET_VERSION: i32 = 10;
const TPACKET_V2: i32 = 1;
const TP_STATUS_KERNEL: u32 = 0;
const TP_STATUS_USER: u32 = 1;
const TP_STATUS_COPY: u32 = 2;

/// `struct tpacket_req`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    block_size: u32,
    block_count: u32,
    frame_size: u32,
    frame_count: u32,
}

/// `struct tpacket2_hdr`, without the status, up to what is used.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FrameHeader {
    _status: u32,
    len: u32,
    captured: u32,
    mac: u16,
    net: u16,
}

/// `struct virtio_net_hdr`: how a frame that is longer than packets can be
/// stands for several.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Offload {
    pub(crate) flags: u8,
    pub(crate) kind: u8,
    pub(crate) header_len: u16,
    pub(crate) segment: u16,
    pub(crate) checksum_start: u16,
    pub(crate) checksum_offset: u16,
}

/// A frame that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Where in the ring its network header is …
    pub(crate) start: usize,
    /// … and how many bytes there are from there on.
    pub(crate) len: usize,
    /// Bytes before the network header.
    pub(crate) link_len: usize,
    pub(crate) offload: Offload,
    /// It did not fit: the whole of it, behind an [`Offload`], is to be received
    /// from the socket.
    pub(crate) copied: bool,
    /// It did not fit, and is lost.
    pub(crate) truncated: bool,
}

pub(crate) struct Ring {
    socket: OwnedFd,
    map: MmapRaw,
    frames: usize,
    first: usize,
    held: usize,
}

impl Ring {
    /// A packet socket on an interface, with a ring of about so many bytes. It
    /// takes IPv6 or IPv4, as far as the filter lets it pass.
    pub(crate) fn open(
        interface: u32,
        ipv6: bool,
        filter: &Filter,
        bytes: usize,
    ) -> io::Result<Self> {
        // Of no protocol until all is set up.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let fd = socket.as_fd();
        let level = libc::SOL_PACKET;
        let blocks = (bytes / BLOCK).clamp(1, 1024);
        let frames = blocks * FRAMES_PER_BLOCK;
        attach_filter(fd, filter)?;
        set(fd, level, PACKET_VERSION, &TPACKET_V2)?;
        set(fd, level, libc::PACKET_VNET_HDR, &1i32)?;
        set(fd, level, libc::PACKET_COPY_THRESH, &1i32)?;
        let room = i32::try_from(bytes / 2).unwrap_or(i32::MAX / 2);
        set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &room)
            .or_else(|_| set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &room))?;
        let request = Request {
            block_size: BLOCK as u32,
            block_count: blocks as u32,
            frame_size: FRAME as u32,
            frame_count: frames as u32,
        };
        set(fd, level, libc::PACKET_RX_RING, &request)?;
        let map = MmapOptions::new().len(blocks * BLOCK).map_raw(&socket)?;
        let protocol = if ipv6 {
            libc::ETH_P_IPV6
        } else {
            libc::ETH_P_IP
        };
        bind(fd, interface, protocol as u16)?;
        Ok(Self {
            socket,
            map,
            frames,
            first: 0,
            held: 0,
        })
    }

    /// Gives the frames that are held back to the kernel.
    pub(crate) fn release(&mut self) {
        for _ in 0..self.held {
            self.status(self.first)
                .store(TP_STATUS_KERNEL, Ordering::Release);
            self.first = (self.first + 1) % self.frames;
        }
        self.held = 0;
    }

    /// Takes the next frame, if one has arrived, and holds it.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        if self.held == self.frames {
            return None;
        }
        let index = (self.first + self.held) % self.frames;
        let status = self.status(index).load(Ordering::Acquire);
        if status & TP_STATUS_USER == 0 {
            return None;
        }
        self.held += 1;
        let place = place(index);
        let frame = self.bytes(place, FRAME)?;
        let (header, _) = FrameHeader::ref_from_prefix(frame).ok()?;
        let (mac, net) = (usize::from(header.mac), usize::from(header.net));
        let link_len = net.saturating_sub(mac);
        let captured = (header.captured as usize).saturating_sub(link_len);
        let offload = mac
            .checked_sub(OFFLOAD_LEN)
            .and_then(|at| frame.get(at..))
            .and_then(|bytes| Offload::read_from_prefix(bytes).ok());
        let copied = status & TP_STATUS_COPY != 0;
        Some(Frame {
            start: place + net,
            len: captured.min(FRAME.saturating_sub(net)),
            link_len,
            offload: offload.map_or_else(Offload::default, |(offload, _)| offload),
            copied,
            truncated: !copied && header.captured < header.len,
        })
    }

    /// A piece of a frame that is held.
    pub(crate) fn bytes(&self, start: usize, len: usize) -> Option<&[u8]> {
        let in_block = start % BLOCK / FRAME;
        if in_block >= FRAMES_PER_BLOCK {
            return None;
        }
        let index = start / BLOCK * FRAMES_PER_BLOCK + in_block;
        let nth = (index + self.frames).checked_sub(self.first)? % self.frames;
        let end = start.checked_add(len)?;
        if index >= self.frames || nth >= self.held || end > place(index) + FRAME {
            return None;
        }
        // SAFETY: the range is inside one frame, thus inside the map. The frame
        // is held: the kernel does not write to it until `release`, which takes
        // `self` by a unique borrow.
        Some(unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(start), len) })
    }

    /// Bytes of the ring.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Readable while frames wait, and as long as some are held.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn status(&self, index: usize) -> &AtomicU32 {
        let place = place(index % self.frames);
        // SAFETY: the word is inside the map and aligned, since maps, blocks
        // and frames are by 16 bytes at least. Both sides access it atomically.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(place).cast()) }
    }
}

/// Where a frame begins in the map.
fn place(index: usize) -> usize {
    index / FRAMES_PER_BLOCK * BLOCK + index % FRAMES_PER_BLOCK * FRAME
}

fn bind(socket: BorrowedFd<'_>, interface: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: integers and an array of them, for which zeros do.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = interface as i32;
    // SAFETY: the kernel reads the address during the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
