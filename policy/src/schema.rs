//! The JSON Schema of the policy file, made from the tables that the reader uses.

use serde_json::{Map, Value, json};

use crate::{
    quotas::{QUOTAS, Unit},
    read::{AUTO, VERSION},
    rule::PortSpace,
    sets::{QpType, RemoteRight, Verb},
};

/// The JSON Schema (draft 2020-12) of a policy file, for editors and linters.
///
/// It is looser than [`crate::Policy::parse`]: what needs more than one place to see (unknown
/// endpoints, equal addresses) or arithmetic (prefixes) is left to that.
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://masq-rdma.github.io/schema/masq-policy.schema.json",
        "title": "masq policy",
        "description": "Tenants, their endpoints, and who may connect to whom by RDMA.",
        "type": "object",
        "required": ["version", "tenants"],
        "additionalProperties": false,
        "patternProperties": { "^x-": { "description": "Ignored; a place for YAML anchors." } },
        "properties": {
            "version": { "const": VERSION, "description": "The version of this format." },
            "hosts": {
                "description": "Hosts that run masqd, by name; needed for more than one without etcd.",
                "type": ["object", "null"],
                "propertyNames": { "$ref": "#/$defs/name" },
                "additionalProperties": { "$ref": "#/$defs/host" }
            },
            "tenants": {
                "description": "Tenants by name. Tenants never reach each other; they may use the same addresses.",
                "type": ["object", "null"],
                "propertyNames": { "$ref": "#/$defs/name" },
                "additionalProperties": { "$ref": "#/$defs/tenant" }
            }
        },
        "$defs": definitions()
    })
}

fn definitions() -> Value {
    json!({
        "name": {
            "description": "A word of the policy language, or what looks like an IPv4 address, is no name.",
            "type": "string",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$",
            "not": { "anyOf": [{ "enum": ["any", "all", "none", "self"] }, { "pattern": "^[0-9]*\\.[0-9.]*$" }] }
        },
        "host": {
            "type": "object",
            "required": ["address"],
            "additionalProperties": false,
            "properties": {
                "address": { "type": "string", "description": "The host's own IPv4 or IPv6 address on the network between hosts." }
            }
        },
        "pkey": {
            "description": "The partition on the wire, with the full-member bit: 0x8001 to 0xffff. Default: derived from the tenant's name. 0xffff is what plain hosts use.",
            "anyOf": [
                { "type": "integer", "minimum": 0x8001, "maximum": 0xffff },
                { "type": "string", "pattern": "^0x[89a-fA-F][0-9a-fA-F]{3}$", "not": { "const": "0x8000" } }
            ]
        },
        "labels": {
            "description": "Keys and values of your choice, for rules to select by.",
            "type": ["object", "null"],
            "additionalProperties": { "type": ["string", "number", "boolean"] }
        },
        "tenant": {
            "type": ["object", "null"],
            "additionalProperties": false,
            "properties": {
                "description": { "type": "string", "description": "Free text." },
                "labels": { "$ref": "#/$defs/labels" },
                "quotas": { "$ref": "#/$defs/quotas" },
                "qp_types": { "$ref": "#/$defs/qp_types" },
                "verbs": { "$ref": "#/$defs/verbs" },
                "remote_access": { "$ref": "#/$defs/remote_access" },
                "multicast": {
                    "description": "Networks of the multicast groups that may be joined; default any. Groups are each tenant's own.",
                    "type": ["string", "array"],
                    "items": { "type": "string" }
                },
                "pkey": { "$ref": "#/$defs/pkey" },
                "device": {
                    "$ref": "#/$defs/name",
                    "not": { "const": AUTO },
                    "description": "The device of masqd that carries its data: `soft`, or a card by its name. Default: masqd's first."
                },
                "addresses": {
                    "description": "Networks in which the addresses of its endpoints lie; needed for `address: auto`.",
                    "type": ["string", "array"],
                    "items": { "type": "string" }
                },
                "containers": { "$ref": "#/$defs/containers" },
                "endpoints": {
                    "description": "Endpoints by name.",
                    "type": ["object", "null"],
                    "propertyNames": { "$ref": "#/$defs/name" },
                    "additionalProperties": { "$ref": "#/$defs/endpoint" }
                },
                "rules": {
                    "description": "The first rule that matches decides; if none does, the connection is denied.",
                    "type": ["array", "null"],
                    "items": { "$ref": "#/$defs/rule" }
                }
            }
        },
        "endpoint": { "anyOf": [{ "$ref": "#/$defs/inside" }, { "$ref": "#/$defs/outside" }] },
        "outside": {
            "description": "A host without masqd, such as one with rdma_rxe or an RDMA card.",
            "type": "object",
            "required": ["outside"],
            "additionalProperties": false,
            "properties": {
                "outside": { "type": "string", "description": "Its own IPv4 or IPv6 address. The tenant needs the `pkey` that it uses." },
                "labels": { "$ref": "#/$defs/labels" },
                "qp_types": { "$ref": "#/$defs/qp_types" }
            }
        },
        "inside": {
            "type": "object",
            "required": ["address"],
            "additionalProperties": false,
            "properties": {
                "host": { "$ref": "#/$defs/name", "description": "The host where it lives; without it: wherever it is registered." },
                "address": { "type": "string", "description": "The virtual IPv4 or IPv6 address, unique within the tenant; or `auto`: each container that asks for it becomes an endpoint with its own addresses." },
                "labels": { "$ref": "#/$defs/labels" },
                "quotas": { "$ref": "#/$defs/quotas" },
                "qp_types": { "$ref": "#/$defs/qp_types" },
                "verbs": { "$ref": "#/$defs/verbs" },
                "remote_access": { "$ref": "#/$defs/remote_access" },
                "containers": { "$ref": "#/$defs/containers" }
            }
        },
        "containers": {
            "description": "Which containers may become one: `any` (default), `none`, or those that match one of these.",
            "anyOf": [
                { "enum": ["any", "none"] },
                { "$ref": "#/$defs/container" },
                { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/container" } }
            ]
        },
        "container": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": false,
            "properties": {
                "image": { "type": "string", "minLength": 1, "maxLength": 255, "description": "Pattern for the image's name: `*` stands for anything." },
                "network": { "type": "string", "description": "A network in which one of the container's own addresses lies." },
                "labels": { "$ref": "#/$defs/labels", "description": "Annotations that it carries, all of them." }
            }
        },
        "rule": {
            "type": "object",
            "required": ["from", "to", "action"],
            "additionalProperties": false,
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 63, "description": "Appears in logs." },
                "from": { "$ref": "#/$defs/selectors", "description": "Who connects." },
                "to": { "$ref": "#/$defs/selectors", "description": "To whom." },
                "both_ways": { "type": "boolean", "default": false, "description": "Speak of connections from `to` to `from` as well." },
                "qp_types": { "$ref": "#/$defs/qp_types" },
                "service": {
                    "description": "What the connection is made by; default any.",
                    "anyOf": [
                        { "$ref": "#/$defs/service" },
                        { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/service" } }
                    ]
                },
                "action": { "enum": crate::read::ACTIONS }
            }
        },
        "selectors": {
            "anyOf": [
                { "$ref": "#/$defs/selector" },
                { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/selector" } }
            ]
        },
        "selector": {
            "description": "`any`, an endpoint's name, an address, a network, or one of these keys.",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": false,
                    "properties": {
                        "endpoint": { "$ref": "#/$defs/name" },
                        "address": { "type": "string" },
                        "cidr": { "type": "string" },
                        "labels": { "$ref": "#/$defs/labels", "description": "All of these labels." }
                    }
                }
            ]
        },
        "service": { "type": "string", "pattern": service_pattern() },
        "qp_types": set("Queue pair types.", QpType::ALL.iter().map(|f| f.name())),
        "verbs": set("Operations that may be used.", Verb::ALL.iter().map(|f| f.name())),
        "remote_access": set("Rights that memory may grant to peers.", RemoteRight::ALL.iter().map(|f| f.name())),
        "quotas": {
            "description": "A tenant's are shared by its endpoints; an endpoint's lie within them.",
            "type": ["object", "null"],
            "additionalProperties": false,
            "properties": quotas()
        }
    })
}

fn service_pattern() -> String {
    let spaces: Vec<_> = PortSpace::ALL.iter().map(|space| space.name()).collect();
    format!(
        "^(any|verbs|rdma_cm(/({})(/[0-9]{{1,5}}(-[0-9]{{1,5}})?)?)?)$",
        spaces.join("|")
    )
}

fn set(description: &str, words: impl Iterator<Item = &'static str>) -> Value {
    let words: Vec<_> = words.collect();
    let list = json!({ "type": "array", "items": { "enum": words } });
    let one_or_list = json!([{ "enum": words }, list]);
    json!({
        "description": description,
        "anyOf": [
            { "enum": ["all", "none"] },
            { "enum": words },
            list,
            {
                "type": "object",
                "required": ["except"],
                "additionalProperties": false,
                "properties": { "except": { "anyOf": one_or_list } }
            }
        ]
    })
}

fn quotas() -> Map<String, Value> {
    let row = |row: &crate::quotas::QuotaKey| {
        let number = json!({ "type": "integer", "minimum": row.min, "maximum": row.max });
        let text = json!({ "type": "string", "pattern": "^[0-9]+( ?[KMGT]iB)?$" });
        let mut schema = match row.unit {
            Unit::Count => number,
            Unit::Bytes => json!({ "anyOf": [number, text] }),
        };
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".into(), row.doc.into());
            object.insert("default".into(), row.default.into());
        }
        (row.key.to_owned(), schema)
    };
    QUOTAS.iter().map(row).collect()
}
