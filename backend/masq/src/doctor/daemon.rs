//! The masqd of the run directory.

use super::Check;
use crate::ps;
use masq_admin::Overview;
use std::collections::BTreeSet;
use std::path::Path;

const OURS: &str = env!("CARGO_PKG_VERSION");

pub(super) fn checks(run_dir: &Path) -> Vec<Check> {
    const NAME: &str = "masqd";
    match ps::overview(run_dir) {
        Ok(overview) => {
            let found = format!(
                "{}, pid {}, {} endpoints, {} sessions",
                overview.version,
                overview.pid,
                overview.endpoints.len(),
                overview.sessions.len()
            );
            vec![Check::ok(NAME, found), versions(&overview)]
        }
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            vec![Check::warn(
                NAME,
                first,
                "start it: masqd --policy FILE --run-dir DIR; or name its directory: --run-dir",
            )]
        }
    }
}

fn versions(overview: &Overview) -> Check {
    const NAME: &str = "versions";
    let other: BTreeSet<_> = overview
        .sessions
        .iter()
        .map(|session| session.frontend_version.as_str())
        .chain([overview.version.as_str()])
        .filter(|version| *version != OURS)
        .collect();
    if other.is_empty() {
        return Check::ok(NAME, format!("masq, masqd and libraries in use: {OURS}"));
    }
    let others: Vec<_> = other.into_iter().collect();
    Check::warn(
        NAME,
        format!("masq is {OURS}, in use is also {}", others.join(", ")),
        "different versions agree on features or refuse each other; install one version",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use masq_admin::SessionReport;

    #[test]
    fn a_library_of_another_version_is_noticed() {
        let mut overview = Overview {
            version: OURS.to_owned(),
            ..Default::default()
        };
        assert_eq!(versions(&overview).level, Level::Ok);
        overview.sessions.push(SessionReport {
            frontend_version: "9.9.9".into(),
            ..Default::default()
        });
        let check = versions(&overview);
        assert_eq!(check.level, Level::Warn);
        assert!(check.found.contains("9.9.9"));
    }
}
