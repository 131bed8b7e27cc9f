//! Raw vhost-user messages.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Requests of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Code {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    ResetOwner = 4,
    SetMemTable = 5,
    SetLogBase = 6,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    SetVringErr = 14,
    GetProtocol = 15,
    SetProtocol = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    SetBackendReq = 21,
    GetConfig = 24,
    SetConfig = 25,
    GetInflight = 31,
    SetInflight = 32,
    ResetDevice = 34,
    GetMaxMemSlots = 36,
    AddMemReg = 37,
    RemMemReg = 38,
}

/// Words in a message, as the host orders them.
pub fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A connection on which anything may be said.
pub struct Raw {
    /// The socket.
    pub socket: UnixStream,
}

impl Raw {
    /// Connects.
    pub fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).expect("the endpoint's socket");
        socket
            .set_read_timeout(Some(crate::LONG))
            .expect("a deadline");
        Self { socket }
    }

    /// Sends bytes with descriptors, whatever they are.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(128))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, flags)?;
        Ok(sent)
    }

    /// A message with flags of the test's choice.
    pub fn message(code: u32, flags: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [code, flags, body.len() as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(body);
        bytes
    }

    /// Sends a request without wanting an answer.
    ///
    /// # Errors
    /// What the socket says.
    pub fn tell(&self, code: Code, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.send_bytes(&Self::message(code as u32, 1, body), fds)
    }

    /// Sends a request and reads the body of the answer; None if masqd hung
    /// up.
    pub fn ask(&self, code: Code, body: &[u8], fds: &[BorrowedFd<'_>]) -> Option<Vec<u8>> {
        self.send_bytes(&Self::message(code as u32, 1 | 8, body), fds)
            .ok()?;
        let (got, answer, _) = self.receive()?;
        assert_eq!(got, code as u32, "the answer to another request");
        Some(answer)
    }

    /// As [`Self::ask`], for a number.
    pub fn ask_u64(&self, code: Code, body: &[u8], fds: &[BorrowedFd<'_>]) -> Option<u64> {
        let answer = self.ask(code, body, fds)?;
        Some(u64::from_ne_bytes(answer.get(..8)?.try_into().ok()?))
    }

    /// Whether masqd acknowledged the request.
    pub fn accepts(&self, code: Code, body: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.ask_u64(code, body, fds) == Some(0)
    }

    /// Reads a message: code, body, descriptors. None at the end.
    pub fn receive(&self) -> Option<(u32, Vec<u8>, Vec<OwnedFd>)> {
        let mut fds = Vec::new();
        let header = self.read_exactly(12, &mut fds)?;
        let word = |at: usize| {
            let raw = header.get(at..at + 4).and_then(|raw| raw.try_into().ok());
            u32::from_ne_bytes(raw.expect("twelve bytes"))
        };
        let body = self.read_exactly(word(8) as usize, &mut fds)?;
        Some((word(0), body, fds))
    }

    fn read_exactly(&self, len: usize, fds: &mut Vec<OwnedFd>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < len {
            let mut buffer = vec![0; len - out.len()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let got = recvmsg(
                self.socket.as_fd(),
                &mut slices,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            );
            let got = got.ok().filter(|got| got.bytes > 0)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            out.extend_from_slice(buffer.get(..got.bytes)?);
        }
        Some(out)
    }

    /// Whether masqd has hung up, or does so soon.
    pub fn is_hung_up(&self) -> bool {
        crate::eventually(|| self.looks_closed())
    }

    /// Whether masqd has hung up by now.
    pub fn looks_closed(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.socket, &mut byte[..], flags) {
            Ok((0, _)) => true,
            Ok(_) | Err(rustix::io::Errno::AGAIN) => false,
            Err(_) => true,
        }
    }
}
