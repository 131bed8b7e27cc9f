//! `masq capture`: from masqd's records to a pcap file.

use crate::CliError;
use crate::cli::CaptureArgs;
use crate::output::{Output, WARN, bytes};
use masq_admin::{CaptureRecord, CaptureView, Capturing, Request};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};
use serde::Serialize;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long nothing may come before it is looked whether the time is over.
const LOOK: Duration = Duration::from_millis(100);
/// How often a terminal is told how it goes.
const PROGRESS: Duration = Duration::from_millis(500);

/// What was captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Summary {
    /// Packets in the file.
    packets: u64,
    /// Their bytes, as they were before they were cut.
    bytes: u64,
    /// Packets that are missing because the file was written too slowly.
    lost: u64,
}

/// A pcap file that is being written.
struct Pcap<W: Write> {
    writer: PcapWriter<Shared<W>>,
    out: Shared<W>,
}

/// The writer cannot be asked to flush: its output can.
struct Shared<W: Write>(Rc<RefCell<BufWriter<W>>>);

impl<W: Write> Write for Shared<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

impl<W: Write> Pcap<W> {
    fn begin(out: W, snap: u32) -> io::Result<Self> {
        let header = PcapHeader {
            snaplen: snap,
            // IP packets without a frame.
            datalink: DataLink::RAW,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let out = Rc::new(RefCell::new(BufWriter::new(out)));
        let writer = PcapWriter::with_header(Shared(Rc::clone(&out)), header);
        let mut pcap = Self {
            writer: writer.map_err(into_io)?,
            out: Shared(out),
        };
        // A reader of a pipe knows then what is to come.
        pcap.flush()?;
        Ok(pcap)
    }

    fn add(&mut self, record: &CaptureRecord, packet: &[u8]) -> io::Result<()> {
        let time = Duration::from_nanos(record.time);
        let packet = PcapPacket::new(time, record.length, packet);
        let written = self.writer.write_packet(&packet);
        written.map(drop).map_err(into_io)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

pub(crate) fn capture(
    run_dir: &Path,
    args: &CaptureArgs,
    out: &Output,
) -> Result<ExitCode, CliError> {
    let to_stdout = args.write.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "-w - writes a pcap file, which a terminal cannot show\n  \
             pipe it: masq capture … -w - | tshark -r -"
                .to_owned(),
        ));
    }
    let request = Request::Capture {
        endpoint: args.endpoint.to_string(),
        snap: args.snap,
        view: match args.wire {
            true => CaptureView::Wire,
            false => CaptureView::Virtual,
        },
    };
    let mut capturing = masq_admin::capture(run_dir, &request)?;
    let end = capturing.ender();
    ctrlc::set_handler(move || end.end()).map_err(io::Error::other)?;
    // Only what can be captured replaces a file.
    let failed = |source| CliError::Write {
        path: args.write.clone(),
        source,
    };
    let file: Box<dyn Write> = match to_stdout {
        true => Box::new(io::stdout()),
        false => Box::new(create(&args.write).map_err(failed)?),
    };
    anstream::eprintln!("capturing {}; Ctrl-C ends it", args.endpoint);
    let mut summary = Summary::default();
    let outcome = Pcap::begin(file, args.snap)
        .map_err(failed)
        .and_then(|mut pcap| copy(&mut capturing, &mut pcap, args, &mut summary));
    tell(&summary, out, to_stdout)?;
    match outcome {
        // Whoever read it has seen enough.
        Err(CliError::Write { source, .. })
            if to_stdout && source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(ExitCode::SUCCESS)
        }
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

/// What tenants send is for the eyes of whoever captures it.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn copy<W: Write>(
    capturing: &mut Capturing,
    pcap: &mut Pcap<W>,
    args: &CaptureArgs,
    summary: &mut Summary,
) -> Result<(), CliError> {
    let failed = |source| CliError::Write {
        path: args.write.clone(),
        source,
    };
    let start = Instant::now();
    let mut progress = Progress::new();
    let mut packet = Vec::new();
    loop {
        let left = args
            .duration
            .map(|time| time.saturating_sub(start.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            capturing.ender().end();
        }
        let patience = left.map_or(LOOK, |left| left.clamp(Duration::from_millis(1), LOOK));
        match capturing.next(&mut packet, patience) {
            Ok(None) => break,
            Ok(Some(record)) => {
                summary.lost = record.lost;
                if record.kept > 0 {
                    pcap.add(&record, &packet).map_err(failed)?;
                    summary.packets += 1;
                    summary.bytes += u64::from(record.length);
                }
                if args.count.is_some_and(|count| summary.packets >= count) {
                    break;
                }
            }
            Err(error) if is_patience(&error) => {}
            Err(error) => {
                pcap.flush().map_err(failed)?;
                return Err(CliError::Interrupted(error));
            }
        }
        if !capturing.has_more() {
            // Whoever reads a pipe wants to see it now.
            pcap.flush().map_err(failed)?;
            progress.show(summary);
        }
    }
    pcap.flush().map_err(failed)
}

fn is_patience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// A line on a terminal that says how it goes.
struct Progress {
    last: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        let last = io::stderr().is_terminal().then(Instant::now);
        Self { last }
    }

    fn show(&mut self, summary: &Summary) {
        if let Some(last) = &mut self.last
            && last.elapsed() >= PROGRESS
        {
            *last = Instant::now();
            anstream::eprint!("\r{}\x1b[K", line(summary));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.last.is_some() {
            anstream::eprint!("\r\x1b[K");
        }
    }
}

fn line(summary: &Summary) -> String {
    let Summary {
        packets,
        bytes: sum,
        lost,
    } = summary;
    let plural = if *packets == 1 { "" } else { "s" };
    let mut text = format!("{packets} packet{plural}, {}", bytes(*sum));
    if *lost > 0 {
        let note = format!(", {WARN}{lost} lost{WARN:#} because they were not written fast enough");
        text.push_str(&note);
    }
    text
}

/// The summary goes to standard error, as JSON to standard output unless the packets
/// are there.
fn tell(summary: &Summary, out: &Output, to_stdout: bool) -> Result<(), CliError> {
    if out.is_json() && !to_stdout {
        return out.emit(summary, String::new);
    }
    match out.is_json() {
        true => anstream::eprintln!("{}", serde_json::to_string(summary)?),
        false => anstream::eprintln!("{}", line(summary)),
    }
    if summary.lost > 0 && !out.is_json() {
        anstream::eprintln!("  --snap 128 keeps the headers only, and so more packets");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_written_with_nanoseconds_and_their_whole_length() {
        let mut out = Vec::new();
        let mut pcap = Pcap::begin(&mut out, 96).unwrap();
        let record = CaptureRecord {
            kept: 3,
            length: 1000,
            time: 1_700_000_000_123_456_789,
            lost: 0,
        };
        pcap.add(&record, b"abc").unwrap();
        pcap.flush().unwrap();
        drop(pcap);
        let mut reader = pcap_file::pcap::PcapReader::new(&out[..]).unwrap();
        assert_eq!(reader.header().datalink, DataLink::RAW);
        assert_eq!(reader.header().snaplen, 96);
        // Read raw: the crate takes a packet that was cut for a mistake.
        let packet = reader.next_raw_packet().unwrap().unwrap();
        assert_eq!(
            (packet.ts_sec, packet.ts_frac),
            (1_700_000_000, 123_456_789)
        );
        assert_eq!((packet.orig_len, &packet.data[..]), (1000, &b"abc"[..]));
    }

    #[test]
    fn what_is_missing_is_said() {
        let text = |lost| {
            let summary = Summary {
                packets: 1,
                bytes: 2048,
                lost,
            };
            anstream::adapter::strip_str(&line(&summary)).to_string()
        };
        assert_eq!(text(0), "1 packet, 2 KiB");
        assert!(text(7).contains("7 lost"));
    }
}
