//! The crate against the headers that are installed (rdma-core 44 or newer), and
//! against the two layouts that were noted from versions 44 and 65.

mod constants;
mod fields;

use masq_verbs_abi::*;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

/// One field of a structure as Rust sees it; offset and size in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldAt {
    structure: &'static str,
    field: &'static str,
    offset: usize,
    size: usize,
}

/// Structures whose size grew after version 44, with the size they have there.
const GREW: &[(&str, usize)] = &[
    ("verbs_context", 648),
    ("ibv_qp_ex", 352),
    ("ibv_port_attr", 52),
];

/// How C spells a field that Rust spells otherwise, or that lies in an unnamed union.
fn c_field(structure: &str, field: &str) -> String {
    match (structure, field) {
        (_, "type_") => "type".into(),
        (_, "priv_") => "priv".into(),
        ("ibv_odp_caps", f) if f != "general_caps" => format!("per_transport_caps.{f}"),
        ("ibv_send_wr", "remote_srqn") => "qp_type.xrc.remote_srqn".into(),
        ("ibv_send_wr", "tail") => "bind_mw".into(),
        (_, f) => f.into(),
    }
}

fn c_type(structure: &str) -> String {
    match structure {
        "ibv_gid" => "union ibv_gid".into(),
        s => format!("struct {s}"),
    }
}

/// Compiles and runs a C program that prints `NAME VALUE` lines.
fn run_c(name: &str, body: &str) -> HashMap<String, i64> {
    let dir = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (dir.join(format!("{name}.c")), dir.join(name));
    let text = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <infiniband/verbs.h>\n\
         #include <infiniband/sa.h>\n#include <rdma/ib_user_sa.h>\n#include <rdma/ib_user_verbs.h>\n\
         int main(void) {{\n{body}return 0;\n}}\n"
    );
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc")
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .status();
    assert!(
        built.unwrap().success(),
        "cc with libibverbs-dev is needed for this test"
    );
    let out = Command::new(&program).output().unwrap();
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let (key, value) = line.rsplit_once(' ').unwrap();
            (key.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn every_field_lies_where_the_header_puts_it() {
    let all = fields::fields();
    let mut body = String::new();
    for FieldAt {
        structure, field, ..
    } in &all
    {
        let (ty, c) = (c_type(structure), c_field(structure, field));
        writeln!(
            body,
            "printf(\"{structure}.{field} %zu\\n\", offsetof({ty}, {c}));"
        )
        .unwrap();
        writeln!(body, "printf(\"{structure} %zu\\n\", sizeof({ty}));").unwrap();
    }
    let c = run_c("layout_fields", &body);
    // The context grows at its front, so its fields are compared from `context` on.
    let base_c = c["verbs_context.context"];
    let base = offset_of!(verbs_context, context) as i64;
    for f in &all {
        let theirs = c[&format!("{}.{}", f.structure, f.field)];
        let ours = f.offset as i64;
        if f.structure == "verbs_context" {
            assert_eq!(ours - base, theirs - base_c, "{f:?}");
        } else {
            assert_eq!(ours, theirs, "{f:?}");
        }
        let size = c[f.structure];
        match GREW.iter().find(|(name, _)| *name == f.structure) {
            Some((_, old)) => assert!(
                size == *old as i64 || size == f.size as i64,
                "{f:?}: {size}"
            ),
            None => assert_eq!(f.size as i64, size, "{f:?}"),
        }
    }
}

#[test]
fn nested_parts_of_a_send_request_lie_where_the_header_puts_them() {
    let c = run_c(
        "layout_send_wr",
        "#define P(f) printf(#f \" %zu\\n\", offsetof(struct ibv_send_wr, f))\n;\
         P(wr.rdma.rkey); P(wr.atomic.compare_add); P(wr.atomic.swap); P(wr.atomic.rkey);\
         P(wr.ud.ah); P(wr.ud.remote_qpn); P(wr.ud.remote_qkey);\
         P(bind_mw.mw); P(bind_mw.rkey); P(bind_mw.bind_info); P(tso.hdr_sz); P(tso.mss);\n",
    );
    let (wr, tail) = (offset_of!(ibv_send_wr, wr), offset_of!(ibv_send_wr, tail));
    for (name, ours) in [
        ("wr.rdma.rkey", wr + offset_of!(ibv_wr_rdma, rkey)),
        (
            "wr.atomic.compare_add",
            wr + offset_of!(ibv_wr_atomic, compare_add),
        ),
        ("wr.atomic.swap", wr + offset_of!(ibv_wr_atomic, swap)),
        ("wr.atomic.rkey", wr + offset_of!(ibv_wr_atomic, rkey)),
        ("wr.ud.ah", wr + offset_of!(ibv_wr_ud, ah)),
        ("wr.ud.remote_qpn", wr + offset_of!(ibv_wr_ud, remote_qpn)),
        ("wr.ud.remote_qkey", wr + offset_of!(ibv_wr_ud, remote_qkey)),
        ("bind_mw.mw", tail + offset_of!(ibv_wr_bind_mw, mw)),
        ("bind_mw.rkey", tail + offset_of!(ibv_wr_bind_mw, rkey)),
        (
            "bind_mw.bind_info",
            tail + offset_of!(ibv_wr_bind_mw, bind_info),
        ),
        ("tso.hdr_sz", tail + offset_of!(ibv_wr_tso, hdr_sz)),
        ("tso.mss", tail + offset_of!(ibv_wr_tso, mss)),
    ] {
        assert_eq!(ours as i64, c[name], "{name}");
    }
}

#[test]
fn every_constant_has_the_value_of_the_header() {
    let ours = constants::constants();
    let mut body = String::new();
    for (name, _, _) in &ours {
        writeln!(body, "printf(\"{name} %lld\\n\", (long long){name});").unwrap();
    }
    let c = run_c("layout_constants", &body);
    for (name, signed, unsigned) in ours {
        assert!(c[name] == signed || c[name] == unsigned, "{name}");
    }
}

/// Reads `struct NAME size N` and the `  FIELD OFFSET` lines under it.
fn noted(text: &str) -> HashMap<String, usize> {
    let mut structure = "";
    let mut out = HashMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["struct", name, "size", size] = words[..] {
            structure = name;
            out.insert(name.to_owned(), size.parse().unwrap());
        } else if let [field, offset, ..] = words[..] {
            out.insert(format!("{structure}.{field}"), offset.parse().unwrap());
        }
    }
    out
}

#[test]
fn the_layouts_noted_for_versions_44_and_65_both_hold() {
    let v44 = noted(include_str!("../data/layout-v44.txt"));
    let v65 = noted(include_str!("../data/layout-v65.txt"));
    let mut compared = 0;
    for f in fields::fields() {
        assert!(
            v65.get(f.structure).is_none_or(|size| *size == f.size),
            "{f:?}"
        );
        let key = format!("{}.{}", f.structure, f.field);
        let (Some(old), Some(new)) = (v44.get(&key), v65.get(&key)) else {
            continue;
        };
        compared += 1;
        assert_eq!(f.offset, *new, "{f:?} in 65");
        let moved = if f.structure == "verbs_context" {
            size_of::<verbs_context>() - v44["verbs_context"]
        } else {
            0
        };
        assert_eq!(f.offset - moved, *old, "{f:?} in 44");
    }
    assert!(
        compared > 100,
        "only {compared} fields of the noted layouts"
    );
}

#[test]
fn the_context_and_its_live_slots_lie_at_their_fixed_offsets() {
    let at = |slot: usize| offset_of!(ibv_context, ops) + slot;
    assert_eq!(at(offset_of!(ibv_context_ops, poll_cq)), 96);
    assert_eq!(at(offset_of!(ibv_context_ops, post_send)), 208);
    assert_eq!(at(offset_of!(ibv_context_ops, post_recv)), 216);
    assert_eq!(
        offset_of!(verbs_context, sz) + 8,
        offset_of!(verbs_context, context)
    );
    assert_eq!(
        size_of::<verbs_context>() - offset_of!(verbs_context, context),
        328
    );
}
