//! `link-libibverbs [--release] [TARGET_DIR]`: builds and links the library, and
//! prints where it lies.

use anyhow::Context as _;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut release = false;
    let mut target = None;
    for argument in std::env::args_os().skip(1) {
        if argument == "--release" {
            release = true;
        } else {
            target = Some(PathBuf::from(argument));
        }
    }
    let target = match target {
        Some(path) => path,
        // The program itself lies in TARGET_DIR/PROFILE/.
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("no target directory above this program")?
            .to_owned(),
    };
    let library = masq_link::build_and_link(&target, release)?;
    println!("{}", library.display());
    Ok(())
}
