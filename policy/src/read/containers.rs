//! `containers` and `addresses`: which containers may be a tenant's, and where.

use crate::{
    address::Cidr,
    container::{ContainerSelector, Containers},
    diagnostic::{Code, Sink},
    read::{
        fields::{self, Fields},
        tenant::read_labels,
        values,
    },
    yaml::{Node, Value},
};

/// Keys of a selector of containers.
pub(crate) const CONTAINER_KEYS: &[&str] = &["image", "network", "labels"];

/// Longest pattern for the names of images.
const IMAGE_LEN: usize = 255;

/// `any`, `none`, one selector, or a list of them.
pub(super) fn read(node: &Node, sink: &mut Sink<'_>) -> Option<Containers> {
    let nodes = match &node.value {
        Value::Scalar { text, .. } if text == "any" => return Some(Containers::Any),
        Value::Scalar { text, .. } if text == "none" => return Some(Containers::Of(Vec::new())),
        Value::Mapping(_) => std::slice::from_ref(node),
        Value::Sequence(items) if !items.is_empty() => items,
        _ => {
            let message = format!("`containers` must be a list, not {}", node.describe());
            sink.error(Code::WrongType, node.span, message)
                .label("expected `any`, `none`, or a list of { image: …, network: …, labels: … }");
            return None;
        }
    };
    fields::check_length(nodes.len(), "selectors of containers", node.span, sink)?;
    let read: Vec<_> = nodes.iter().map(|node| selector(node, sink)).collect();
    Some(Containers::Of(read.into_iter().collect::<Option<_>>()?))
}

fn selector(node: &Node, sink: &mut Sink<'_>) -> Option<ContainerSelector> {
    let fields = Fields::read(node, "a selector of containers", CONTAINER_KEYS, sink)?;
    if fields.iter().next().is_none() {
        sink.error(
            Code::BadValue,
            node.span,
            "a selector of containers that says nothing",
        )
        .help("write `containers: any` for all");
        return None;
    }
    let image = fields.get("image").map(|node| image(node, sink));
    let network = fields.get("network").map(|node| values::cidr(node, sink));
    let labels = fields.get("labels").map(|node| read_labels(node, sink));
    Some(ContainerSelector {
        image: transpose(image)?,
        network: transpose(network)?,
        labels: transpose(labels)?.unwrap_or_default(),
    })
}

/// What is absent is right; what is there but wrong is not.
fn transpose<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    read.map_or(Some(None), |value| value.map(Some))
}

fn image(node: &Node, sink: &mut Sink<'_>) -> Option<String> {
    let text = values::text(node, "an image", sink)?;
    values::check_word(text, node.span, "an image", IMAGE_LEN, sink).then(|| text.to_owned())
}

/// A network, or a list of networks.
pub(super) fn networks(node: &Node, sink: &mut Sink<'_>) -> Option<Vec<Cidr>> {
    let nodes = match &node.value {
        Value::Scalar { .. } if !node.is_null() => std::slice::from_ref(node),
        _ => fields::items(node, "`addresses`", sink)?,
    };
    fields::check_length(nodes.len(), "networks", node.span, sink)?;
    let read: Vec<_> = nodes.iter().map(|node| values::cidr(node, sink)).collect();
    read.into_iter().collect()
}
