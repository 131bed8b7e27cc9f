//! What the tests share: the captures, and a plain CRC to compare with.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

/// A captured packet from its IP header on.
pub(crate) struct Captured {
    pub(crate) file: String,
    pub(crate) number: usize,
    pub(crate) ip: Vec<u8>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

/// What the table of the captures' README says of each file: its name and its
/// RoCE packets by opcode, counted by another program.
pub(crate) fn summary() -> Vec<(String, Vec<(String, usize)>)> {
    let text = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let counts = cells[4].split_whitespace().map(|count| {
            let (name, count) = count.split_once(':').unwrap();
            (name.to_owned(), count.parse().unwrap())
        });
        (cells[1].to_owned(), counts.collect())
    })
    .collect()
}

/// The packets of one capture (classic pcap, little endian, Ethernet).
pub(crate) fn capture(file: &str) -> Vec<Captured> {
    let bytes = std::fs::read(folder().join(file).with_extension("pcap")).unwrap();
    assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
    assert_eq!(bytes[20..24], [1, 0, 0, 0]);
    let mut packets = Vec::new();
    let mut rest = &bytes[24..];
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        assert_eq!(word(8), word(12), "cut short");
        let (frame, after) = rest[16..].split_at(word(8) as usize);
        packets.push(Captured {
            file: file.to_owned(),
            number: packets.len(),
            ip: frame[14..].to_vec(),
        });
        rest = after;
    }
    packets
}

/// Every packet of every capture.
pub(crate) fn all() -> Vec<Captured> {
    let files = summary().into_iter();
    files.flat_map(|(file, _)| capture(&file)).collect()
}

/// CRC-32 of Ethernet, bit by bit.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

/// Where the fields lie that the ICRC does not cover, in a packet from its IP
/// header on, with the bits that it ignores there.
pub(crate) fn masked(ip: &[u8]) -> Vec<(usize, u8)> {
    let (network, udp) = if ip[0] >> 4 == 4 {
        (vec![(1, 0xff), (8, 0xff), (10, 0xff), (11, 0xff)], 20)
    } else {
        (
            vec![(0, 0x0f), (1, 0xff), (2, 0xff), (3, 0xff), (7, 0xff)],
            40,
        )
    };
    let behind = [(udp + 6, 0xff), (udp + 7, 0xff), (udp + 12, 0xff)];
    network.into_iter().chain(behind).collect()
}

/// The ICRC by the book: ones for the LRH and the masked fields, the plain CRC
/// over everything but the last four bytes.
pub(crate) fn icrc(ip: &[u8]) -> [u8; 4] {
    let mut covered = vec![0xff; 8];
    let mut packet = ip[..ip.len() - 4].to_vec();
    for (at, bits) in masked(ip) {
        packet[at] |= bits;
    }
    covered.extend(packet);
    crc32(&covered).to_le_bytes()
}
