//! Every opcode with its contents checked, by a C program of ours.

use masq_e2e::{Host, Pair, compile};

fn run(transport: &str, expected: &[&str]) -> anyhow::Result<()> {
    let host = Host::start()?;
    let program = compile("opcodes", host.scratch())?;
    let out = Pair::new(&program.to_string_lossy())
        .args(["-t", transport])
        .run(&host)?;
    for side in [&out.server, &out.client] {
        for step in expected {
            let line = format!("ok {step}\n");
            assert!(side.output.contains(&line), "{step} is not in {side}");
        }
    }
    host.wait_until_empty()
}

#[test]
fn every_opcode_of_rc_moves_the_right_bytes() -> anyhow::Result<()> {
    run(
        "RC",
        &[
            "send",
            "send_imm",
            "send_inline",
            "send_gather",
            "send_empty",
            "write",
            "write_imm",
            "write_inline",
            "write_unaligned",
            "read",
            "read_scatter",
            "cas_equal",
            "cas_different",
            "fadd",
            "fenced_read_then_send",
            "bind_window_and_send_inv",
            "unsignalled_in_order",
        ],
    )
}

#[test]
fn every_opcode_of_uc_moves_the_right_bytes() -> anyhow::Result<()> {
    run(
        "UC",
        &[
            "send",
            "send_imm",
            "send_inline",
            "send_gather",
            "send_empty",
            "write",
            "write_imm",
            "write_inline",
            "write_unaligned",
            "unsignalled_in_order",
        ],
    )
}

#[test]
fn datagrams_carry_the_right_bytes_and_a_grh() -> anyhow::Result<()> {
    run("UD", &["send", "send_imm", "send_inline", "send_gather"])
}
