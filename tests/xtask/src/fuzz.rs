//! `cargo xtask fuzz`: the property tests, with many more cases than a test
//! run has time for.

use crate::build::cargo;
use crate::progress::heading;
use clap::Args;

/// Packages with property tests, and the test target that holds them; none:
/// among the unit tests.
const TARGETS: &[(&str, Option<&str>)] = &[
    ("masq-policy", Some("properties")),
    ("masq-rdmacm", None),
    ("masq-regmem", Some("model")),
    ("masq-transport", None),
];

#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// Cases of each property.
    #[arg(long, default_value_t = 20_000)]
    cases: u32,
    /// Only this package.
    #[arg(long)]
    package: Option<String>,
}

pub(crate) fn fuzz(args: &FuzzArgs) -> anyhow::Result<()> {
    let chosen = |name: &str| args.package.as_deref().is_none_or(|p| p == name);
    let cases = format!("env.PROPTEST_CASES=\"{}\"", args.cases);
    for (package, target) in TARGETS.iter().filter(|(name, _)| chosen(name)) {
        heading(&format!("{package}, {} cases each", args.cases));
        let mut command = vec!["--config", &cases, "test", "--release", "-p", package];
        match target {
            Some(target) => command.extend(["--test", target]),
            None => command.push("--lib"),
        }
        cargo(&command)?;
    }
    Ok(())
}
