//! Stand-ins for glibc's libraries that offer what the old ones had and nothing more.
//!
//! The linker binds each undefined name to the version and library that it finds, so
//! linking against these yields what linking on an old machine would. Nothing of them
//! gets into the result.

use crate::glibc::Library;
use crate::{LinkError, compiler, run, write};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const SHIMS: &str = include_str!("../glibc/shims.c");

/// Makes a stub for each library in `dir`; their paths.
pub(crate) fn stubs(libraries: &[Library], dir: &Path) -> Result<Vec<PathBuf>, LinkError> {
    libraries.iter().map(|library| stub(library, dir)).collect()
}

fn stub(library: &Library, dir: &Path) -> Result<PathBuf, LinkError> {
    let soname = &library.soname;
    let path = dir.join(soname);
    let assembly = dir.join(format!("{soname}.s"));
    let script = dir.join(format!("{soname}.map"));
    write(&assembly, &definitions(library))?;
    write(&script, &version_script(library))?;
    let mut cc = compiler();
    cc.args(["-shared", "-nostdlib"]).arg("-o").arg(&path);
    cc.arg(format!("-Wl,-soname,{soname}"));
    cc.arg(format!("-Wl,--version-script={}", script.display()));
    cc.arg(&assembly);
    run(&mut cc)?;
    Ok(path)
}

fn definitions(library: &Library) -> String {
    let mut out = String::from(".section .note.GNU-stack,\"\",%progbits\n.text\n");
    for (_, name) in &library.symbols {
        let _ = writeln!(
            out,
            ".globl {name}\n.type {name},%function\n{name}: .skip 4"
        );
    }
    out
}

fn version_script(library: &Library) -> String {
    let mut nodes: BTreeMap<&str, String> = BTreeMap::new();
    for (version, name) in &library.symbols {
        let _ = write!(nodes.entry(version).or_default(), " {name};");
    }
    nodes
        .into_iter()
        .fold(String::new(), |mut out, (v, names)| {
            let _ = writeln!(out, "{v} {{{names} }};");
            out
        })
}

/// Compiles what old glibc lacks; the object file.
pub(crate) fn shims(dir: &Path) -> Result<PathBuf, LinkError> {
    let (source, object) = (dir.join("shims.c"), dir.join("shims.o"));
    write(&source, SHIMS)?;
    let mut cc = compiler();
    cc.args(["-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden"]);
    cc.args(["-ffunction-sections", "-fno-stack-protector"]);
    cc.args(["-U_FORTIFY_SOURCE", "-Wall", "-Werror", "-c", "-o"]);
    cc.arg(&object).arg(&source);
    run(&mut cc)?;
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_under_its_version_only() {
        let entry = |v: &str, n: &str| (v.to_owned(), n.to_owned());
        let library = Library {
            soname: "libc.so.6".to_owned(),
            symbols: vec![
                entry("GLIBC_2.2.5", "free"),
                entry("GLIBC_2.14", "memcpy"),
                entry("GLIBC_2.2.5", "malloc"),
            ],
        };
        assert_eq!(
            version_script(&library),
            "GLIBC_2.14 { memcpy; };\nGLIBC_2.2.5 { free; malloc; };\n"
        );
        assert_eq!(definitions(&library).matches(".globl").count(), 3);
    }
}
