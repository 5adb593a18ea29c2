//! Matching of node selectors (`nodeSelectorTerms`), for NodeAffinity and for whoever else needs it.

use super::super::cluster::NodeInfo;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

/// Terms are alternatives.
pub fn any_term_matches(terms: &[NodeSelectorTerm], node: &NodeInfo) -> bool {
    terms.iter().any(|term| term_matches(term, node))
}

/// All requirements of a term hold; a term without any matches nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| (key == "metadata.name").then(|| node.name());
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| requirement_holds(r, node.label(&r.key)))
        && fields.iter().all(|r| requirement_holds(r, field(&r.key)))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, held: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = held.is_some_and(|held| values.iter().any(|v| v == held));
    let numbers = || Some((held?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => held.is_some(),
        "DoesNotExist" => held.is_none(),
        "Gt" => numbers().is_some_and(|(held, limit)| held > limit),
        "Lt" => numbers().is_some_and(|(held, limit)| held < limit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::scheduler::cluster::Cluster;
    use crate::controllers::scheduler::testing::node;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn terms_match_labels_and_names() {
        let mut cluster = Cluster::default();
        let mut held = node("n1", json!({}));
        held.metadata.labels = Some([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())].into());
        cluster.set_node(Arc::new(held));
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let cases = [
            (json!({}), false),
            (expression("zone", "In", &["a", "b"]), true),
            (expression("zone", "NotIn", &["a"]), false),
            (expression("rack", "NotIn", &["a"]), true),
            (expression("rack", "Exists", &[]), false),
            (expression("rack", "DoesNotExist", &[]), true),
            (expression("cores", "Gt", &["4"]), true),
            (expression("cores", "Lt", &["4"]), false),
            (expression("zone", "Gt", &["4"]), false),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), true),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}), false),
        ];
        for (term, expected) in cases {
            let parsed = serde_json::from_value(term.clone()).unwrap();
            assert_eq!(term_matches(&parsed, cluster.node("n1").unwrap()), expected, "{term}");
        }
    }
}
