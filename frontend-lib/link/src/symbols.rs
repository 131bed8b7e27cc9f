//! The list of symbols, and what the linker is told of it.

use crate::LinkError;
use std::collections::HashMap;
use std::fmt::Write as _;

/// Called when the library is loaded; not exported.
const CONSTRUCTOR: &str = "masq_library_init";

const LIST: &str = include_str!("../../ibverbs/link/symbols.txt");

/// One version node with the names that stand under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// As `readelf --version-info` shows it, `IBVERBS_1.1`.
    pub name: String,
    /// The node before it, if any.
    pub after: Option<String>,
    /// The names, in the order of the list.
    pub symbols: Vec<String>,
}

impl Node {
    fn is_private(&self) -> bool {
        self.name.contains("PRIVATE")
    }
}

/// The nodes of `frontend-lib/ibverbs/link/symbols.txt`.
///
/// # Errors
/// A line that is neither a node, a name nor a comment.
pub fn nodes() -> Result<Vec<Node>, LinkError> {
    parse(LIST)
}

fn parse(text: &str) -> Result<Vec<Node>, LinkError> {
    let mut nodes: Vec<Node> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bad = || LinkError::List {
            line: number + 1,
            text: line.to_owned(),
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("  ") {
            let node = nodes.last_mut().ok_or_else(bad)?;
            node.symbols.push(name.to_owned());
            continue;
        }
        let words: Vec<_> = line.split(' ').collect();
        let (after, symbols) = match words[..] {
            [_] => (None, Vec::new()),
            [_, "after", other] => (Some(other.to_owned()), Vec::new()),
            [_, "like", other] => {
                let like = nodes.iter().find(|n| n.name == other).ok_or_else(bad)?;
                // The registration function carries the node's number in its name.
                let kept = |s: &&String| !s.starts_with("verbs_register_driver_");
                (None, like.symbols.iter().filter(kept).cloned().collect())
            }
            _ => return Err(bad()),
        };
        nodes.push(Node {
            name: words[0].to_owned(),
            after,
            symbols,
        });
    }
    Ok(nodes)
}

/// The node in which each name is defined: the last public or the first private one.
pub(crate) fn owners(nodes: &[Node]) -> HashMap<&str, &str> {
    let mut owner = HashMap::new();
    for node in nodes {
        for symbol in &node.symbols {
            if node.is_private() {
                owner.entry(symbol.as_str()).or_insert(node.name.as_str());
            } else {
                owner.insert(symbol.as_str(), node.name.as_str());
            }
        }
    }
    owner
}

/// The linker's version script: names under their owners.
pub(crate) fn version_script(nodes: &[Node]) -> String {
    let owner = owners(nodes);
    let mut out = String::new();
    // `local: *` would hide the aliases of its own node, so it stands in one without.
    let last_public = nodes.iter().rposition(|node| !node.is_private());
    for (i, node) in nodes.iter().enumerate() {
        let _ = writeln!(out, "{} {{", node.name);
        let own = |s: &&String| owner.get(s.as_str()) == Some(&node.name.as_str());
        let names: Vec<_> = node.symbols.iter().filter(own).collect();
        if !names.is_empty() {
            out.push_str("global:\n");
        }
        for name in names {
            let _ = writeln!(out, "  {name};");
        }
        if Some(i) == last_public {
            out.push_str("local: *;\n");
        }
        match &node.after {
            Some(after) => {
                let _ = writeln!(out, "}} {after};");
            }
            None => out.push_str("};\n"),
        }
    }
    out
}

/// Assembly that gives names their further versions: a jump for a function, a byte
/// of its own for the one variable (a switch that no provider is here to read).
pub(crate) fn aliases(nodes: &[Node], arch: &str) -> Result<String, LinkError> {
    let jump = match arch {
        "x86_64" => |name: &str| format!("jmp {name}@PLT"),
        "aarch64" | "arm" => |name: &str| format!("b {name}"),
        "riscv64" => |name: &str| format!("tail {name}@plt"),
        other => return Err(LinkError::Arch(other.to_owned())),
    };
    let owner = owners(nodes);
    let mut out = String::from(".section .note.GNU-stack,\"\",%progbits\n");
    // The loader calls it when the library is loaded.
    let _ = write!(
        out,
        ".section .init_array,\"aw\",%init_array\n.p2align 3\n.quad {CONSTRUCTOR}\n"
    );
    let mut count = 0;
    for node in nodes {
        for symbol in &node.symbols {
            if owner.get(symbol.as_str()) == Some(&node.name.as_str()) {
                continue;
            }
            let label = format!("masq_alias_{count}");
            count += 1;
            let (section, kind, body) = if symbol == "verbs_allow_disassociate_destroy" {
                (".bss", "%object", ".skip 1".to_owned())
            } else {
                (".text", "%function", jump(symbol))
            };
            let _ = write!(
                out,
                "{section}\n.globl {label}\n.type {label},{kind}\n{label}: {body}\n\
                 .size {label}, .-{label}\n.symver {label}, {symbol}@{}, remove\n",
                node.name
            );
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_two_nodes_is_defined_in_one_and_an_alias_in_the_other() {
        let nodes =
            parse("A_1.0\n  f\n  g\nA_1.1 after A_1.0\n  f\nA_PRIVATE_1\n  p\nA_PRIVATE_2 like A_PRIVATE_1\n  q\n")
                .unwrap();
        let script = version_script(&nodes);
        assert!(script.contains("A_1.0 {\nglobal:\n  g;\n};"));
        assert!(script.contains("A_1.1 {\nglobal:\n  f;\nlocal: *;\n} A_1.0;"));
        assert_eq!(script.matches("  p;").count(), 1);
        let asm = aliases(&nodes, "x86_64").unwrap();
        assert!(asm.contains(", f@A_1.0, remove"));
        assert!(asm.contains(", p@A_PRIVATE_2, remove"));
        assert!(!asm.contains("q@A_PRIVATE_2"));
    }

    #[test]
    fn a_line_that_says_nothing_is_refused_with_its_number() {
        let error = parse("A_1.0\nwhat is this\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(parse("  orphan\n").is_err());
    }
}
