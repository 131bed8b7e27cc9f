//! From a packet's headers to bytes in the port's batch.

use super::fetch::{CHUNK, Source};
use super::{Link, Wire};
use crate::engine::Engine;
use crate::engine::tap::Watch;
use masq_connected::{Payload, Transmit};
use masq_port::Path;
use masq_spec::queue::WcStatus;
use masq_transport::{Need, ResponderFault};
use masq_wire::{HeaderBytes, Headers, Icrc};

/// Why a packet was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// Its bytes are being read by a helper.
    Waits,
    /// The bytes of this request cannot be had.
    Request(u64, WcStatus),
    /// Those of an answer cannot.
    Answer(ResponderFault),
}

impl Wire {
    /// Sends what was gathered.
    #[inline]
    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.unsent) {
            self.port.flush();
        }
    }

    /// Whether another packet of this path would go along with the last.
    pub(super) fn continues(&self, path: &Path) -> bool {
        self.unsent && self.port.continues(path)
    }

    /// Writes a packet to the batch; `fill` writes its payload, or gives up.
    /// `watch` is shown what leaves.
    /// A packet for which there is no room is lost.
    pub(super) fn write<E>(
        &mut self,
        path: &Path,
        headers: &Headers,
        payload: usize,
        watch: Option<&Watch>,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Ok(emitted) = headers.emit(payload) else {
            return Ok(());
        };
        let len = usize::from(emitted.packet_len());
        if self.port.place(path, len).is_none() {
            self.flush();
        }
        let Some(place) = self.port.place(path, len) else {
            return Ok(());
        };
        let (flow, ip_id) = (place.flow, place.ip_id);
        if let Some((body, trailer)) = place.buffer.split_last_chunk_mut() {
            fill(frame(&emitted, payload, body))?;
            let mut icrc = Icrc::of_headers(&flow, ip_id, &emitted);
            icrc.update(body.get(emitted.as_bytes().len()..).unwrap_or_default());
            *trailer = icrc.finish();
            if let Some(watch) = watch {
                watch.sent(flow, ip_id, path, place.buffer);
            }
            self.port.commit();
            self.unsent = true;
        }
        Ok(())
    }
}

/// Writes headers and padding of a packet, as far as `out` goes; returns the place
/// of the payload between them.
pub(in crate::engine) fn frame<'a>(
    headers: &HeaderBytes,
    payload: usize,
    out: &'a mut [u8],
) -> &'a mut [u8] {
    let bytes = headers.as_bytes();
    let (front, rest) = out.split_at_mut(bytes.len().min(out.len()));
    for (to, from) in front.iter_mut().zip(bytes) {
        *to = *from;
    }
    let (payload, padding) = rest.split_at_mut(payload.min(rest.len()));
    padding.fill(0);
    payload
}

impl Engine {
    /// Writes a packet of a link to the batch. `listed` is the request whose pieces
    /// `from` lists already: packets that follow each other in a turn are mostly of
    /// one message.
    pub(super) fn emit(
        &mut self,
        q: usize,
        link: &mut Link,
        wire: &mut Wire,
        packet: &Transmit,
        listed: &mut Option<u64>,
    ) -> Result<(), Unsent> {
        let mut headers = packet.headers;
        headers.bth.pkey = link.partition;
        let path = link.path;
        let len = packet.payload.len() as usize;
        let watch = self.watch(q, None, path.to);
        wire.write(&path, &headers, len, watch.as_ref(), |out| {
            match out.is_empty() {
                true => Ok(()),
                false => self.fill(q, link, &packet.payload, listed, out),
            }
        })
    }

    /// Copies the payload of a packet.
    fn fill(
        &mut self,
        q: usize,
        link: &mut Link,
        payload: &Payload,
        listed: &mut Option<u64>,
        out: &mut [u8],
    ) -> Result<(), Unsent> {
        let (source, offset, total, unreadable) = match *payload {
            Payload::None => return Ok(()),
            Payload::Request { id, offset, .. } => {
                let missing = |status| Unsent::Request(id, status);
                let request = link.request(id).ok_or(missing(WcStatus::FatalErr))?;
                if *listed != Some(id) {
                    *listed = None;
                    self.from.clear();
                    self.gather(q, request, Need::LocalRead).map_err(missing)?;
                    *listed = Some(id);
                }
                let offset = u64::from(offset);
                let source = Source::Request { id, offset };
                (source, offset, request.total, missing(WcStatus::LocProtErr))
            }
            Payload::Memory { key, addr, len } => {
                let missing = Unsent::Answer;
                *listed = None;
                self.from.clear();
                self.read_pieces(q, key.0, addr, u64::from(len))
                    .ok_or(missing(ResponderFault::Access))?;
                let source = Source::Memory { key: key.0, addr };
                (source, 0, u64::from(len), missing(ResponderFault::Memory))
            }
        };
        if self.load_mapped(offset, out) {
            return Ok(());
        }
        // A part of it lies in the process only.
        let fetch = match source {
            Source::Request { .. } => &mut link.requests,
            Source::Memory { .. } => &mut link.answers,
        };
        match fetch.take(source, out) {
            Some(true) => return Ok(()),
            Some(false) => return Err(unreadable),
            None if fetch.reading.is_some() => return Err(Unsent::Waits),
            None => {}
        }
        let mut want = (total - offset).min(CHUNK);
        if let Payload::Memory { key, addr, .. } = *payload {
            // The packets after it will want what follows, if it is there.
            self.from.clear();
            if self.read_pieces(q, key.0, addr, CHUNK).is_some() {
                want = CHUNK;
            } else {
                self.from.clear();
                self.read_pieces(q, key.0, addr, total);
            }
        }
        let job = self.fetch_remote(q, offset, want).ok_or(unreadable)?;
        fetch.reading = Some((job, source));
        Err(Unsent::Waits)
    }

    /// Lists the pieces that a peer's READ asks for.
    fn read_pieces(&mut self, q: usize, key: u32, addr: u64, len: u64) -> Option<()> {
        let qp = self.qps.get(q)?;
        self.keys
            .resolve(
                qp.pd,
                qp.qpn,
                key,
                addr,
                len,
                Need::RemoteRead,
                &mut self.from,
            )
            .ok()
    }
}
