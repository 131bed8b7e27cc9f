//! The frontend of these tests works when it behaves: what they refuse is
//! refused for what they do wrong.

use masq_hostile::{Masqd, v4};
use masq_spec::queue::{Sge, WcStatus};

#[test]
fn a_well_behaved_frontend_moves_bytes() {
    let masqd = Masqd::start();
    let (mut a, mut b) = (masqd.open("blue/a"), masqd.open("blue/b"));
    let (mut qa, mut qb) = (a.endpoint(2), b.endpoint(2));
    a.connect(&qa, v4([10, 0, 0, 2]), qb.qpn);
    b.connect(&qb, v4([10, 0, 0, 1]), qa.qpn);
    let (from, to) = (a.alloc(4096), b.alloc(4096));
    let (ma, mb) = (a.register(qa.pd, from, 4096), b.register(qb.pd, to, 4096));
    a.memory.write(from, b"hello");
    let sge = |addr, lkey| Sge {
        addr,
        length: 5,
        lkey,
    };
    b.post_recv(&mut qb, 1, sge(to, mb.lkey));
    a.post_send(&mut qa, 2, sge(from, ma.lkey));
    let sent = a.poll(&mut qa).expect("a completion");
    let received = b.poll(&mut qb).expect("a completion");
    assert_eq!((sent.status, sent.wr_id), (WcStatus::Success as u8, 2));
    assert_eq!((received.wr_id, received.byte_len), (1, 5));
    assert_eq!(b.memory.read(to, 5), b"hello");
}
