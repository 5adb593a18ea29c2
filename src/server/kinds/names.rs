//! Name formats (RFC 1123, RFC 1035, IANA service names, qualified names) with upstream's error texts.

const DNS_LABEL_MAX_BYTES: usize = 63;
const SUBDOMAIN_MAX_BYTES: usize = 253;
const PORT_NAME_MAX_BYTES: usize = 15;

type Check = Result<(), String>;

/// Upstream's `MaxLenError`.
fn max_len(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// Upstream's `RegexError`: what it must be, examples, the regular expression.
fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}'")).collect();
    match examples.as_slice() {
        [] => format!("{message} (regex used for validation is '{regex}')"),
        _ => format!("{message} (e.g. {}, regex used for validation is '{regex}')", examples.join(" or ")),
    }
}

fn lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    match (b.first(), b.last()) {
        (Some(first), Some(last)) => {
            lower_or_digit(*first) && lower_or_digit(*last) && b.iter().all(|c| lower_or_digit(*c) || *c == b'-')
        }
        _ => false,
    }
}

/// RFC 1123 label.
pub fn dns_label(name: &str) -> Check {
    if name.len() > DNS_LABEL_MAX_BYTES {
        return Err(max_len(DNS_LABEL_MAX_BYTES));
    }
    if is_label(name) {
        return Ok(());
    }
    if name.split('.').all(is_label) {
        return Err("must not contain dots".to_owned());
    }
    Err(regex_error(
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
         end with an alphanumeric character",
        "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        &["my-name", "123-abc"],
    ))
}

/// RFC 1123 subdomain, at most 253 characters: most object names.
pub fn dns_subdomain(name: &str) -> Check {
    if name.len() > SUBDOMAIN_MAX_BYTES {
        return Err(max_len(SUBDOMAIN_MAX_BYTES));
    }
    if name.split('.').all(is_label) {
        return Ok(());
    }
    Err(regex_error(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
         start and end with an alphanumeric character",
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        &["example.com"],
    ))
}

/// RFC 1123 subdomain whose labels may contain underscores: DNS search paths.
pub fn dns_subdomain_with_underscore(name: &str) -> Check {
    if name.len() > SUBDOMAIN_MAX_BYTES {
        return Err(max_len(SUBDOMAIN_MAX_BYTES));
    }
    let plain = |label: &str| is_label(&label.strip_prefix('_').unwrap_or(label).replace('_', "a"));
    let ends_well = |label: &str| !label.ends_with('_');
    if name.split('.').all(|label| plain(label) && ends_well(label)) {
        return Ok(());
    }
    Err(regex_error(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
         must start and end with an alphanumeric character",
        r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
        &["example.com"],
    ))
}

/// Name of an HTTP header.
pub fn http_header(name: &str) -> Check {
    if !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Ok(());
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    Err(regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"]))
}

/// RFC 1035 label: Service names before 1.34, port names of ingress backends.
pub fn dns1035_label(name: &str) -> Check {
    if name.len() > DNS_LABEL_MAX_BYTES {
        return Err(max_len(DNS_LABEL_MAX_BYTES));
    }
    if is_label(name) && name.as_bytes()[0].is_ascii_lowercase() {
        return Ok(());
    }
    Err(regex_error(
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character",
        "[a-z]([-a-z0-9]*[a-z0-9])?",
        &["my-name", "abc-123"],
    ))
}

/// A subdomain whose first label is `*`.
pub fn wildcard_subdomain(name: &str) -> Check {
    if name.len() > SUBDOMAIN_MAX_BYTES {
        return Err(max_len(SUBDOMAIN_MAX_BYTES));
    }
    if name.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label)) {
        return Ok(());
    }
    Err(regex_error(
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
         of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
        r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        &["*.example.com"],
    ))
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn is_qualified_part(s: &str) -> bool {
    let b = s.as_bytes();
    match (b.first(), b.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character";
const QUALIFIED_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// `[prefix/]name`: keys of labels and annotations, finalizers, resource names. All that is wrong with it.
pub fn qualified_name(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else if let Err(why) = dns_subdomain(prefix) {
                errors.push(format!("prefix part {why}"));
            }
            *name
        }
        _ => {
            let text = regex_error(
                &format!("a qualified name {QUALIFIED}"),
                QUALIFIED_REGEX,
                &["MyName", "my.name", "123-abc"],
            );
            return vec![format!("{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > DNS_LABEL_MAX_BYTES {
        errors.push(format!("name part {}", max_len(DNS_LABEL_MAX_BYTES)));
    }
    if !is_qualified_part(name) {
        errors.push(regex_error(&format!("name part {QUALIFIED}"), QUALIFIED_REGEX, &["MyName", "my.name", "123-abc"]));
    }
    errors
}

/// Value of a label: empty, or like the name part of a key.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS_LABEL_MAX_BYTES {
        errors.push(max_len(DNS_LABEL_MAX_BYTES));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// Name of a container port or a named target port (IANA service name, RFC 6335 §5.1).
pub fn port_name(name: &str) -> Vec<String> {
    let b = name.as_bytes();
    let mut errors = Vec::new();
    if b.len() > PORT_NAME_MAX_BYTES {
        errors.push(max_len(PORT_NAME_MAX_BYTES));
    }
    if !b.iter().all(|c| lower_or_digit(*c) || *c == b'-') || b.is_empty() {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !b.iter().any(u8::is_ascii_lowercase) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if b.first() == Some(&b'-') || b.last() == Some(&b'-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// Key of a ConfigMap or Secret.
pub fn config_map_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > SUBDOMAIN_MAX_BYTES {
        errors.push(max_len(SUBDOMAIN_MAX_BYTES));
    }
    if key.is_empty() || !key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match key {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// Name of an environment variable: any printable ASCII but `=` (KEP-4369).
pub fn env_var_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// Names that are path segments (RBAC, webhooks' bindings): anything a URL path can hold as one segment.
pub fn path_segment(name: &str) -> Check {
    if matches!(name, "." | "..") {
        return Err(format!("may not be '{name}'"));
    }
    let bad: Vec<String> =
        ['/', '%'].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect();
    if bad.is_empty() { Ok(()) } else { Err(bad.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        type Row = (fn(&str) -> bool, &'static [&'static str], &'static [&'static str]);
        let rows: &[Row] = &[
            (|s| dns_label(s).is_ok(), &["a", "0a-b9"], &["", "-a", "a-", "A", "a.b", "a_b"]),
            (|s| dns1035_label(s).is_ok(), &["a", "a-0"], &["0a", "", "a-"]),
            (|s| dns_subdomain(s).is_ok(), &["a.b", "0.1"], &["", "a..b", "a.", ".a", "a.-b", "A"]),
            (|s| wildcard_subdomain(s).is_ok(), &["*.a", "*.a.b"], &["*", "*a", "a.*.b", "*.*"]),
            (|s| qualified_name(s).is_empty(), &["a", "A_b.c", "x.y/Z"], &["", "/a", "a/", "a/b/c", "-a", "X/a"]),
            (|s| label_value(s).is_empty(), &["", "a", "A-b_c.d"], &["-", "a b", "a/"]),
            (|s| port_name(s).is_empty(), &["http", "a-1"], &["", "1", "-a", "a--b", "HTTP", "a-very-long-port-name"]),
            (|s| config_map_key(s).is_empty(), &["a", ".a", "A_b-c.d"], &["", ".", "..", "..a", "a/b"]),
            (|s| env_var_name(s).is_empty(), &["A", "a.b-c", "1 2"], &["", "a=b", "ä", "a\n"]),
            (|s| path_segment(s).is_ok(), &["system:x", "a b"], &[".", "..", "a/b", "a%"]),
        ];
        for (check, good, bad) in rows {
            good.iter().for_each(|s| assert!(check(s), "{s:?} is good"));
            bad.iter().for_each(|s| assert!(!check(s), "{s:?} is bad"));
        }
        assert!(dns_label(&"a".repeat(63)).is_ok() && dns_label(&"a".repeat(64)).is_err());
    }
}
