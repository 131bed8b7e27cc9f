use crate::command::{Opcode, RequestHeader, Status};
use crate::queue::{Cqe, SendWqe, Sge};
use crate::verbs::{CreateCq, Ring};
use zerocopy::{FromBytes, IntoBytes};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn golden_create_cq_request() {
    let header = RequestHeader {
        opcode: Opcode::CreateCq.raw(),
        flags: 0,
        len: 32,
    };
    let body = CreateCq {
        ring: Ring {
            addr: 0x7f12_3456_7000,
            slots: 256,
            stride: 64,
        },
        cqe: 200,
        event_queue: 2,
        comp_vector: 0,
        flags: 1,
    };
    assert_eq!(hex(header.as_bytes()), "4000000020000000");
    assert_eq!(
        hex(body.as_bytes()),
        "00705634127f00000001000040000000c8000000020000000000000001000000"
    );
    assert_eq!(CreateCq::read_from_bytes(body.as_bytes()), Ok(body));
}

#[test]
fn golden_send_wqe_with_one_element() {
    let wqe = SendWqe {
        stamp: 1,
        opcode: 1,
        flags: 2,
        num_sge: 1,
        wr_id: 0x1122_3344_5566_7788,
        imm_data: 0xaabb_ccdd,
        remote_addr: 0x1000,
        rkey: 0x0102_0304,
        ..Default::default()
    };
    let sge = Sge {
        addr: 0x2000,
        length: 64,
        lkey: 5,
    };
    assert_eq!(
        hex(wqe.as_bytes()),
        "01000000010201008877665544332211ddccbbaa00000000001000000000000004030201000000000000000000000000000000000000000000000000000000000000000000000000"
            .get(..128).unwrap()
    );
    assert_eq!(hex(sge.as_bytes()), "00200000000000004000000005000000");
}

#[test]
fn golden_completion() {
    let cqe = Cqe {
        stamp: 7,
        status: 12,
        opcode: 128,
        flags: 3,
        wr_id: 9,
        byte_len: 4096,
        imm_data: 1,
        qp_num: 0x123456,
        src_qp: 0x654321,
        ..Default::default()
    };
    assert_eq!(
        hex(&cqe.as_bytes()[..32]),
        "070000000c80030009000000000000000010000001000000563412002143650".to_owned() + "0"
    );
}

#[test]
fn every_opcode_and_status_keeps_its_number() {
    for op in Opcode::ALL {
        assert_eq!(Opcode::from_raw(op.raw()), Some(*op));
    }
    for status in Status::ALL {
        assert_eq!(Status::from_raw(status.raw()), Some(*status));
        assert_eq!(status.errno() == 0, *status == Status::Ok);
    }
    assert_eq!(Opcode::from_raw(0xffff), None);
}
