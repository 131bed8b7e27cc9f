//! A process that is killed, or that turns into another program, while a peer
//! reaches its memory. Prints `qpn rkey address`, reads the peer's number, then
//! waits for what the test does to it; the second argument says how.

use masq_hostile::{Client, v4};
use masq_spec::command::Status;
use masq_spec::verbs::{MrCreated, SegmentKind};
use std::io::BufRead as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use zerocopy::FromBytes as _;

/// Bytes that a peer may reach.
const LEN: u64 = 4 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let socket = PathBuf::from(arguments.next().expect("a socket"));
    let mode = arguments.next().expect("a mode");
    let mut client = Client::open(&socket);
    let endpoint = client.endpoint(2);
    // Not in the shared file: only reached through the process.
    let heap = vec![7u8; LEN as usize];
    let (addr, kind) = if mode == "kill" {
        (client.alloc(LEN), SegmentKind::Window)
    } else {
        (heap.as_ptr() as u64, SegmentKind::Remote)
    };
    let (status, body) = client.try_register(endpoint.pd, addr, LEN, kind);
    assert_eq!(status, Status::Ok, "REG_MR");
    let mr = MrCreated::read_from_bytes(&body).expect("an MrCreated");
    println!("{} {} {addr}", endpoint.qpn, mr.rkey);
    let line = || {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut text)
            .expect("a line");
        text.trim().to_owned()
    };
    let qpn = line().parse().expect("a number");
    client.connect(&endpoint, v4([10, 0, 0, 1]), qpn);
    println!("connected");
    line();
    let keep = rustix::io::FdFlags::empty();
    rustix::io::fcntl_setfd(client.raw.socket.as_fd(), keep).expect("an inheritable socket");
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    match mode.as_str() {
        "exec" => panic!("{}", sleep.exec()),
        "leave" => {
            // The child holds the socket; the session was this process's.
            println!("{}", sleep.spawn().expect("sleep").id());
        }
        _ => std::thread::park(),
    }
    drop(heap);
}
