//! Label selectors of API structs, compiled for matching.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// A set of requirements; all must hold. No selector at all matches nothing, an empty one everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    requirements: Option<Vec<Requirement>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    /// An operator this version does not know: never holds.
    Unknown,
}

impl Selector {
    pub fn nothing() -> Self {
        Selector { requirements: None }
    }

    /// From a `LabelSelector`; none matches nothing.
    pub fn of(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::nothing() };
        let mut requirements = equalities(selector.match_labels.as_ref());
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            let test = match expression.operator.as_str() {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::DoesNotExist,
                _ => Test::Unknown,
            };
            requirements.push(Requirement { key: expression.key.clone(), test });
        }
        Selector { requirements: Some(requirements) }
    }

    /// From the equality maps of Services and ReplicationControllers; empty matches nothing.
    pub fn of_map(labels: Option<&Labels>) -> Self {
        Selector { requirements: Some(equalities(labels)).filter(|r| !r.is_empty()) }
    }

    /// Matches every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        let value = |key: &str| labels.and_then(|l| l.get(key));
        self.requirements.as_ref().is_some_and(|all| {
            all.iter().all(|Requirement { key, test }| match test {
                Test::In(values) => value(key).is_some_and(|v| values.contains(v)),
                Test::NotIn(values) => value(key).is_none_or(|v| !values.contains(v)),
                Test::Exists => value(key).is_some(),
                Test::DoesNotExist => value(key).is_none(),
                Test::Unknown => false,
            })
        })
    }
}

fn equalities(labels: Option<&Labels>) -> Vec<Requirement> {
    let pairs = labels.into_iter().flatten();
    pairs.map(|(key, value)| Requirement { key: key.clone(), test: Test::In(vec![value.clone()]) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_match_as_upstream() {
        let labels = Labels::from([("app".into(), "web".into()), ("tier".into(), "front".into())]);
        let cases = [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), true),
            (json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "Gt", "values": ["1"]}]}), false),
        ];
        for (selector, expected) in cases {
            let compiled = Selector::of(Some(&serde_json::from_value(selector.clone()).unwrap()));
            assert_eq!(compiled.matches(Some(&labels)), expected, "{selector}");
        }
        assert!(!Selector::of(None).matches(Some(&labels)));
        assert!(!Selector::of_map(Some(&Labels::new())).matches(Some(&labels)));
        assert!(Selector::of_map(Some(&labels)).matches(Some(&labels)));
        assert!(!Selector::of_map(Some(&labels)).matches(None));
    }
}
