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

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emitted {
    Sent,
    /// Its bytes are being read by a helper.
    Waits,
    /// Its bytes cannot be had.
    Failed(Missing),
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Request(WcStatus),
    Answer(ResponderFault),
}

/// Which direction a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Answer,
}

/// Bytes that are sent together: what one train carries, and what the caches
/// still hold when the kernel copies it.
const TRAIN: usize = 60 << 10;

impl Wire {
    /// Sends what was gathered.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.gathered > 0 {
            self.gathered = 0;
            self.port.flush();
        }
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
            lay_out(&emitted, payload, body, fill)?;
            let mut icrc = Icrc::of_headers(&flow, ip_id, &emitted);
            icrc.update(body.get(emitted.as_bytes().len()..).unwrap_or_default());
            *trailer = icrc.finish();
            if let Some(watch) = watch {
                watch.sent(flow, ip_id, path, place.buffer);
            }
            self.port.commit();
            self.gathered += len;
            if self.gathered >= TRAIN {
                self.flush();
            }
        }
        Ok(())
    }
}

fn lay_out<E>(
    headers: &HeaderBytes,
    payload: usize,
    body: &mut [u8],
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = headers.as_bytes();
    let Some((front, rest)) = body.split_at_mut_checked(bytes.len()) else {
        return Ok(());
    };
    front.copy_from_slice(bytes);
    let Some((payload, pad)) = rest.split_at_mut_checked(payload) else {
        return Ok(());
    };
    pad.fill(0);
    fill(payload)
}

impl Engine {
    /// Writes a packet of a link to the batch.
    pub(super) fn emit(
        &mut self,
        q: usize,
        link: &mut Link,
        wire: &mut Wire,
        packet: &Transmit,
        side: Side,
    ) -> Emitted {
        let mut headers = packet.headers;
        headers.bth.pkey = link.partition;
        let path = link.path;
        let len = packet.payload.len() as usize;
        let watch = self.watch(q, None, path.to);
        let written = wire.write(&path, &headers, len, watch.as_ref(), |out| {
            if out.is_empty() {
                return Ok(());
            }
            self.fill(q, link, &packet.payload, side, out)
        });
        match written {
            Ok(()) => Emitted::Sent,
            Err(None) => Emitted::Waits,
            Err(Some(missing)) => Emitted::Failed(missing),
        }
    }

    /// Copies the payload of a packet. An error without a cause: it has to wait.
    fn fill(
        &mut self,
        q: usize,
        link: &mut Link,
        payload: &Payload,
        side: Side,
        out: &mut [u8],
    ) -> Result<(), Option<Missing>> {
        self.from.clear();
        let (source, offset, total) = match *payload {
            Payload::None => return Ok(()),
            Payload::Request { id, offset, .. } => {
                let missing = Some(Missing::Request(WcStatus::FatalErr));
                let request = link.request(id).ok_or(missing)?;
                self.gather(q, request, Need::LocalRead)
                    .map_err(|status| Some(Missing::Request(status)))?;
                let offset = u64::from(offset);
                (Source::Request { id, offset }, offset, request.total)
            }
            Payload::Memory { key, addr, len } => {
                self.read_pieces(q, key.0, addr, u64::from(len))
                    .ok_or(Some(Missing::Answer(ResponderFault::Access)))?;
                let source = Source::Memory { key: key.0, addr };
                (source, 0, u64::from(len))
            }
        };
        if self.load_mapped(offset, out) {
            return Ok(());
        }
        // A part of it lies in the process only.
        let fetch = match side {
            Side::Request => &mut link.requests,
            Side::Answer => &mut link.answers,
        };
        match fetch.take(source, out) {
            Some(true) => return Ok(()),
            Some(false) => return Err(Some(missing(side))),
            None if fetch.reading.is_some() => return Err(None),
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
        let job = self.fetch_remote(q, offset, want);
        fetch.reading = Some((job.ok_or(Some(missing(side)))?, source));
        Err(None)
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

fn missing(side: Side) -> Missing {
    match side {
        Side::Request => Missing::Request(WcStatus::LocProtErr),
        Side::Answer => Missing::Answer(ResponderFault::Memory),
    }
}
