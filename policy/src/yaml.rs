//! YAML to a tree of nodes that know their place, within fixed bounds.
//!
//! The bounds hold whatever the text: its length, the depth of nesting, and the number of nodes
//! *after* aliases are expanded, so that a few lines cannot become gigabytes.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::diagnostic::{Code, Sink, Span};

/// Most bytes of a policy file.
pub const MAX_TEXT: usize = 4 << 20;
/// Most nodes of the tree, aliases expanded.
pub(crate) const MAX_NODES: usize = 1_000_000;
/// Deepest nesting; the format itself needs eight levels.
pub(crate) const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
    /// Nodes of the subtree, this one included.
    size: usize,
    /// Levels below this node.
    depth: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// `plain` is false for quoted and block scalars.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// An absent value: nothing, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(&**text, "" | "~" | "null"))
    }

    /// What the node is, for "expected X, found Y".
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".to_owned(),
            Value::Scalar { text, plain: true } if text.parse::<f64>().is_ok() => {
                format!("the number {}", shorten(text))
            }
            Value::Scalar { text, .. } => format!("the text `{}`", shorten(text)),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// `text` on one line and of a length that fits into a message.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(40)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

struct Frame {
    start: usize,
    anchor: usize,
    size: usize,
    depth: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        pairs: Vec<(Node, Node)>,
        key: Option<Node>,
    },
}

/// Reads the one document of `text`; `None` after reporting why not.
pub(crate) fn parse(text: &str, sink: &mut Sink<'_>) -> Option<Node> {
    let start = Span { start: 0, end: 0 };
    if text.len() > MAX_TEXT {
        sink.error(
            Code::TooLarge,
            start,
            format!(
                "the file has {} bytes; at most {MAX_TEXT} are read",
                text.len()
            ),
        );
        return None;
    }
    let mut builder = Builder {
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
        documents: 0,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                report_syntax(text, &error, sink);
                return None;
            }
        };
        let span = Span {
            start: span.start.index(),
            end: span.end.index(),
        };
        if let Err((code, message)) = builder.event(event, span) {
            sink.error(code, span, message);
            return None;
        }
    }
    if builder.root.is_none() {
        sink.error(Code::Version, start, "the file is empty")
            .help("a policy begins with `version: 1` and `tenants:`");
    }
    builder.root
}

fn report_syntax(text: &str, error: &saphyr_parser::ScanError, sink: &mut Sink<'_>) {
    let at = error.marker().index();
    let span = Span {
        start: at,
        end: at + 1,
    };
    // The parser's own words for a tab speak of what it could not scan, not of the tab.
    if let Some(tab) = indentation_tab(text, at) {
        sink.error(
            Code::Syntax,
            Span {
                start: tab,
                end: tab + 1,
            },
            "a tab in the indentation",
        )
        .label("YAML indents by spaces only")
        .help("replace the tab by spaces");
        return;
    }
    let draft = sink.error(
        Code::Syntax,
        span,
        format!("not valid YAML: {}", error.info()),
    );
    if error.info().contains("flow") {
        draft.help("is a `{` or `[` before this place left open?");
    }
}

/// The first tab in the indentation of the line of character `at`, or of the line before.
fn indentation_tab(text: &str, at: usize) -> Option<usize> {
    let mut line_start = 0;
    let mut previous = None;
    for line in text.split_inclusive('\n') {
        let length = line.chars().count();
        let indent = line.chars().take_while(|c| matches!(c, ' ' | '\t'));
        let tab = indent
            .enumerate()
            .find(|(_, c)| *c == '\t')
            .map(|(i, _)| line_start + i);
        if at < line_start + length {
            return tab.or(previous);
        }
        previous = tab;
        line_start += length;
    }
    previous
}

struct Builder {
    stack: Vec<Frame>,
    /// Finished nodes only, so an alias within its own anchor finds nothing.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

type Refusal = (Code, String);

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Refusal> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((
                        Code::Syntax,
                        "a policy is one YAML document, this begins another".to_owned(),
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some())?;
                self.count(1)?;
                let plain = style == ScalarStyle::Plain;
                let value = Value::Scalar {
                    text: text.into_owned(),
                    plain,
                };
                self.place(
                    Node {
                        span,
                        value,
                        size: 1,
                        depth: 0,
                    },
                    anchor,
                )
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err((
                        Code::Syntax,
                        "an alias within the node that it stands for".to_owned(),
                    ));
                };
                // Counted before it is copied.
                let size = node.size;
                self.count(size)?;
                let node = self.anchors.get(&anchor).cloned();
                node.map_or(Ok(()), |node| self.place(node, 0))
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.is_some())?;
                self.open(span, anchor, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.is_some())?;
                self.open(
                    span,
                    anchor,
                    Content::Mapping {
                        pairs: Vec::new(),
                        key: None,
                    },
                )
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.stack.pop() else {
                    return Ok(());
                };
                let value = match frame.content {
                    Content::Sequence(items) => Value::Sequence(items),
                    Content::Mapping { pairs, .. } => Value::Mapping(pairs),
                };
                let span = Span {
                    start: frame.start,
                    end: span.end,
                };
                self.place(
                    Node {
                        span,
                        value,
                        size: frame.size,
                        depth: frame.depth,
                    },
                    frame.anchor,
                )
            }
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), Refusal> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err((
                Code::TooLarge,
                format!("more than {MAX_NODES} values, aliases expanded"),
            ));
        }
        Ok(())
    }

    fn open(&mut self, span: Span, anchor: usize, content: Content) -> Result<(), Refusal> {
        self.count(1)?;
        check_depth(self.stack.len() + 1)?;
        self.stack.push(Frame {
            start: span.start,
            anchor,
            size: 1,
            depth: 0,
            content,
        });
        Ok(())
    }

    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Refusal> {
        check_depth(self.stack.len() + node.depth)?;
        if anchor > 0 {
            self.count(node.size)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.size += node.size;
        frame.depth = frame.depth.max(node.depth + 1);
        match &mut frame.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { pairs, key } => match key.take() {
                None => *key = Some(node),
                Some(key) => pairs.push((key, node)),
            },
        }
        Ok(())
    }
}

fn refuse_tag(present: bool) -> Result<(), Refusal> {
    if present {
        return Err((Code::Syntax, "a policy uses no YAML tags (`!…`)".to_owned()));
    }
    Ok(())
}

fn check_depth(depth: usize) -> Result<(), Refusal> {
    if depth > MAX_DEPTH {
        return Err((
            Code::TooLarge,
            format!("nested more than {MAX_DEPTH} levels deep"),
        ));
    }
    Ok(())
}
