//! `cargo xtask man`: manual pages and completions of masq and masqd.

#[cfg(not(feature = "man"))]
pub(crate) fn man() -> anyhow::Result<()> {
    // Built anew with both binaries' command lines, which other chores do
    // without.
    let xtask = ["run", "--quiet", "-p", "xtask", "--features", "man", "--"];
    crate::build::cargo(&[&xtask[..], &["man"]].concat())
}

#[cfg(feature = "man")]
pub(crate) fn man() -> anyhow::Result<()> {
    use clap_complete::{Shell, generate_to};
    let target = crate::build::target_dir()?;
    let (pages, completions) = (target.join("man"), target.join("completions"));
    let _ = std::fs::remove_dir_all(&pages);
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    let commands = [("masq", masq_cli::command()), ("masqd", masqd::command())];
    for (name, mut command) in commands {
        // Before completions are made, which adds the subcommands called help.
        clap_mangen::generate_to(without_help(command.clone()), &pages)?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut command, name, &completions)?;
        }
    }
    crate::progress::say(&format!(
        "manual pages in {}, completions in {}",
        pages.display(),
        completions.display()
    ));
    Ok(())
}

/// No pages about the subcommands called help.
#[cfg(feature = "man")]
fn without_help(command: clap::Command) -> clap::Command {
    command
        .disable_help_subcommand(true)
        .mut_subcommands(without_help)
}
