//! The last step of building `libibverbs.so.1`.
//!
//! rustc gives a `cdylib` no symbol versions, so `masq-ibverbs` is a static library
//! and the C compiler driver makes the shared one: soname, version nodes, and a
//! second version of those names that stand under several nodes.
//!
//! The result runs with an old glibc wherever it was built (ADR 0014): it is linked
//! against [stand-ins](stubs) for glibc's libraries.

pub mod container;
pub mod elf;
pub mod glibc;
mod stubs;
mod symbols;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use symbols::{Node, nodes};

/// Why no library came out.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The list of symbols is damaged.
    #[error("symbols.txt, line {line}: expected a node, a name or a comment, found `{text}`")]
    List {
        /// Counted from 1.
        line: usize,
        /// The line as it stands.
        text: String,
    },
    /// The list of what old glibc has is damaged.
    #[error("baseline.txt, line {line}: `{text}`")]
    Baseline {
        /// Counted from 1.
        line: usize,
        /// The line as it stands.
        text: String,
    },
    /// The result would not load with an old glibc.
    #[error("{path} needs {} of glibc; 2.17 must be enough", found.join(", "))]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// Version nodes.
        found: Vec<String>,
    },
    /// A file that should be a program or shared object is none.
    #[error("{path} is no ELF file that can be read: {detail}")]
    Elf {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// No jump instruction is known for this machine.
    #[error("aliases cannot be made for the architecture {0}")]
    Arch(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A compiler could not be started, or failed.
    #[error("`{command}` failed: {detail}")]
    Tool {
        /// The program.
        command: String,
        /// Its error output, or why it did not start.
        detail: String,
    },
}

/// Links `PROFILE_DIR/libmasq_ibverbs.a` into `OUT_DIR/libibverbs.so.1`.
///
/// `profile_dir` is `target/release` or the like; the result's path is returned.
///
/// # Errors
/// Whatever [`LinkError`] names; a missing static library is `Tool`.
pub fn link(profile_dir: &Path, out_dir: &Path) -> Result<PathBuf, LinkError> {
    let nodes = symbols::nodes()?;
    fs::create_dir_all(out_dir).map_err(|source| io(out_dir, source))?;
    // Made aside and renamed: a program may have the old library mapped, and others may
    // be linking it now.
    let aside = tempfile::tempdir_in(out_dir).map_err(|source| io(out_dir, source))?;
    let script = aside.path().join("libibverbs.map");
    let aliases = aside.path().join("libibverbs-aliases.s");
    let fresh = aside.path().join("libibverbs.so.1");
    let library = out_dir.join("libibverbs.so.1");
    write(&script, &symbols::version_script(&nodes))?;
    write(&aliases, &symbols::aliases(&nodes, std::env::consts::ARCH)?)?;

    let mut cc = compiler();
    cc.arg("-shared").arg("-o").arg(&fresh);
    cc.arg("-Wl,-soname,libibverbs.so.1");
    cc.arg(format!("-Wl,--version-script={}", script.display()));
    cc.args(["-Wl,-Bsymbolic-functions", "-Wl,--gc-sections"]);
    // Never unloaded: a thread and fork handlers may refer to it.
    cc.args(["-Wl,-z,nodelete", "-Wl,-z,relro", "-Wl,-z,defs"]);
    for name in symbols::owners(&nodes).keys() {
        cc.arg(format!("-Wl,--undefined={name}"));
    }
    cc.arg(&aliases).arg(profile_dir.join("libmasq_ibverbs.a"));
    match glibc::baseline(std::env::consts::ARCH)? {
        Some(libraries) => {
            cc.arg(stubs::shims(aside.path())?);
            cc.args(["-nodefaultlibs", "-Wl,--as-needed"]);
            cc.args(["-lgcc_eh", "-lgcc"]);
            cc.args(stubs::stubs(&libraries, aside.path())?);
            run(&mut cc)?;
            old_enough(&fresh)?;
        }
        None => {
            cc.args(["-static-libgcc", "-lpthread", "-ldl", "-lm"]);
            run(&mut cc)?;
        }
    }
    fs::rename(&fresh, &library).map_err(|source| io(&library, source))?;
    Ok(library)
}

/// Builds the static library with cargo, then [`link`]s it into
/// `TARGET_DIR/PROFILE/lib/masq/`.
///
/// # Errors
/// As [`link`]; cargo's own messages go to the terminal.
pub fn build_and_link(target_dir: &Path, release: bool) -> Result<PathBuf, LinkError> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "masq-ibverbs", "--target-dir"]);
    cargo.arg(target_dir);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if release {
        cargo.arg("--release");
    }
    run(&mut cargo)?;
    let profile = target_dir.join(if release { "release" } else { "debug" });
    link(&profile, &profile.join("lib/masq"))
}

/// Compilers may be set up to pack relocations, which is not for old loaders, or to call
/// what the stand-ins do not show.
fn old_enough(library: &Path) -> Result<(), LinkError> {
    let versions = elf::Dynamic::read(library)?.versions;
    let nodes = versions.into_iter().map(|(_, node)| node);
    let found: Vec<_> = nodes
        .filter(|node| glibc::Version::of_node(node).is_none_or(|v| v > glibc::BASELINE))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(LinkError::TooNew {
        path: library.to_owned(),
        found,
    })
}

fn compiler() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

fn run(command: &mut Command) -> Result<(), LinkError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |detail| LinkError::Tool {
        command: program.clone(),
        detail,
    };
    let out = command.output().map_err(|e| failed(e.to_string()))?;
    if out.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&out.stderr).into_owned()))
}

fn write(path: &Path, text: &str) -> Result<(), LinkError> {
    fs::write(path, text).map_err(|source| io(path, source))
}

fn io(path: &Path, source: std::io::Error) -> LinkError {
    LinkError::Io {
        path: path.to_owned(),
        source,
    }
}
