//! Mappings: with known keys, or with keys that are names.

use std::collections::HashMap;

use crate::{
    diagnostic::{Code, Sink, Span},
    read::MAX_ITEMS,
    yaml::{Node, Value, shorten},
};

/// One entry of a mapping.
pub(super) struct Entry<'n> {
    pub(super) key: &'n str,
    pub(super) key_span: Span,
    pub(super) value: &'n Node,
}

/// A mapping whose keys the format defines.
pub(super) struct Fields<'n> {
    what: String,
    span: Span,
    entries: Vec<Entry<'n>>,
}

/// The entries of a mapping, each key once; nothing (`key:` alone) is an empty mapping.
pub(super) fn entries<'n>(
    node: &'n Node,
    what: &str,
    sink: &mut Sink<'_>,
) -> Option<Vec<Entry<'n>>> {
    let pairs = match &node.value {
        Value::Mapping(pairs) => pairs,
        _ if node.is_null() => return Some(Vec::new()),
        _ => {
            sink.error(
                Code::WrongType,
                node.span,
                format!("{what} must be a mapping, not {}", node.describe()),
            )
            .label("expected `key: value` lines");
            return None;
        }
    };
    let mut first: HashMap<&str, Span> = HashMap::new();
    let mut entries = Vec::new();
    for (key, value) in pairs {
        let Value::Scalar { text, .. } = &key.value else {
            sink.error(
                Code::WrongType,
                key.span,
                format!("a key of {what} must be text, not {}", key.describe()),
            );
            continue;
        };
        if let Some(earlier) = first.get(&**text) {
            sink.error(
                Code::DuplicateKey,
                key.span,
                format!("{what} has the key `{}` twice", shorten(text)),
            )
            .label("again here")
            .related(*earlier, "first here");
            continue;
        }
        first.insert(text, key.span);
        entries.push(Entry {
            key: text,
            key_span: key.span,
            value,
        });
    }
    Some(entries)
}

/// The items of a list; nothing is an empty list.
pub(super) fn items<'n>(node: &'n Node, what: &str, sink: &mut Sink<'_>) -> Option<&'n [Node]> {
    match &node.value {
        Value::Sequence(items) => Some(items),
        _ if node.is_null() => Some(&[]),
        _ => {
            sink.error(
                Code::WrongType,
                node.span,
                format!("{what} must be a list, not {}", node.describe()),
            )
            .label("expected a list: `[…]`, or lines that begin with `- `");
            None
        }
    }
}

pub(super) fn check_length(
    length: usize,
    what: &str,
    span: Span,
    sink: &mut Sink<'_>,
) -> Option<()> {
    if length > MAX_ITEMS {
        sink.error(
            Code::TooLarge,
            span,
            format!("{length} {what}, but at most {MAX_ITEMS} are possible"),
        );
        return None;
    }
    Some(())
}

impl<'n> Fields<'n> {
    /// Reads a mapping that has no other keys than `known`.
    pub(super) fn read(
        node: &'n Node,
        what: &str,
        known: &[&str],
        sink: &mut Sink<'_>,
    ) -> Option<Self> {
        Self::read_filtered(node, what, known, |_| false, sink)
    }

    /// The same, but keys that begin with `x-` are left to the author, as a place for anchors.
    pub(super) fn read_open(
        node: &'n Node,
        what: &str,
        known: &[&str],
        sink: &mut Sink<'_>,
    ) -> Option<Self> {
        Self::read_filtered(node, what, known, |key| key.starts_with("x-"), sink)
    }

    fn read_filtered(
        node: &'n Node,
        what: &str,
        known: &[&str],
        ignored: fn(&str) -> bool,
        sink: &mut Sink<'_>,
    ) -> Option<Self> {
        let mut entries = entries(node, what, sink)?;
        entries.retain(|entry| {
            if known.contains(&entry.key) {
                return true;
            }
            if !ignored(entry.key) {
                let message = format!("{what} has no key `{}`", shorten(entry.key));
                let draft = sink
                    .error(Code::UnknownKey, entry.key_span, message)
                    .label(format!("expected one of: {}", known.join(", ")));
                if entry.key == "<<" {
                    draft.help(
                        "merge keys are not supported; alias the whole value (`quotas: *name`)",
                    );
                } else {
                    draft.suggest(entry.key, known.iter().copied());
                }
            }
            false
        });
        Some(Self {
            what: what.to_owned(),
            span: node.span,
            entries,
        })
    }

    /// Where the mapping is.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value)
    }

    /// The entries in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<'n>> {
        self.entries.iter()
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &str, sink: &mut Sink<'_>) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            sink.error(
                Code::MissingKey,
                self.span,
                format!("{} has no `{key}`", self.what),
            )
            .label(format!("expected `{key}: …` here"));
        }
        found
    }
}
