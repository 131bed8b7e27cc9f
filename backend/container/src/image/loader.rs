//! Where the loader of an image looks for libraries: /etc/ld.so.conf and its defaults.

use crate::rootfs::Root;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Path of glibc's loader in the programs of this architecture.
#[cfg(target_arch = "x86_64")]
pub(crate) const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// Path of glibc's loader in the programs of this architecture.
#[cfg(target_arch = "aarch64")]
pub(crate) const LOADER: &str = "/lib/ld-linux-aarch64.so.1";

/// Debian's directory of this architecture's libraries; its loader searches there.
#[cfg(target_arch = "x86_64")]
pub(crate) const MULTIARCH_DIR: &str = "/lib/x86_64-linux-gnu";
/// Debian's directory of this architecture's libraries; its loader searches there.
#[cfg(target_arch = "aarch64")]
pub(crate) const MULTIARCH_DIR: &str = "/lib/aarch64-linux-gnu";

/// Directory with builds for newer processors, in any directory of libraries.
pub(super) const HWCAPS: &str = "glibc-hwcaps";

const CONF: &str = "/etc/ld.so.conf";
const MAX_FILES: usize = 64;
const MAX_FILE: u64 = 64 << 10;
const MAX_DIRS: usize = 256;
const MAX_NAMES: usize = 4096;
/// Patterns of `include` that are followed.
const MAX_PATTERNS: usize = 256;

/// Directories in the order in which the loader comes to them; not all need exist.
pub(super) fn directories(root: &Root) -> Vec<PathBuf> {
    let mut dirs = configured(root);
    let multiarch = Path::new(MULTIARCH_DIR);
    dirs.push(multiarch.to_owned());
    dirs.push(PathBuf::from(format!("/usr{MULTIARCH_DIR}")));
    for dir in ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"] {
        dirs.push(dir.into());
    }
    dirs
}

/// Whether there is a loader of musl.
pub(super) fn has_musl(root: &Root) -> bool {
    root.names(Path::new("/lib"), MAX_NAMES)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.to_str())
        .any(|name| name.starts_with("ld-musl-"))
}

/// What /etc/ld.so.conf says. An include tree, however deep or circular, ends after
/// [`MAX_FILES`] files.
fn configured(root: &Root) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    let mut files = vec![PathBuf::from(CONF)];
    let (mut read, mut patterns) = (0, 0);
    while let Some(file) = files.pop() {
        if read >= MAX_FILES || dirs.len() >= MAX_DIRS {
            break;
        }
        read += 1;
        let Ok(bytes) = root.read(&file, MAX_FILE) else {
            continue;
        };
        for line in String::from_utf8_lossy(&bytes).lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(pattern) = line
                .strip_prefix("include")
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace()))
            {
                for pattern in pattern.split_whitespace() {
                    patterns += 1;
                    if patterns <= MAX_PATTERNS {
                        included(root, &file, pattern, &mut files);
                    }
                }
            } else if line.starts_with('/') && dirs.len() < MAX_DIRS {
                dirs.push(line.into());
            }
        }
    }
    dirs
}

/// Files that `include PATTERN` of `by` means; wildcards in the last component only.
fn included(root: &Root, by: &Path, pattern: &str, files: &mut Vec<PathBuf>) {
    let path = by.parent().unwrap_or(Path::new("/")).join(pattern);
    let (Some(dir), Some(last)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return;
    };
    if !last.contains(['*', '?']) {
        files.push(path);
    } else if let Ok(mut names) = root.names(dir, MAX_NAMES) {
        // The last one pushed is read first.
        names.sort_by(|a, b| b.cmp(a));
        let fitting = names
            .into_iter()
            .filter(|name| name.to_str().is_some_and(|name| matches(last, name)))
            .map(|name| dir.join(name));
        files.extend(fitting);
    }
    files.truncate(MAX_NAMES);
}

/// Whether `name` fits a shell pattern of `*` and `?`. Takes time in proportion to the
/// product of the lengths at most.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || c == byte => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("*", "x"),
            ("a?c*", "abcd"),
            ("*a*b", "xaxab"),
            ("plain", "plain"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.conf", "a.con"),
            ("*", ".hidden"),
            ("a?c", "ac"),
            ("*a*b", "xaxa"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
