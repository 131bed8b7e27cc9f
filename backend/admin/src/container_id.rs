//! How containers are called.

use std::fmt;

/// The id that a runtime gave a container: safe as a path component.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks `text`.
    ///
    /// # Errors
    /// Which rule it breaks, in words.
    pub fn new(text: &str) -> Result<Self, String> {
        let odd = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.'));
        if text.is_empty() {
            return Err("the container's id is empty".to_owned());
        }
        if text.len() > 128 {
            return Err(format!("the container's id has {} characters", text.len()));
        }
        if let Some(c) = text.chars().find(odd) {
            return Err(format!("the container's id has the character {c:?}"));
        }
        if text.starts_with('.') {
            return Err("the container's id begins with a dot".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_names() {
        let fit = ["3f2a", "web-1", "a_b.c+d"];
        assert!(fit.iter().all(|id| ContainerId::new(id).is_ok()));
        let unfit = [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "a b",
            "a\0",
            "é",
            &"x".repeat(129),
        ];
        assert!(!unfit.iter().any(|id| ContainerId::new(id).is_ok()));
    }
}
