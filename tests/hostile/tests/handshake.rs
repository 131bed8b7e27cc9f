//! Attacks before a session: memory, descriptors, virtqueues, silence.

use masq_hostile::{
    Client, Code, Masqd, Memory, Raw, SIZE, eventfd, eventually, memfd, seal, sealed_memfd, words,
};
use masq_spec::command::{Opcode, Status};
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

fn number(index: u8) -> Vec<u8> {
    words(&[u64::from(index)])
}

fn state(index: u32, value: u32) -> Vec<u8> {
    [index.to_ne_bytes(), value.to_ne_bytes()].concat()
}

/// A connection with features agreed on and no memory.
fn greeted(masqd: &Masqd) -> Raw {
    let raw = Raw::connect(&masqd.socket("red/a"));
    raw.ask_u64(Code::GetFeatures, &[], &[]).expect("features");
    let protocol = raw
        .ask_u64(Code::GetProtocol, &[], &[])
        .expect("protocol features");
    raw.tell(Code::SetProtocol, &words(&[protocol]), &[])
        .expect("sent");
    raw
}

#[test]
fn only_a_memfd_that_can_neither_shrink_nor_grow_nor_fault_is_mapped() {
    let masqd = Masqd::start();
    let region = words(&[0, 0, SIZE, 0, 0]);
    let shrinkable = memfd(SIZE, MemfdFlags::empty());
    let plain: OwnedFd = std::fs::File::open("/dev/zero").expect("/dev/zero").into();
    let raw = greeted(&masqd);
    for (what, fd) in [("unsealed", &shrinkable), ("no memfd", &plain)] {
        assert!(
            !raw.accepts(Code::AddMemReg, &region, &[fd.as_fd()]),
            "{what}"
        );
    }
    let huge = MemfdFlags::HUGETLB | MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::memfd_create("huge", huge)
        && rustix::fs::ftruncate(&fd, 2 << 20).is_ok()
    {
        seal(&fd);
        assert!(
            !raw.accepts(Code::AddMemReg, &region, &[fd.as_fd()]),
            "a punched huge page is a SIGBUS"
        );
    } else {
        eprintln!("skipped: this host has no huge pages");
    }
    assert!(masqd.serves_others());
}

#[test]
fn memory_is_shared_once_and_its_descriptor_is_not_kept_for_each_try() {
    let masqd = Masqd::start();
    let raw = greeted(&masqd);
    let region = words(&[0, 0, SIZE, 0, 0]);
    let fd = sealed_memfd();
    assert!(raw.accepts(Code::AddMemReg, &region, &[fd.as_fd()]));
    let before = masqd.counts();
    for _ in 0..5000 {
        assert!(!raw.accepts(Code::AddMemReg, &region, &[fd.as_fd()]));
    }
    // The last one is closed after its answer has left.
    assert!(eventually(|| masqd.counts().fds <= before.fds));
    let after = masqd.counts();
    assert_eq!((after.fds, after.threads), (before.fds, before.threads));
    // The allocator maps some memory of its own, but none for each try.
    assert!(after.maps < before.maps + 100, "{before:?} {after:?}");
}

#[test]
fn a_range_outside_the_file_is_refused_however_large_the_frontend_says_it_is() {
    let masqd = Masqd::start();
    let raw = greeted(&masqd);
    let small = memfd(4096, MemfdFlags::empty());
    seal(&small);
    // The size of the file counts, not what the message says of it.
    let region = words(&[0, 0, 1 << 44, 0, 0]);
    assert!(raw.accepts(Code::AddMemReg, &region, &[small.as_fd()]));
    let (kick, call) = (
        eventfd(0, EventfdFlags::NONBLOCK),
        eventfd(0, EventfdFlags::NONBLOCK),
    );
    for (code, body) in [
        (Code::SetVringNum, state(0, 8)),
        (
            Code::SetVringAddr,
            words(&[0, 1 << 40, (1 << 40) + 4096, (1 << 40) + 2048, 0]),
        ),
    ] {
        assert!(raw.accepts(code, &body, &[]));
    }
    assert!(raw.accepts(Code::SetVringCall, &number(0), &[call.as_fd()]));
    assert!(raw.accepts(Code::SetVringKick, &number(0), &[kick.as_fd()]));
    let _ = raw.tell(Code::SetVringEnable, &state(0, 1), &[]);
    assert!(
        raw.is_hung_up(),
        "a ring outside the file ends the connection"
    );
    // A region that does not begin at address 0 is another way to say so.
    for region in [[0, 4096, SIZE, 0, 0], [0, 0, SIZE, 0, 4096]] {
        let raw = greeted(&masqd);
        let fd = sealed_memfd();
        assert!(!raw.accepts(Code::AddMemReg, &words(&region), &[fd.as_fd()]));
    }
    assert!(masqd.serves_others());
}

#[test]
fn a_kick_or_call_that_is_no_eventfd_is_refused() {
    let masqd = Masqd::start();
    let raw = greeted(&masqd);
    let (pipe, other) = std::io::pipe().expect("a pipe");
    rustix::io::write(&other, b"x").expect("a byte");
    let (socket, _peer) = UnixStream::pair().expect("a pair");
    let memory = sealed_memfd();
    for code in [Code::SetVringKick, Code::SetVringCall] {
        for (what, fd) in [
            ("pipe", pipe.as_fd()),
            ("socket", socket.as_fd()),
            ("memfd", memory.as_fd()),
        ] {
            assert!(!raw.accepts(code, &number(0), &[fd]), "{code:?}: {what}");
        }
        // "No descriptor": polling, which masqd does not offer.
        assert!(!raw.accepts(code, &words(&[0x100]), &[]), "{code:?}: none");
    }
    assert!(masqd.serves_others());
}

#[test]
fn sizes_indexes_and_addresses_of_virtqueues_are_checked() {
    let masqd = Masqd::start();
    let client = Client::negotiate(&masqd.socket("red/a"));
    for size in [0, 3, 17, 2048, 65_536, u32::MAX] {
        let body = state(0, size);
        assert!(!client.raw.accepts(Code::SetVringNum, &body, &[]), "{size}");
    }
    for index in [256, 65_536, u32::MAX] {
        let body = state(index, 8);
        assert!(!client.raw.accepts(Code::SetVringNum, &body, &[]));
        assert!(!client.raw.accepts(Code::SetVringEnable, &body, &[]) || index == 256);
    }
    // Misaligned, overlapping the end of the window, beyond the file.
    let good = Client::control_queue();
    for (what, queue) in [
        (
            "misaligned table",
            masq_queue(good.desc + 8, good.avail, good.used),
        ),
        (
            "misaligned available ring",
            masq_queue(good.desc, good.avail + 1, good.used),
        ),
        (
            "misaligned used ring",
            masq_queue(good.desc, good.avail, good.used + 2),
        ),
        (
            "ring before the table",
            masq_queue(good.desc, good.desc - 4096, good.used),
        ),
        (
            "ring far behind",
            masq_queue(good.desc, good.avail, good.desc + (1 << 20)),
        ),
        (
            "end of the file",
            masq_queue(SIZE - 64, SIZE - 32, SIZE - 16),
        ),
        (
            "wraps",
            masq_queue(u64::MAX - 15, u64::MAX - 7, u64::MAX - 3),
        ),
    ] {
        let client = Client::negotiate(&masqd.socket("red/a"));
        let _ = client.raw.accepts(Code::SetVringNum, &state(0, 8), &[]);
        let taken = client.raw.accepts(Code::SetVringAddr, &queue, &[])
            && client
                .raw
                .accepts(Code::SetVringCall, &number(0), &[client.call.as_fd()])
            && client
                .raw
                .accepts(Code::SetVringKick, &number(0), &[client.kick.as_fd()]);
        if taken {
            let _ = client.raw.tell(Code::SetVringEnable, &state(0, 1), &[]);
            assert!(client.raw.is_hung_up(), "{what}");
        }
    }
    assert!(masqd.serves_others());
}

fn masq_queue(desc: u64, avail: u64, used: u64) -> Vec<u8> {
    words(&[0, desc, used, avail, 0])
}

#[test]
fn rings_that_overlap_hurt_their_owner_only() {
    let masqd = Masqd::start();
    let client = Client::negotiate(&masqd.socket("red/a"));
    let base = Client::control_queue().desc;
    let body = masq_queue(base, base, base);
    assert!(client.raw.accepts(Code::SetVringNum, &state(0, 8), &[]));
    assert!(client.raw.accepts(Code::SetVringAddr, &body, &[]));
    assert!(
        client
            .raw
            .accepts(Code::SetVringCall, &number(0), &[client.call.as_fd()])
    );
    assert!(
        client
            .raw
            .accepts(Code::SetVringKick, &number(0), &[client.kick.as_fd()])
    );
    let _ = client.raw.tell(Code::SetVringEnable, &state(0, 1), &[]);
    for index in 0..64u16 {
        client.memory.write(base, &[index as u8; 512]);
        let _ = rustix::io::write(&client.kick, &1u64.to_ne_bytes());
    }
    assert!(masqd.serves_others());
}

#[test]
fn surplus_descriptors_are_closed() {
    let masqd = Masqd::start();
    let fds: Vec<OwnedFd> = (0..30)
        .map(|_| eventfd(0, EventfdFlags::NONBLOCK))
        .collect();
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    assert!(masqd.serves_others());
    let before = masqd.counts();
    for code in [
        Code::GetFeatures,
        Code::SetVringKick,
        Code::SetVringCall,
        Code::SetVringErr,
        Code::AddMemReg,
        Code::RemMemReg,
        Code::SetMemTable,
        Code::SetLogBase,
        Code::SetInflight,
        Code::SetBackendReq,
    ] {
        for count in [2, 8, 30] {
            let raw = greeted(&masqd);
            let _ = raw.tell(code, &number(0), &fds[..count]);
            let _ = raw.ask(Code::GetFeatures, &[], &[]);
        }
    }
    assert!(
        eventually(|| masqd.counts().fds <= before.fds),
        "{before:?}, now {:?}",
        masqd.counts()
    );
    assert!(masqd.serves_others());
}

#[test]
fn a_frontend_that_does_not_read_answers_is_cut_off_and_stalls_nobody() {
    let masqd = Masqd::start();
    let raw = Raw::connect(&masqd.socket("red/a"));
    raw.socket.set_nonblocking(true).expect("an option");
    let message = Raw::message(Code::GetFeatures as u32, 1, &[]);
    let cut = eventually(|| {
        for _ in 0..1000 {
            match raw.send_bytes(&message, &[]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => return true,
                Ok(_) => {}
            }
        }
        false
    });
    assert!(cut, "masqd went on buffering");
    assert!(masqd.serves_others());
}

#[test]
fn a_full_back_channel_costs_no_thread_and_stalls_nobody() {
    let masqd = Masqd::start();
    let before = masqd.counts();
    for _ in 0..20 {
        let client = Client::negotiate(&masqd.socket("red/a"));
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        theirs.set_nonblocking(true).expect("an option");
        while rustix::io::write(&theirs, &[0; 4096]).is_ok() {}
        theirs.set_nonblocking(false).expect("an option");
        let _ = client.raw.tell(Code::SetBackendReq, &[], &[theirs.as_fd()]);
        assert!(client.raw.is_hung_up());
        assert_eq!(masqd.counts().threads, before.threads);
        drop(ours);
    }
    // Nor does asking for many pages.
    let mut client = Client::negotiate(&masqd.socket("red/a"));
    client.take_doorbell();
    let (_ours, theirs) = UnixStream::pair().expect("a pair");
    let _ = client.raw.tell(Code::SetBackendReq, &[], &[theirs.as_fd()]);
    assert!(client.raw.is_hung_up(), "one page is enough");
    assert!(masqd.serves_others());
}

#[test]
fn a_back_channel_that_is_no_unix_stream_is_refused() {
    let masqd = Masqd::start();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
    let event = eventfd(0, EventfdFlags::NONBLOCK);
    for fd in [tcp.as_fd(), datagram.as_fd(), event.as_fd()] {
        let client = Client::negotiate(&masqd.socket("red/a"));
        let _ = client.raw.tell(Code::SetBackendReq, &[], &[fd]);
        assert!(client.raw.is_hung_up());
    }
    assert!(masqd.serves_others());
}

#[test]
fn silence_and_half_a_message_end_at_a_deadline() {
    let masqd = Masqd::start();
    let silent = Raw::connect(&masqd.socket("red/a"));
    let half = Raw::connect(&masqd.socket("red/a"));
    half.send_bytes(&[1, 0, 0], &[]).expect("sent");
    let cut = Raw::connect(&masqd.socket("red/a"));
    let message = Raw::message(Code::SetFeatures as u32, 1, &[0; 8]);
    cut.send_bytes(&message[..15], &[]).expect("sent");
    let mut open = masqd.open("red/a");
    open.raw.send_bytes(&[1, 0, 0], &[]).expect("sent");
    assert!(masqd.serves_others(), "nobody waits with them");
    for raw in [&silent, &half, &cut, &open.raw] {
        assert!(raw.is_hung_up());
    }
    assert!(!open.works());
}

#[test]
fn garbage_on_the_socket_ends_that_connection() {
    let masqd = Masqd::start();
    for bytes in [
        &[0xff; 64][..],
        &Raw::message(9999, 1, &[]),
        &Raw::message(1, 0, &[]),
        &Raw::message(1, 1 | 4, &[]),
        &Raw::message(2, 1, &[1, 2, 3]),
        &[1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f],
        b"GET / HTTP/1.1\r\nHost: masqd\r\n\r\n",
    ] {
        let raw = Raw::connect(&masqd.socket("red/a"));
        raw.send_bytes(bytes, &[]).expect("sent");
        assert!(raw.is_hung_up(), "{bytes:?}");
    }
    assert!(masqd.serves_others());
}

#[test]
fn requests_that_masqd_does_not_offer_are_refused() {
    let masqd = Masqd::start();
    for code in [
        Code::ResetOwner,
        Code::ResetDevice,
        Code::SetMemTable,
        Code::SetLogBase,
        Code::SetConfig,
        Code::GetInflight,
        Code::SetInflight,
        Code::RemMemReg,
    ] {
        let raw = greeted(&masqd);
        for len in [0, 8, 40, 64] {
            let _ = raw.tell(code, &vec![0; len], &[]);
        }
    }
    // CVE-2020-10722 and its kin: a log or inflight region of the frontend's.
    let raw = greeted(&masqd);
    let fd = sealed_memfd();
    let _ = raw.tell(
        Code::SetLogBase,
        &words(&[u64::MAX, u64::MAX]),
        &[fd.as_fd()],
    );
    assert!(raw.is_hung_up());
    assert!(masqd.serves_others());
}

#[test]
fn a_session_needs_features_memory_and_an_event_queue() {
    let masqd = Masqd::start();
    let mut client = Client::negotiate(&masqd.socket("red/a"));
    client.start_control();
    assert_eq!(client.say_hello().0, Status::Invalid, "no event queue");
    assert_eq!(client.call(Opcode::AllocPd, &[]).0, Status::Invalid);
    client.take_doorbell();
    client.start_events(1);
    assert_eq!(client.say_hello().0, Status::Ok);
    let memory = Memory::map(sealed_memfd(), SIZE);
    let region = words(&[0, 0, SIZE, 0, 0]);
    assert!(
        !client
            .raw
            .accepts(Code::AddMemReg, &region, &[memory.fd.as_fd()]),
        "memory of a session is not exchanged"
    );
    assert!(client.works());
}
