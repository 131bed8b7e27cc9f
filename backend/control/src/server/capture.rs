//! Captures: a thread each, from the device to an operator's connection.
//!
//! The connection may block its thread for as long as the operator's program
//! likes; packets are lost then, and counted, and nothing else waits.

use super::admin::{PATIENCE, write_answer};
use super::{Message, Server, ServerHandle};
use masq_admin::{Answer, CaptureRecord, CaptureView, SNAP};
use masq_device::{Capture, CaptureSpec, Device, DomainKey, EndpointKey};
use masq_policy::EndpointId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// Captures at a time: each takes 32 MiB and time of a data-path thread.
const MOST: usize = 4;
/// How often a capture is looked at that has no packets: the data path wakes
/// nobody for it.
const LOOK_MS: u8 = 5;
/// Bytes that are written at once.
const CHUNK: usize = 256 << 10;

/// Chunks after which a capture that was ended does end.
const LAST: u32 = 256;

/// Where an endpoint's packets are to be had.
pub(super) struct Site {
    device: Arc<dyn Device>,
    domain: DomainKey,
    endpoint: EndpointKey,
}

impl Server {
    pub(super) fn capture_site(
        &mut self,
        endpoint: &str,
        view: CaptureView,
    ) -> Result<Site, String> {
        let id = endpoint.parse::<EndpointId>().ok();
        let found = id.filter(|id| self.world.policy.endpoint(id).is_some());
        let id = found.ok_or_else(|| format!("the policy has no endpoint {endpoint}"))?;
        let lives = self.world.policy.endpoint(&id);
        if let Some(host) = lives.and_then(|endpoint| self.world.host_of(endpoint)) {
            return Err(format!(
                "{id} lives on host {host}\n  \
                 capture there, or here the endpoint that it talks to"
            ));
        }
        if view == CaptureView::Wire && self.world.this.is_none() {
            return Err(
                "this masqd serves one host only: nothing travels between hosts\n  \
                 without --wire, what endpoints of this host say to each other is shown"
                    .to_owned(),
            );
        }
        let device = Arc::clone(self.world.carrier(&id));
        if view == CaptureView::Wire && device.network().is_none() {
            let device = device.name();
            return Err(format!(
                "{id} is on the device {device}, which reaches this host only\n  \
                 without --wire, what endpoints of this host say to each other is shown"
            ));
        }
        Ok(Site {
            device,
            domain: self.world.domain(&id),
            endpoint: self.world.endpoint_key(&id),
        })
    }
}

/// The captures that run; each holds a share of it.
#[derive(Default)]
pub(super) struct Captures(Arc<()>);

impl Captures {
    /// Begins one on an operator's connection; the error is for the operator.
    pub(super) fn begin(
        &self,
        stream: &UnixStream,
        server: &ServerHandle,
        endpoint: &str,
        snap: u32,
        view: CaptureView,
    ) -> Result<(), String> {
        if !SNAP.contains(&snap) {
            let (least, most) = (SNAP.start(), SNAP.end());
            return Err(format!("a packet is cut to {least} to {most} bytes"));
        }
        // One share is this one's own.
        if Arc::strong_count(&self.0) > MOST {
            return Err(format!(
                "{MOST} captures are running, which is as many as there may be"
            ));
        }
        let (sender, receiver) = channel();
        server.send(Message::Capture(endpoint.to_owned(), view, sender));
        let site = receiver.recv_timeout(PATIENCE);
        let site = site.map_err(|_| "masqd is busy; try again")??;
        let spec = CaptureSpec {
            domain: site.domain,
            endpoint: site.endpoint,
            snap,
            view: match view {
                CaptureView::Virtual => masq_device::CaptureView::Virtual,
                CaptureView::Wire => masq_device::CaptureView::Wire,
            },
        };
        let failed = |error: io::Error| format!("the capture cannot begin: {error}");
        let stream = stream.try_clone().map_err(failed)?;
        let capture = site.device.capture(spec).map_err(|e| e.to_string())?;
        write_answer(&stream, &Answer::Capturing).map_err(failed)?;
        stream.set_write_timeout(None).map_err(failed)?;
        let (endpoint, share) = (endpoint.to_owned(), Arc::clone(&self.0));
        let serve = move || {
            let _share = share;
            let user = rustix::net::sockopt::socket_peercred(&stream);
            let user = user.map_or(u32::MAX, |cred| cred.uid.as_raw());
            tracing::info!(endpoint, user, ?view, "capture begins");
            let mut capture = capture;
            let outcome = run(&mut *capture, &stream);
            let (lost, error) = (capture.lost(), outcome.err());
            tracing::info!(endpoint, lost, error = ?error, "capture ends");
        };
        let builder = std::thread::Builder::new().name("masq-capture".into());
        builder.spawn(serve).map(drop).map_err(failed)
    }
}

/// Until the operator's program ends its half, or is gone.
fn run(capture: &mut dyn Capture, mut stream: &UnixStream) -> io::Result<()> {
    let mut out = Vec::with_capacity(2 * CHUNK);
    let mut told = 0;
    let (mut is_over, mut wait, mut last) = (false, 0, 0);
    loop {
        is_over = is_over || ends(stream, wait)?;
        fill(capture, &mut out, &mut told);
        stream.write_all(&out)?;
        wait = if out.is_empty() { LOOK_MS } else { 0 };
        if is_over {
            last += 1;
            // What comes after the end goes on coming, perhaps.
            if out.is_empty() || last == LAST {
                return Ok(());
            }
        }
        out.clear();
    }
}

/// Waits a little at most; says whether the other side is through.
fn ends(mut stream: &UnixStream, wait_ms: u8) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(wait_ms)) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(false),
        Ok(_) => Ok(stream.read(&mut [0; 64])? == 0),
        Err(error) => Err(error.into()),
    }
}

/// Appends the records of what there is, up to a chunk.
fn fill(capture: &mut dyn Capture, out: &mut Vec<u8>, told: &mut u64) {
    while out.len() < CHUNK {
        let start = out.len();
        out.extend_from_slice(&[0; CaptureRecord::LEN]);
        let packet = capture.next(out);
        let lost = capture.lost();
        let kept = out.len() - start - CaptureRecord::LEN;
        if packet.is_none() && lost == *told {
            out.truncate(start);
            return;
        }
        *told = lost;
        let record = CaptureRecord {
            kept: kept as u32,
            length: packet.map_or(0, |packet| packet.length),
            time: packet.map_or(0, |packet| packet.time),
            lost,
        };
        let head = out.get_mut(start..start + CaptureRecord::LEN);
        if let Some(head) = head {
            head.copy_from_slice(&record.to_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_device::CapturedPacket;

    /// Packets of so many bytes, then none.
    struct Fixed(Vec<usize>, u64);

    impl Capture for Fixed {
        fn next(&mut self, out: &mut Vec<u8>) -> Option<CapturedPacket> {
            let len = self.0.pop()?;
            out.extend(std::iter::repeat_n(7, len));
            Some(CapturedPacket {
                time: len as u64,
                length: 2 * len as u32,
            })
        }
        fn lost(&self) -> u64 {
            self.1
        }
    }

    #[test]
    fn what_there_is_is_sent_before_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        run(&mut Fixed(vec![3, 100], 5), &ours).unwrap();
        drop(ours);
        let mut got = Vec::new();
        (&theirs).read_to_end(&mut got).unwrap();
        let (head, rest) = got.split_first_chunk().unwrap();
        let record = CaptureRecord::from_bytes(head);
        assert_eq!((record.kept, record.length), (100, 200));
        assert_eq!((record.time, record.lost), (100, 5));
        let (head, rest) = rest[100..].split_first_chunk().unwrap();
        assert_eq!(CaptureRecord::from_bytes(head).kept, 3);
        assert_eq!(rest, [7; 3]);
    }

    #[test]
    fn what_was_lost_is_told_without_a_packet() {
        let (mut out, mut told) = (Vec::new(), 0);
        fill(&mut Fixed(vec![], 9), &mut out, &mut told);
        let record = CaptureRecord::from_bytes(out[..].try_into().unwrap());
        assert_eq!((record.kept, record.length, record.lost), (0, 0, 9));
        out.clear();
        fill(&mut Fixed(vec![], 9), &mut out, &mut told);
        assert!(out.is_empty(), "told once");
    }

    #[test]
    fn a_reader_that_is_gone_ends_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let end = run(&mut Fixed(vec![100], 0), &ours);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
