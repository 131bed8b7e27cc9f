//! The committed JSON Schema is the generated one, and agrees with the reader.

use masq_policy::{Policy, json_schema};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

const COMMITTED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/schema/masq-policy.schema.json"
);
const EXAMPLES: [&str; 5] = [
    include_str!("../examples/two-tenants.yaml"),
    include_str!("../examples/storage-cluster.yaml"),
    include_str!("../examples/containers.yaml"),
    include_str!("../examples/two-devices.yaml"),
    include_str!("../examples/two-hosts.yaml"),
];

#[test]
fn the_committed_schema_is_up_to_date() {
    let generated = format!("{:#}\n", json_schema());
    if std::env::var_os("MASQ_BLESS").is_some() {
        std::fs::write(COMMITTED, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(
        committed == generated,
        "run the test with MASQ_BLESS=1 and commit {COMMITTED}"
    );
}

/// What an editor makes of YAML: JSON with the types of the core schema.
fn to_json(text: &str) -> Value {
    let mut events = Parser::new_from_str(text).map(|event| event.unwrap().0);
    let mut anchors = std::collections::HashMap::new();
    fn node<'a>(
        event: Event<'a>,
        events: &mut impl Iterator<Item = Event<'a>>,
        anchors: &mut std::collections::HashMap<usize, Value>,
    ) -> Value {
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let number = (style == ScalarStyle::Plain)
                    .then(|| text.parse::<u64>().ok())
                    .flatten();
                let value = match &*text {
                    "true" if style == ScalarStyle::Plain => Value::Bool(true),
                    "" | "~" | "null" if style == ScalarStyle::Plain => Value::Null,
                    _ => number.map_or_else(|| Value::from(&*text), Value::from),
                };
                (anchor, value)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match events.next().unwrap() {
                        Event::SequenceEnd => break,
                        event => items.push(node(event, events, anchors)),
                    }
                }
                (anchor, Value::Array(items))
            }
            Event::MappingStart(anchor, _) => {
                let mut map = Map::new();
                loop {
                    match events.next().unwrap() {
                        Event::MappingEnd => break,
                        Event::Scalar(key, ..) => {
                            let value = events.next().unwrap();
                            map.insert(key.into_owned(), node(value, events, anchors));
                        }
                        other => panic!("key {other:?}"),
                    }
                }
                (anchor, Value::Object(map))
            }
            Event::Alias(anchor) => (0, anchors[&anchor].clone()),
            other => panic!("{other:?}"),
        };
        anchors.insert(anchor, value.clone());
        value
    }
    let start = events
        .by_ref()
        .find(|e| !matches!(e, Event::StreamStart | Event::DocumentStart(_)))
        .unwrap();
    node(start, &mut events, &mut anchors)
}

#[test]
fn the_examples_validate() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for text in EXAMPLES {
        let instance = to_json(text);
        let errors: Vec<_> = validator
            .iter_errors(&instance)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

/// Single values on which the schema and the reader must agree.
#[test]
fn the_schema_and_the_reader_agree() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    let tenant = |body: &str| {
        format!(
            "version: 1\ntenants:\n  t:\n    endpoints: {{a: {{address: 10.0.0.1}}}}\n    {body}\n"
        )
    };
    let rule = |body: &str| {
        tenant(&format!(
            "rules: [{{from: a, to: a, action: allow, {body}}}]"
        ))
    };
    let cases = [
        (true, tenant("quotas: {qps: 1, pinned: 4GiB}")),
        (true, tenant("quotas: {pinned: 4096}")),
        (true, tenant("quotas:")),
        (true, tenant("verbs: {except: [atomic]}")),
        (true, tenant("verbs: {except: atomic}")),
        (true, tenant("qp_types: RC")),
        (true, tenant("remote_access: none")),
        (true, tenant("multicast: any")),
        (true, rule("service: [verbs, rdma_cm/tcp/1-2]")),
        (true, rule("both_ways: true, name: x")),
        (true, "version: 1\nx-mine: 3\ntenants: {}\n".into()),
        (true, tenant("pkey: 0x8001")),
        (true, tenant("pkey: 65535")),
        (false, tenant("pkey: 0x8000")),
        (false, tenant("pkey: 1")),
        (false, tenant("pkey: 0x1ffff")),
        (false, tenant("pkey: any")),
        (true, tenant("device: soft")),
        (true, tenant("device: rocep1s0f0")),
        (false, tenant("device: auto")),
        (false, tenant("device: any")),
        (false, tenant("device: verbs:rxe0")),
        (false, tenant("device:")),
        (false, tenant("device: [soft]")),
        (true, "version: 1\nhosts: {a: {address: 192.0.2.1}}\ntenants: {t: {pkey: 0xffff, endpoints: {a: {outside: 192.0.2.2, labels: {x: y}}}}}\n".into()),
        (true, "version: 1\nhosts: {a: {address: 192.0.2.1}}\ntenants: {t: {endpoints: {a: {address: 10.0.0.1, host: a}}}}\n".into()),
        (true, "version: 1\nhosts:\ntenants: {}\n".into()),
        (false, "version: 1\nhosts: {a: 192.0.2.1}\ntenants: {}\n".into()),
        (false, "version: 1\nhosts: {a: {}}\ntenants: {}\n".into()),
        (false, "version: 1\ntenants: {t: {pkey: 0xffff, endpoints: {a: {outside: 192.0.2.2, quotas: {qps: 1}}}}}\n".into()),
        (false, "version: 1\ntenants: {t: {endpoints: {a: {host: a}}}}\n".into()),
        (false, "version: 2\ntenants: {}\n".into()),
        (false, "version: 1\n".into()),
        (false, "version: 1\ntenant: {}\ntenants: {}\n".into()),
        (false, "version: 1\ntenants: {..: {}}\n".into()),
        (false, "version: 1\ntenants: {any: {}}\n".into()),
        (false, "version: 1\ntenants: {10.0.0.1: {}}\n".into()),
        (false, tenant("quotas: {qps: 0}")),
        (false, tenant("quotas: {qps: 99999999999}")),
        (false, tenant("quotas: {pinned: 4GB}")),
        (false, tenant("quotas: {gps: 4}")),
        (false, tenant("qp_types: [RD]")),
        (false, tenant("verbs: {deny: [atomic]}")),
        (false, tenant("verbs:")),
        (false, rule("service: rdma_cm/sctp")),
        (false, rule("both_ways: maybe")),
        (false, rule("name: ''")),
        (false, rule("form: a")),
        (false, tenant("rules: [{from: a, to: a}]")),
        (false, tenant("rules: [{from: [], to: a, action: deny}]")),
    ];
    for (good, text) in cases {
        let read = Policy::parse("p.yaml", &text);
        assert_eq!(read.is_ok(), good, "reader: {text}{read:?}");
        assert_eq!(validator.is_valid(&to_json(&text)), good, "schema: {text}");
    }
}
