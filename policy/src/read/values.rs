//! Single values: text, numbers, names, addresses, sets.

use std::net::IpAddr;

use crate::{
    address::{Cidr, CidrError, VirtualAddress},
    diagnostic::{Code, Sink, Span},
    names::{DeviceName, NameError},
    quotas::parse_count,
    read::fields,
    yaml::{Node, Value, shorten},
};

/// The longest label, label key, rule name or description, in characters.
const MAX_WORD: usize = 63;
const MAX_DESCRIPTION: usize = 1000;

/// A scalar of any style as text.
pub(super) fn text<'n>(node: &'n Node, what: &str, sink: &mut Sink<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(text),
        _ => {
            sink.error(
                Code::WrongType,
                node.span,
                format!("{what} must be text, not {}", node.describe()),
            );
            None
        }
    }
}

/// A short text that is safe to print.
pub(super) fn word<'n>(node: &'n Node, what: &str, sink: &mut Sink<'_>) -> Option<&'n str> {
    let word = text(node, what, sink)?;
    check_word(word, node.span, what, MAX_WORD, sink).then_some(word)
}

pub(super) fn description<'n>(node: &'n Node, sink: &mut Sink<'_>) -> Option<&'n str> {
    let text = text(node, "a description", sink)?;
    if text.chars().count() > MAX_DESCRIPTION {
        sink.error(
            Code::BadValue,
            node.span,
            format!("a description has at most {MAX_DESCRIPTION} characters"),
        );
        return None;
    }
    Some(text)
}

pub(super) fn check_word(
    word: &str,
    span: Span,
    what: &str,
    most: usize,
    sink: &mut Sink<'_>,
) -> bool {
    let length = word.chars().count();
    if (1..=most).contains(&length) && !word.chars().any(char::is_control) {
        return true;
    }
    sink.error(
        Code::BadValue,
        span,
        format!("{what} must be 1 to {most} printable characters"),
    );
    false
}

pub(super) const LABEL_LEN: usize = MAX_WORD;

/// A plain decimal number.
pub(super) fn count(node: &Node, what: &str, sink: &mut Sink<'_>) -> Option<u64> {
    let refuse = |sink: &mut Sink<'_>| {
        sink.error(
            Code::WrongType,
            node.span,
            format!("{what} must be a number, not {}", node.describe()),
        );
        None
    };
    match &node.value {
        Value::Scalar { text, plain: true } => parse_count(text).or_else(|| refuse(sink)),
        Value::Scalar { text, plain: false } if parse_count(text).is_some() => {
            sink.error(
                Code::WrongType,
                node.span,
                format!("{what} must be a number, not {}", node.describe()),
            )
            .help("remove the quotes");
            None
        }
        _ => refuse(sink),
    }
}

/// A P_Key: hexadecimal after 0x, or decimal.
pub(super) fn pkey(node: &Node, sink: &mut Sink<'_>) -> Option<u16> {
    let number = match &node.value {
        Value::Scalar { text, plain: true } => match text.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16)
                .ok()
                .filter(|_| !digits.starts_with('+')),
            None => parse_count(text).and_then(|number| number.try_into().ok()),
        },
        _ => None,
    };
    if number.is_none() {
        let message = format!("`pkey` must be a P_Key, not {}", node.describe());
        sink.error(Code::WrongType, node.span, message)
            .label("expected 0x8001 to 0xffff");
    }
    number
}

/// The name of a device, as masqd calls it.
pub(super) fn device(node: &Node, sink: &mut Sink<'_>) -> Option<DeviceName> {
    let text = text(node, "a device", sink)?;
    if text == AUTO {
        let message = format!("`{AUTO}` is no device's name");
        sink.error(Code::BadName, node.span, message)
            .label("expected `soft`, or the name of a card such as `mlx5_0`")
            .help(
                "without `device` the tenant is on masqd's first one, which may be `--device auto`",
            );
        return None;
    }
    let refuse = |error: NameError| {
        let message = format!("`{}` cannot be a device's name: {error}", shorten(text));
        let draft = sink.error(Code::BadName, node.span, message);
        if let Some(card) = text.strip_prefix("verbs:")
            && DeviceName::new(card).is_ok()
        {
            draft.help(format!("a card goes by its own name: `device: {card}`"));
        }
    };
    DeviceName::new(text).map_err(refuse).ok()
}

/// What stands for any card on masqd's command line, and cannot in a policy: the same
/// file would mean something else from one start to the next.
pub(crate) const AUTO: &str = "auto";

pub(super) fn name<N>(
    text: &str,
    span: Span,
    new: fn(&str) -> Result<N, NameError>,
    sink: &mut Sink<'_>,
) -> Option<N> {
    new(text)
        .map_err(|error| {
            sink.error(
                Code::BadName,
                span,
                format!("`{}` cannot be a name: {error}", shorten(text)),
            );
        })
        .ok()
}

/// One IP address.
pub(super) fn address(node: &Node, sink: &mut Sink<'_>) -> Option<VirtualAddress> {
    let text = text(node, "an address", sink)?;
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(VirtualAddress::new(ip)),
        Err(_) => {
            let draft = sink
                .error(
                    Code::BadAddress,
                    node.span,
                    format!("`{}` is not an IP address", shorten(text)),
                )
                .label("expected an address such as 10.0.0.1 or fd00::1");
            if let Some((address, _)) = text.split_once('/')
                && address.parse::<IpAddr>().is_ok()
            {
                draft.help(format!("without the prefix length: `{address}`"));
            }
            None
        }
    }
}

/// A network, or an address as a network of one.
pub(super) fn cidr(node: &Node, sink: &mut Sink<'_>) -> Option<Cidr> {
    let text = text(node, "a network", sink)?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Cidr::host(VirtualAddress::new(ip)));
    }
    match Cidr::parse(text) {
        Ok(cidr) => Some(cidr),
        Err(CidrError::HostBits(network)) => {
            let message = format!("`{}` has bits set beyond its prefix", shorten(text));
            sink.error(Code::BadAddress, node.span, message)
                .help(format!("did you mean `{network}`?"));
            None
        }
        Err(CidrError::Syntax) => {
            sink.error(
                Code::BadAddress,
                node.span,
                format!("`{}` is not a network", shorten(text)),
            )
            .label("expected ADDRESS/PREFIX such as 10.0.0.0/8 or fd00::/64");
            None
        }
    }
}

/// How a closed set is read: its members' words, and what `all` means here.
pub(super) struct SetOf<F: 'static> {
    pub(super) what: &'static str,
    pub(super) members: &'static [F],
    pub(super) name: fn(F) -> &'static str,
    /// What `all` and `except` start from.
    pub(super) base: Vec<F>,
    /// Whose set `base` is, when a list may not exceed it.
    pub(super) within: Option<String>,
}

impl<F: Copy + PartialEq> SetOf<F> {
    /// Reads `all`, `none`, one word, a list, or `{except: list}`.
    pub(super) fn read<S: FromIterator<F>>(&self, node: &Node, sink: &mut Sink<'_>) -> Option<S> {
        match &node.value {
            Value::Scalar { text, .. } if text == "all" => {
                Some(self.base.iter().copied().collect())
            }
            Value::Scalar { text, .. } if text == "none" => Some(S::from_iter([])),
            Value::Scalar { .. } if !node.is_null() => {
                self.member(node, true, sink).map(|f| S::from_iter([f]))
            }
            Value::Sequence(items) => self.list(items, true, sink).map(S::from_iter),
            Value::Mapping(_) => {
                let fields = fields::Fields::read(node, self.what, &["except"], sink)?;
                let except = fields.require("except", sink)?;
                let removed = match &except.value {
                    Value::Sequence(items) => self.list(items, false, sink)?,
                    _ => vec![self.member(except, false, sink)?],
                };
                Some(
                    self.base
                        .iter()
                        .copied()
                        .filter(|f| !removed.contains(f))
                        .collect(),
                )
            }
            Value::Scalar { .. } => {
                sink.error(
                    Code::WrongType,
                    node.span,
                    format!("{} must be a list, not nothing", self.what),
                )
                .label(format!(
                    "expected `all`, `none`, or some of: {}",
                    self.words()
                ));
                None
            }
        }
    }

    fn words(&self) -> String {
        self.members
            .iter()
            .map(|f| (self.name)(*f))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// All items, so that each bad one is reported.
    fn list(&self, items: &[Node], bounded: bool, sink: &mut Sink<'_>) -> Option<Vec<F>> {
        let read: Vec<_> = items
            .iter()
            .map(|item| self.member(item, bounded, sink))
            .collect();
        read.into_iter().collect()
    }

    fn member(&self, node: &Node, bounded: bool, sink: &mut Sink<'_>) -> Option<F> {
        let word = text(node, &format!("a member of {}", self.what), sink)?;
        let Some(found) = self
            .members
            .iter()
            .copied()
            .find(|f| (self.name)(*f) == word)
        else {
            sink.error(
                Code::BadValue,
                node.span,
                format!("`{}` is not one of {}", shorten(word), self.what),
            )
            .label(format!("expected one of: {}", self.words()))
            .suggest(word, self.members.iter().map(|f| (self.name)(*f)));
            return None;
        };
        if let Some(owner) = self
            .within
            .as_ref()
            .filter(|_| bounded && !self.base.contains(&found))
        {
            sink.error(
                Code::ExceedsTenant,
                node.span,
                format!("{owner} does not have `{word}` in {}", self.what),
            )
            .label("an endpoint can have less than its tenant, not more");
            return None;
        }
        Some(found)
    }
}
