//! Where a pod may run: affinity, tolerations, taints, spreading, gates.

use crate::server::kinds::view::View;
use crate::server::kinds::{names, rules};
use std::collections::BTreeSet;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn affinity(affinity: &View<'_>) {
    let nodes = affinity.get("nodeAffinity");
    if nodes.get(REQUIRED).is_set() {
        node_selector(&nodes.get(REQUIRED));
    }
    for term in nodes.get(PREFERRED).items() {
        weight(&term.get("weight"));
        // Values that are no labels cannot match, but only the required form refuses them.
        node_selector_term(&term.get("preference"), false);
    }
    for pods in ["podAffinity", "podAntiAffinity"].map(|kind| affinity.get(kind)) {
        pods.get(REQUIRED).items().for_each(|term| pod_affinity_term(&term));
        for weighted in pods.get(PREFERRED).items() {
            weight(&weighted.get("weight"));
            pod_affinity_term(&weighted.get("podAffinityTerm"));
        }
    }
}

fn weight(weight: &View<'_>) {
    if !(1..=100).contains(&weight.number()) {
        weight.invalid_value(weight.number(), "must be in the range 1-100");
    }
}

/// A `NodeSelector`: of pods, PersistentVolumes, resource slices.
pub fn node_selector(selector: &View<'_>) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        terms.required("must have at least one node selector term");
    }
    terms.items().for_each(|term| node_selector_term(&term, true));
}

fn node_selector_term(term: &View<'_>, checks_values: bool) {
    for expression in term.get("matchExpressions").items() {
        let (operator, values) = (expression.get("operator"), expression.get("values"));
        match (operator.str(), values.len()) {
            ("In" | "NotIn", 0) => values.required("must be specified when `operator` is 'In' or 'NotIn'"),
            ("Exists" | "DoesNotExist", 1..) => {
                values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            ("Gt" | "Lt", n) if n != 1 => {
                values.required("must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
            (other, _) => operator.invalid_value(other, "not a valid selector operator"),
        }
        expression.get("key").formats(names::qualified_name);
        if checks_values {
            values.items().for_each(|value| value.formats(names::label_value));
        }
    }
    for field in term.get("matchFields").items() {
        let (operator, values) = (field.get("operator"), field.get("values"));
        match operator.str() {
            "In" | "NotIn" if values.len() != 1 => {
                values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
            }
            "In" | "NotIn" => {}
            other => operator.invalid_value(other, "not a valid selector operator"),
        }
        if field.get("key").str() == "metadata.name" {
            values.items().for_each(|name| name.format(names::dns_subdomain));
        } else {
            field.get("key").invalid("not a valid field selector key");
        }
    }
}

fn pod_affinity_term(term: &View<'_>) {
    let selector = term.get("labelSelector");
    rules::label_selector(&selector);
    rules::label_selector(&term.get("namespaceSelector"));
    let namespace = term.path().child("namespace");
    term.get("namespaces").items().for_each(|name| name.named(namespace.clone()).format(names::dns_label));
    let (keys, mismatched) = (term.get("matchLabelKeys"), term.get("mismatchLabelKeys"));
    for list in [&keys, &mismatched].into_iter().filter(|l| !l.is_empty()) {
        if selector.is_set() {
            list.items().for_each(|key| key.formats(names::qualified_name));
        } else {
            list.forbidden("must not be specified when labelSelector is not set");
        }
    }
    for key in keys.items().filter(|k| mismatched.items().any(|m| m.str() == k.str())) {
        key.invalid("exists in both matchLabelKeys and mismatchLabelKeys");
    }
    let topology = term.get("topologyKey");
    if topology.is_empty() {
        topology.required("can not be empty");
    }
    topology.formats(names::qualified_name);
}

pub fn tolerations(tolerations: &View<'_>) {
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        if !key.is_empty() {
            key.formats(names::qualified_name);
        } else if operator.str() != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_value(operator.str(), why);
        }
        if toleration.get("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
            effect.invalid_value(effect.str(), "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.str() {
            "" | "Equal" => {
                let wrong = names::label_value(value.str());
                if !wrong.is_empty() {
                    operator.invalid_value(value.str(), wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                operator.invalid_value(value.str(), "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Lt" | "Gt" if value.str().parse::<i64>().is_err() => {
                operator.invalid_value(value.str(), "value must be a valid integer when `operator` is 'Lt' or 'Gt'");
            }
            "Lt" | "Gt" => {}
            _ => operator.not_supported(&["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            effect.one_of(EFFECTS);
        }
    }
}

/// Taints of a node.
pub fn taints(taints: &View<'_>) {
    let mut seen = BTreeSet::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.formats(names::qualified_name);
        let wrong = names::label_value(value.str());
        if !wrong.is_empty() {
            value.invalid_value(value.str(), wrong.join(";"));
        }
        effect.require_one_of(EFFECTS);
        if !seen.insert((key.str(), effect.str())) {
            taint.duplicate();
        }
    }
}

pub(super) fn gates(gates: &View<'_>) {
    let mut seen = BTreeSet::new();
    for gate in gates.items() {
        let name = gate.get("name").named(gate.path().clone());
        name.formats(names::qualified_name);
        if !seen.insert(name.str()) {
            name.duplicate();
        }
    }
}

pub(super) fn spread_constraints(constraints: &View<'_>) {
    let mut seen = BTreeSet::new();
    for constraint in constraints.items() {
        let skew = constraint.get("maxSkew");
        if skew.number() <= 0 {
            skew.invalid_value(skew.number(), "must be greater than zero");
        }
        let (key, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if key.is_empty() {
            key.required("can not be empty");
        }
        action.one_of(&["DoNotSchedule", "ScheduleAnyway"]);
        if !seen.insert((key.str(), action.str())) {
            let at = constraint.get("{topologyKey, whenUnsatisfiable}");
            at.duplicate_value(format!("{{{}, {}}}", key.str(), action.str()));
        }
        min_domains(&constraint.get("minDomains"), action.str());
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(policy).one_of_if_set(&["Honor", "Ignore"]);
        }
        match_label_keys(&constraint);
        rules::label_selector(&constraint.get("labelSelector"));
    }
}

fn min_domains(domains: &View<'_>, action: &str) {
    let Some(number) = domains.int() else { return };
    if number <= 0 {
        domains.invalid("must be greater than zero");
    }
    if action != "DoNotSchedule" {
        domains.invalid(format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"));
    }
}

fn match_label_keys(constraint: &View<'_>) {
    let (keys, selector) = (constraint.get("matchLabelKeys"), constraint.get("labelSelector"));
    if !keys.is_empty() && !selector.is_set() {
        keys.forbidden("must not be specified when labelSelector is not set");
    }
    for key in keys.items() {
        key.formats(names::qualified_name);
        let in_labels = selector.get("matchLabels").get(key.str()).is_set();
        if in_labels || selector.get("matchExpressions").items().any(|e| e.get("key").str() == key.str()) {
            key.invalid("exists in both matchLabelKeys and labelSelector");
        }
    }
}
