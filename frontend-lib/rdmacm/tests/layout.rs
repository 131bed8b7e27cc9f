//! The structures and numbers against the header that is installed.

use masq_rdmacm::abi::*;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

fn add<T: Layout>(body: &mut String, ours: &mut Vec<(String, usize)>) {
    let name = T::NAME;
    ours.push((name.to_owned(), size_of::<T>()));
    writeln!(body, "printf(\"{name} %zu\\n\", sizeof(struct {name}));").unwrap();
    for (field, offset) in T::FIELDS {
        let field = field.trim_start_matches("r#");
        ours.push((format!("{name}.{field}"), *offset));
        writeln!(
            body,
            "printf(\"{name}.{field} %zu\\n\", offsetof(struct {name}, {field}));"
        )
        .unwrap();
    }
}

#[test]
fn every_structure_and_number_is_that_of_the_header() {
    if !Path::new("/usr/include/rdma/rdma_user_cm.h").exists() {
        return;
    }
    let (mut body, mut ours) = (String::new(), Vec::new());
    macro_rules! all {
        ($($name:ident)*) => { $(add::<$name>(&mut body, &mut ours);)* };
    }
    all! {
        rdma_ucm_cmd_hdr rdma_ucm_create_id rdma_ucm_create_id_resp rdma_ucm_destroy_id
        rdma_ucm_destroy_id_resp rdma_ucm_bind_ip rdma_ucm_bind rdma_ucm_resolve_ip
        rdma_ucm_resolve_addr rdma_ucm_resolve_route rdma_ucm_query rdma_ucm_query_route_resp
        rdma_ucm_query_addr_resp rdma_ucm_query_path_resp ib_path_rec_data rdma_ucm_conn_param
        rdma_ucm_ud_param rdma_ucm_ece rdma_ucm_connect rdma_ucm_listen rdma_ucm_accept
        rdma_ucm_reject rdma_ucm_disconnect rdma_ucm_init_qp_attr rdma_ucm_notify
        rdma_ucm_join_ip_mcast rdma_ucm_join_mcast rdma_ucm_get_event rdma_ucm_event_resp
        rdma_ucm_set_option rdma_ucm_migrate_id rdma_ucm_migrate_resp
    }
    for (name, number) in cmd::NUMBERS {
        ours.push(((*name).to_owned(), *number as usize));
        writeln!(body, "printf(\"{name} %zu\\n\", (size_t){name});").unwrap();
    }
    let theirs = run(&body);
    for (name, value) in &ours {
        assert_eq!(theirs[name], *value, "{name}");
    }
    assert!(ours.len() > 150);
}

fn run(body: &str) -> HashMap<String, usize> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (dir.join("rdma_user_cm.c"), dir.join("rdma_user_cm"));
    let text = format!(
        "#include <netinet/in.h>\n#include <stddef.h>\n#include <stdio.h>\n\
         #include <rdma/rdma_user_cm.h>\nint main(void) {{\n{body}return 0;\n}}\n"
    );
    std::fs::write(&source, text).unwrap();
    let mut cc = Command::new("cc");
    let built = cc.arg("-o").arg(&program).arg(&source).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let out = Command::new(&program).output().unwrap();
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}
