//! Trees as YAML that YAML 1.1 readers (PyYAML, Go) take as it is meant: `"yes"`, `"1e3"` and times stay strings.

use serde_json::{Map, Value};

/// Write a tree as one YAML document.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, false, &mut out),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        other => {
            scalar(other, &mut out);
            out.push('\n');
        }
    }
    out
}

fn indent(level: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", level));
}

/// `first_in_place`: the first key follows a list's dash.
fn mapping(map: &Map<String, Value>, level: usize, first_in_place: bool, out: &mut String) {
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 || !first_in_place {
            indent(level, out);
        }
        text(key, out);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(inner, level + 1, false, out);
            }
            // Lists stand at their key's own indentation, as Kubernetes' printers have it.
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(items, level, out);
            }
            other => {
                out.push(' ');
                scalar(other, out);
                out.push('\n');
            }
        }
    }
}

fn sequence(items: &[Value], level: usize, out: &mut String) {
    for item in items {
        indent(level, out);
        out.push('-');
        match item {
            Value::Object(inner) if !inner.is_empty() => {
                out.push(' ');
                mapping(inner, level + 1, true, out);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                sequence(inner, level + 1, out);
            }
            other => {
                out.push(' ');
                scalar(other, out);
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::String(string) => text(string, out),
        other => out.push_str(&other.to_string()),
    }
}

/// Plain where no reader can take it for anything but a string, else double-quoted: JSON strings are YAML but for
/// some characters that YAML wants escaped.
fn text(string: &str, out: &mut String) {
    if is_plain(string) {
        out.push_str(string);
        return;
    }
    for c in Value::from(string).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
}

/// Words that some YAML version reads as null, a boolean or a number.
const RESERVED: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];

fn is_plain(string: &str) -> bool {
    let starts_as_word = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let harmless =
        |c: char| c.is_ascii_alphanumeric() || " ./_-+$()=;^\\~<>".contains(c) || c == ':' || c.is_alphabetic();
    starts_as_word
        && string.chars().all(harmless)
        && !string.contains(": ")
        && !string.ends_with([':', ' '])
        && !RESERVED.iter().any(|word| string.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shape() {
        let value = json!({"a": {"b": [{"c": 1, "d": [1, [2, 3], {}]}, "x"], "e": {}}, "f": [], "g": null, "h": "yes"});
        let want = "a:\n  b:\n  - c: 1\n    d:\n    - 1\n    -\n      - 2\n      - 3\n    - {}\n  - x\n  e: {}\nf: []\n\
                    g: null\nh: \"yes\"\n";
        assert_eq!(write(&value), want);
        assert_eq!(write(&json!({})), "{}\n");
    }

    #[test]
    fn strings_survive() {
        for string in [
            "",
            " ",
            "a b",
            "a: b",
            "a #b",
            "#",
            "yes",
            "No",
            "1",
            "1.5",
            "0x1f",
            "1e3",
            "+1",
            ".5",
            "2026-01-02T03:04:05Z",
            "12:30",
            "null",
            "~",
            "-",
            "- a",
            "[a]",
            "{a}",
            "a\nb\n",
            "a\tb",
            "\u{7}",
            "\u{85}",
            "ünï",
            "😀",
            "*",
            "&a",
            "!x",
            "%",
            "@",
            "`",
            "'",
            "\"",
            "a:",
            "a:b",
            "/bin/sh",
            "c=$(X)",
            "a\\b",
            "~",
            "<a>",
            "nan",
            "a\u{2028}b",
            "=",
        ] {
            let value = json!({"k": string, string: [string]});
            let yaml = write(&value);
            let read: Value = serde_yaml::from_str(&yaml).unwrap_or_else(|e| panic!("{string:?}: {e}: {yaml}"));
            assert_eq!(read, value, "{yaml}");
        }
    }
}
