//! Label and field selectors: parse, print, match (upstream `labels.Selector`, `fields.Selector`).

use serde_json::Value;
use std::fmt;

/// How a label requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement on one label. `Equals` is `In` with one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted.
    pub values: Vec<String>,
}

/// A conjunction of requirements; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// `metav1.LabelSelector` was absent: matches nothing.
    nothing: bool,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        let number = |v: &str| v.parse::<i64>().ok();
        let limit = || self.values.first().and_then(|v| number(v));
        match (self.operator, value) {
            (Operator::In, value) => value.is_some_and(listed),
            (Operator::NotIn, value) => !value.is_some_and(listed),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::GreaterThan, value) => matches!((value.and_then(number), limit()), (Some(v), Some(l)) if v > l),
            (Operator::LessThan, value) => matches!((value.and_then(number), limit()), (Some(v), Some(l)) if v < l),
        }
    }
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// A query parameter: `a=b,c!=d,e in (f,g),!h,i>1`. The error is upstream's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let requirements = Parser { rest: text }.requirements()?;
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// A `metav1.LabelSelector` object (`matchLabels`, `matchExpressions`); absent or null matches nothing.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, String> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Self::nothing()) };
        let mut all = Self::from_map(selector.get("matchLabels"));
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or("");
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values = expression.get("values").and_then(Value::as_array);
            let mut values: Vec<String> =
                values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            values.sort();
            all.requirements.push(Requirement { key: text("key").to_owned(), operator, values });
        }
        Ok(all)
    }

    /// A plain map of labels (Service and ReplicationController selectors); absent or empty matches everything.
    pub fn from_map(labels: Option<&Value>) -> Self {
        let labels = labels.and_then(Value::as_object).into_iter().flatten();
        let one = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.as_str().unwrap_or("").to_owned()],
        };
        LabelSelector { requirements: labels.map(one).collect(), nothing: false }
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Match labels given by a lookup function.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Match an object's `metadata.labels` (None: no labels).
    pub fn matches_labels(&self, labels: Option<&serde_json::Map<String, Value>>) -> bool {
        self.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }

    /// Match labels as k8s-openapi structs hold them.
    pub fn matches_map(&self, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
        self.matches(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let list = r.values.join(",");
            match (r.operator, r.values.len()) {
                (Operator::In, 1) => write!(f, "{comma}{}={list}", r.key)?,
                (Operator::In, _) => write!(f, "{comma}{} in ({list})", r.key)?,
                (Operator::NotIn, 1) => write!(f, "{comma}{}!={list}", r.key)?,
                (Operator::NotIn, _) => write!(f, "{comma}{} notin ({list})", r.key)?,
                (Operator::Exists, _) => write!(f, "{comma}{}", r.key)?,
                (Operator::DoesNotExist, _) => write!(f, "{comma}!{}", r.key)?,
                (Operator::GreaterThan, _) => write!(f, "{comma}{}>{list}", r.key)?,
                (Operator::LessThan, _) => write!(f, "{comma}{}<{list}", r.key)?,
            }
        }
        Ok(())
    }
}

/// Reads a label selector from left to right.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn requirements(mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        loop {
            self.skip_space();
            if self.rest.is_empty() && all.is_empty() {
                return Ok(all);
            }
            all.push(self.requirement()?);
            self.skip_space();
            if self.rest.is_empty() {
                all.sort_by(|a: &Requirement, b: &Requirement| a.key.cmp(&b.key));
                return Ok(all);
            }
            if !self.eat(",") {
                return Err(self.unexpected("',' or 'end of string'"));
            }
            self.skip_space();
            if self.rest.is_empty() {
                return Err("found '', expected: identifier after ','".to_owned());
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.eat("!");
        self.skip_space();
        let key = self.word();
        if key.is_empty() {
            return Err(self.unexpected("identifier"));
        }
        check_key(key)?;
        self.skip_space();
        if negated {
            return Ok(Requirement { key: key.to_owned(), operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Requirement { key: key.to_owned(), operator: Operator::Exists, values: Vec::new() });
        }
        let (operator, values) = self.comparison()?;
        values.iter().try_for_each(|v| check_value(key, operator, v))?;
        Ok(Requirement { key: key.to_owned(), operator, values })
    }

    fn comparison(&mut self) -> Result<(Operator, Vec<String>), String> {
        const ONE: [(&str, Operator); 5] = [
            ("==", Operator::In),
            ("=", Operator::In),
            ("!=", Operator::NotIn),
            (">", Operator::GreaterThan),
            ("<", Operator::LessThan),
        ];
        for (sign, operator) in ONE {
            if self.eat(sign) {
                self.skip_space();
                return Ok((operator, vec![self.word().to_owned()]));
            }
        }
        let operator = match self.word() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            other => {
                return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        self.skip_space();
        if !self.eat("(") {
            return Err(self.unexpected("'('"));
        }
        let mut values = Vec::new();
        loop {
            self.skip_space();
            values.push(self.word().to_owned());
            self.skip_space();
            if self.eat(")") {
                values.sort();
                values.dedup();
                return Ok((operator, values));
            }
            if !self.eat(",") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn eat(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(text) else { return false };
        self.rest = rest;
        true
    }

    /// Up to the next special character.
    fn word(&mut self) -> &'a str {
        let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<' | ' ' | '\t' | '\r' | '\n');
        let end = self.rest.find(special).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn unexpected(&self, expected: &str) -> String {
        let found: String = self.rest.chars().take(1).collect();
        format!("found '{found}', expected: {expected}")
    }
}

const NAME_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                         with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                          '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                          'my_value',  or '12345', regex used for validation is \
                          '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Characters of a label name or value, with alphanumeric ends.
fn is_name(text: &str) -> bool {
    let b = text.as_bytes();
    let inner = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    !b.is_empty() && b.iter().all(inner) && b[0].is_ascii_alphanumeric() && b[b.len() - 1].is_ascii_alphanumeric()
}

/// Why a text is no qualified name (`[prefix/]name`), as upstream's `IsQualifiedName` says it.
pub fn qualified_name(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if name.contains('/') {
        return Err(format!(
            "a qualified {NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ));
    }
    match prefix {
        Some("") => return Err("prefix part must be non-empty".to_owned()),
        Some(prefix) => crate::server::kinds::names::dns_subdomain(prefix).map_err(|e| format!("prefix part {e}"))?,
        None => {}
    }
    if name.is_empty() {
        return Err("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Err("name part must be no more than 63 bytes".to_owned());
    }
    if is_name(name) { Ok(()) } else { Err(NAME_RULE.to_owned()) }
}

/// Why a text is no label value.
pub fn label_value(value: &str) -> Result<(), String> {
    if value.len() > 63 {
        return Err("must be no more than 63 bytes".to_owned());
    }
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(VALUE_RULE.to_owned()) }
}

fn check_key(key: &str) -> Result<(), String> {
    qualified_name(key).map_err(|why| format!("key: Invalid value: {key:?}: {why}"))
}

fn check_value(key: &str, operator: Operator, value: &str) -> Result<(), String> {
    if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
        return Err(format!(
            "values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
        ));
    }
    label_value(value).map_err(|why| format!("values[0][{key}]: Invalid value: {value:?}: {why}"))
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    /// `!=`
    pub negated: bool,
}

/// A field selector: `metadata.name=x,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// The error is upstream's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let terms = split_unescaped(text).into_iter().filter(|t| !t.is_empty()).map(|term| {
            let bad = || format!("invalid selector: '{text}'; can't understand '{term}'");
            let at = find_operator(term).ok_or_else(bad)?;
            let (field, rest) = term.split_at(at);
            let (negated, value) = if let Some(value) = rest.strip_prefix("!=") {
                (true, value)
            } else {
                (false, rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).unwrap_or(""))
            };
            let value = unescape(value).ok_or_else(|| format!("invalid field selector value: {value:?}"))?;
            Ok(FieldTerm { field: field.to_owned(), value, negated })
        });
        Ok(FieldSelector { terms: terms.collect::<Result<_, String>>()? })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that a field must equal, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| !t.negated && t.field == field).map(|t| t.value.as_str())
    }

    /// Match fields given by a lookup function; a missing field is "".
    pub fn matches(&self, value: impl Fn(&str) -> String) -> bool {
        self.terms.iter().all(|t| (value(&t.field) == t.value) != t.negated)
    }
}

/// Split at commas that no backslash precedes.
fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Where `=`, `==` or `!=` begins.
fn find_operator(term: &str) -> Option<usize> {
    let equals = term.find('=')?;
    Some(if term[..equals].ends_with('!') { equals - 1 } else { equals })
}

/// Undo `\,`, `\=` and `\\`; None for any other escape or an unescaped special character.
fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            other => out.push(other),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_match() {
        let labels = |key: &str| match key {
            "app" => Some("web"),
            "tier" => Some("front"),
            "n" => Some("5"),
            _ => None,
        };
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("none!=x", true),
            ("app in (a, web)", true),
            ("app notin (a,b)", true),
            ("app notin (web)", false),
            ("none notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!none", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("none=", false),
            ("x/y in (a),app", false),
        ];
        for (text, expected) in cases {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(labels), expected, "{text}");
        }
    }

    #[test]
    fn bad_label_selectors_are_refused() {
        for text in ["=x", "a=b=c", "a in b", "a,", "a b", "a in (b", "!", "a=b,,c=d", "-a=b", "a=-b", "a>x", "x/=y"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn label_selectors_print() {
        let cases = [("b=c,a", "a,b=c"), ("a in (c,b),!d", "a in (b,c),!d"), ("x != y", "x!=y"), ("n>3", "n>3")];
        for (text, printed) in cases {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn selector_objects() {
        let parse = |v: Value| LabelSelector::from_object(Some(&v)).unwrap();
        let labels = |key: &str| (key == "app").then_some("web");
        assert!(parse(serde_json::json!({})).matches(labels));
        assert!(parse(serde_json::json!({"matchLabels": {"app": "web"}})).matches(labels));
        let expression =
            serde_json::json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]});
        assert!(!parse(expression).matches(labels));
        assert!(!LabelSelector::from_object(None).unwrap().matches(labels));
    }

    #[test]
    fn field_selectors() {
        let value = |field: &str| if field == "metadata.name" { "a,b".to_owned() } else { String::new() };
        let cases = [
            ("metadata.name=a\\,b", true),
            ("metadata.name==x", false),
            ("metadata.name!=x,spec.nodeName=", true),
            ("spec.nodeName!=", false),
        ];
        for (text, expected) in cases {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(value), expected, "{text}");
        }
        assert!(FieldSelector::parse("metadata.name").is_err());
        assert!(FieldSelector::parse("a=b=c").is_err());
    }
}
