//! What people see after a classic mistake: each `mistakes/NAME.yaml` with its `NAME.txt`.
//!
//! After a deliberate change of a message: `MASQ_BLESS=1 cargo test -p masq-policy`, and read the
//! difference.

use std::{fs, path::Path};

use masq_policy::{Code, Policy, PolicyErrors};

fn refused(text: &str) -> PolicyErrors {
    Policy::parse("policy.yaml", text).expect_err("the policy was accepted")
}

#[test]
fn each_classic_mistake_has_its_message() {
    let bless = std::env::var_os("MASQ_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let text = fs::read_to_string(&path).unwrap();
        let rendered = match Policy::parse("policy.yaml", &text) {
            Ok(policy) => {
                policy
                    .warnings()
                    .iter()
                    .map(|w| format!("{w}\n\n"))
                    .collect::<String>()
                    + "accepted\n"
            }
            Err(errors) => format!("{errors}\n"),
        };
        let expected = path.with_extension("txt");
        if bless {
            fs::write(&expected, &rendered).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(rendered, expected, "{}", path.display());
    }
    assert!(seen >= 19, "only {seen} mistakes were found");
}

#[test]
fn the_machine_readable_form_has_code_place_and_help() {
    let errors = refused(include_str!("mistakes/misspelt-key.yaml"));
    let json = serde_json::to_value(&errors).unwrap();
    let first = &json["errors"][0];
    assert_eq!(first["severity"], "error");
    assert_eq!(first["code"], "unknown-key");
    assert_eq!(first["file"], "policy.yaml");
    assert_eq!(
        (&first["line"], &first["column"], &first["end_column"]),
        (&4.into(), &5.into(), &13.into())
    );
    assert_eq!(first["help"], "did you mean `endpoints`?");
}

/// Doubling anchors: 2^n values from n lines.
#[test]
fn aliases_cannot_expand_without_bound() {
    let mut text = String::from("version: 1\nx-0: &a0 [x, x]\n");
    for i in 1..28 {
        text.push_str(&format!("x-{i}: &a{i} [*a{0}, *a{0}]\n", i - 1));
    }
    assert_eq!(refused(&text).errors()[0].code, Code::TooLarge);
}

#[test]
fn nesting_is_bounded_in_flow_block_and_by_aliases() {
    let flow = format!("version: 1\nx-a: {}{}\n", "[".repeat(200), "]".repeat(200));
    assert_eq!(refused(&flow).errors()[0].code, Code::TooLarge);
    let open = format!("version: 1\nx-a: {}", "[".repeat(100_000));
    assert!(matches!(
        refused(&open).errors()[0].code,
        Code::TooLarge | Code::Syntax
    ));
    let block: String = (0..2000)
        .map(|i| format!("{}a:\n", " ".repeat(i)))
        .collect();
    assert_eq!(refused(&block).errors()[0].code, Code::TooLarge);
    let dashes = format!("version: 1\nx-a:\n  {}x\n", "- ".repeat(10_000));
    assert_eq!(refused(&dashes).errors()[0].code, Code::TooLarge);
    let mut aliases = String::from("version: 1\nx-0: &a0 [x]\n");
    for i in 1..40 {
        aliases.push_str(&format!("x-{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert_eq!(refused(&aliases).errors()[0].code, Code::TooLarge);
}

#[test]
fn length_is_bounded() {
    let text = format!("version: 1\n#{}\n", "x".repeat(masq_policy::MAX_TEXT));
    assert_eq!(refused(&text).errors()[0].code, Code::TooLarge);
    let rules = "      - {from: any, to: any, action: deny}\n".repeat(16_385);
    let text = format!(
        "version: 1\ntenants:\n  t:\n    endpoints: {{a: {{address: 10.0.0.1}}}}\n    rules:\n{rules}"
    );
    assert_eq!(refused(&text).errors()[0].code, Code::TooLarge);
}

#[test]
fn many_errors_are_counted_but_not_all_shown() {
    let endpoints: String = (0..200)
        .map(|i| format!("      e{i}: {{address: nonsense}}\n"))
        .collect();
    let errors = refused(&format!(
        "version: 1\ntenants:\n  t:\n    endpoints:\n{endpoints}"
    ));
    assert_eq!(errors.errors().len(), 50);
    assert!(
        errors
            .to_string()
            .ends_with("200 errors, the policy is refused (the first 50 are shown)")
    );
}

#[test]
fn a_message_never_repeats_control_characters_of_the_file() {
    let errors = refused("version: 1\ntenants: {\"a\\e[2J\": {}}\n\"x\u{1b}[31m\": 1\n");
    assert!(!errors.to_string().contains('\u{1b}'), "{errors:?}");
}

/// A file on one line is legal YAML; its messages keep their columns and stay short.
#[test]
fn a_place_far_into_a_long_line_is_still_named() {
    for length in [100, 1000, 10_000] {
        let padding = "x".repeat(length);
        let text = format!("{{version: 1, x-pad: {padding}, tenant: {{}}, tenants: {{}}}}");
        let errors = refused(&text);
        let column = text.find("tenant:").unwrap() + 1;
        assert_eq!(errors.errors()[0].place.column, column);
        let rendered = errors.to_string();
        assert!(
            rendered.contains(&format!("policy.yaml:1:{column}\n")),
            "{rendered}"
        );
        assert!(rendered.len() < 1000, "{rendered}");
    }
}
