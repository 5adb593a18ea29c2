//! The default RBAC policy as data: parses `policy.txt` into API objects, on use.

use crate::object::Object;
use crate::server::authz::rbac::GROUP;
use crate::server::authz::rule::Rule;
use serde_json::{Value, json};

const TEXT: &str = include_str!("policy.txt");

/// Roles and bindings of the policy that carry this are kept up to date at each start.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Label that every object of the policy has.
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// `rbac.authorization.k8s.io/aggregate-to-<x>`.
pub const AGGREGATE_PREFIX: &str = "rbac.authorization.k8s.io/";

/// One object of the policy.
#[derive(Clone, Debug)]
pub struct Item {
    /// Plural resource name.
    pub resource: &'static str,
    pub object: Object,
}

/// The whole policy. Aggregated roles come with the rules that the others add up to.
pub fn all() -> Vec<Item> {
    let mut items = Vec::new();
    for block in blocks() {
        block.add_to(&mut items);
    }
    aggregate(&mut items);
    items
}

/// The rules of one default ClusterRole; empty for an unknown or aggregated one.
pub fn cluster_role(name: &str) -> Vec<Rule> {
    let is_it = |b: &Block<'_>| b.words.first() == Some(&"role") && b.words.get(1) == Some(&name);
    blocks().find(is_it).map(|b| b.rules).unwrap_or_default()
}

/// A line with the rules indented below it.
struct Block<'a> {
    words: Vec<&'a str>,
    rules: Vec<Rule>,
}

fn blocks<'a>() -> impl Iterator<Item = Block<'a>> {
    let mut lines = TEXT.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).peekable();
    std::iter::from_fn(move || {
        let words = lines.next()?.split(' ').collect();
        let mut rules = Vec::new();
        while let Some(line) = lines.next_if(|l| l.starts_with("  ")) {
            rules.push(rule(line.trim()));
        }
        Some(Block { words, rules })
    })
}

fn rule(line: &str) -> Rule {
    if line == "events" {
        return rule("create,update,patch core,events.k8s.io events");
    }
    let mut words = line.split(' ');
    let mut next = || words.next().unwrap_or("");
    let (verbs, groups, resources, names) = (next(), next(), next(), next());
    let list = |text: &str| {
        let mut list: Vec<String> = text.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        list.sort();
        list
    };
    let verbs = list(match verbs {
        "R" => "get,list,watch",
        "W" => "create,update,patch,delete,deletecollection",
        "RW" => "get,list,watch,create,update,patch,delete,deletecollection",
        "RU" => "get,list,watch,update,patch",
        other => other,
    });
    if groups == "url" {
        return Rule { verbs, urls: list(resources), ..Default::default() };
    }
    let mut groups = list(groups);
    groups.iter_mut().filter(|g| *g == "core").for_each(String::clear);
    groups.sort();
    Rule { verbs, groups, resources: list(resources), names: list(names.trim_start_matches('=')), urls: vec![] }
}

impl Block<'_> {
    fn add_to(self, items: &mut Vec<Item>) {
        let word = |i: usize| self.words.get(i).copied().unwrap_or("");
        let subjects = |from: usize| -> Vec<Value> { self.words.iter().skip(from).map(|s| subject(s)).collect() };
        match word(0) {
            "role" => items.push(role("", word(1), word(2), &self.rules)),
            "aggregate" => {
                let mut item = role("", word(1), word(4), &[]);
                let label = format!("{AGGREGATE_PREFIX}aggregate-to-{}", word(3));
                item.object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
                items.push(item);
            }
            "controller" => {
                let name = format!("system:controller:{}", word(1));
                items.push(role("", &name, "", &self.rules));
                items.push(binding("", &name, &name, vec![subject(&format!("s:kube-system/{}", word(1)))]));
            }
            "bind" => items.push(binding("", word(1), word(1), subjects(2))),
            "bind-as" => items.push(binding("", word(1), word(2), subjects(3))),
            "role-in" => items.push(role(word(1), word(2), "", &self.rules)),
            "bind-in" => items.push(binding(word(1), word(2), word(3), subjects(4))),
            other => debug_assert!(false, "unknown policy line {other:?}"),
        }
    }
}

fn metadata(namespace: &str, name: &str) -> Value {
    let mut metadata =
        json!({"name": name, "labels": {BOOTSTRAPPING.0: BOOTSTRAPPING.1}, "annotations": {AUTOUPDATE: "true"}});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn role(namespace: &str, name: &str, label: &str, rules: &[Rule]) -> Item {
    let (kind, resource) = if namespace.is_empty() { ("ClusterRole", "clusterroles") } else { ("Role", "roles") };
    let rules: Vec<Value> = rules.iter().map(Rule::to_value).collect();
    let mut object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "rules": rules});
    object["metadata"] = metadata(namespace, name);
    if !label.is_empty() {
        object["metadata"]["labels"][format!("{AGGREGATE_PREFIX}{label}")] = "true".into();
    }
    Item { resource, object }
}

fn binding(namespace: &str, name: &str, role: &str, subjects: Vec<Value>) -> Item {
    let (kind, role_kind, resource) = match namespace {
        "" => ("ClusterRoleBinding", "ClusterRole", "clusterrolebindings"),
        _ => ("RoleBinding", "Role", "rolebindings"),
    };
    let mut object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind,
                            "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role}});
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    object["metadata"] = metadata(namespace, name);
    Item { resource, object }
}

fn subject(text: &str) -> Value {
    match text.split_once(':') {
        Some(("u", name)) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        Some(("s", name)) => {
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
        Some((_, name)) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        None => Value::Null,
    }
}

/// Fill in the rules of aggregated roles, so that they grant from the first moment on. Two passes: view is part of
/// edit, edit of admin.
fn aggregate(items: &mut [Item]) {
    for _ in 0..3 {
        let roles: Vec<Object> =
            items.iter().filter(|i| i.resource == "clusterroles").map(|i| i.object.clone()).collect();
        for item in items.iter_mut() {
            if let Some(rules) = crate::server::authz::aggregate::rules_for(&item.object, &roles) {
                item.object["rules"] = rules;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectExt;
    use std::collections::HashSet;

    #[test]
    fn the_text_is_well_formed() {
        let known = ["role", "aggregate", "controller", "bind", "bind-as", "role-in", "bind-in"];
        let mut names = HashSet::new();
        for block in blocks() {
            assert!(known.contains(&block.words[0]), "{:?}", block.words);
            let has_rules = matches!(block.words[0], "role" | "controller" | "role-in");
            assert_eq!(has_rules, !block.rules.is_empty(), "{:?}", block.words);
            for rule in &block.rules {
                assert!(!rule.verbs.is_empty() && rule.resources.is_empty() != rule.urls.is_empty(), "{rule:?}");
                assert_eq!(rule.groups.is_empty(), rule.resources.is_empty(), "{rule:?}");
            }
        }
        for item in all() {
            let key = (item.resource, item.object.namespace().to_owned(), item.object.name().to_owned());
            assert!(names.insert(key.clone()), "twice: {key:?}");
        }
    }

    #[test]
    fn bindings_name_roles_that_exist_and_admin_adds_up() {
        let items = all();
        let find =
            |resource: &str, name: &str| items.iter().find(|i| i.resource == resource && i.object.name() == name);
        for item in items.iter().filter(|i| i.resource.ends_with("bindings")) {
            let name = item.object.str_at(&["roleRef", "name"]);
            let resource = if item.resource == "rolebindings" { "roles" } else { "clusterroles" };
            assert!(find(resource, name).is_some(), "{name}");
        }
        let count = |name| Rule::of_role(&find("clusterroles", name).unwrap().object).len();
        assert_eq!(count("view"), count("system:aggregate-to-view"));
        assert_eq!(count("edit"), count("view") + count("system:aggregate-to-edit"));
        assert_eq!(count("admin"), count("edit") + count("system:aggregate-to-admin"));
    }

    /// What the components of this process may do, and what they may not.
    #[test]
    fn components_have_upstreams_rights() {
        use crate::server::authn::service_account_user;
        use crate::server::authz::Decision;
        use crate::server::authz::rbac::Index;
        use crate::server::request::{RequestInfo, UserInfo};
        let index = Index::default();
        for item in all() {
            let key = (item.object.namespace().to_owned(), item.object.name().to_owned());
            match item.resource {
                "clusterroles" | "roles" => index.put_role(&key, &item.object),
                _ => index.put_binding(&key, &item.object),
            }
        }
        let cases = [
            ("system:kube-scheduler", "create pods/binding", true),
            ("system:kube-scheduler", "patch pods/status", true),
            ("system:kube-scheduler", "update leases.coordination.k8s.io kube-scheduler", true),
            ("system:kube-scheduler", "update leases.coordination.k8s.io other", false),
            ("system:kube-scheduler", "get secrets", false),
            ("system:kube-controller-manager", "watch things.example.org", true),
            ("system:kube-controller-manager", "update deployments.apps", false),
            ("system:kube-proxy", "watch endpointslices.discovery.k8s.io", true),
            ("system:kube-proxy", "watch pods", false),
            ("kube-apiserver-kubelet-client", "create nodes/proxy", true),
            ("kube-apiserver-kubelet-client", "get pods", false),
            ("sa:deployment-controller", "create replicasets.apps", true),
            ("sa:deployment-controller", "create pods", false),
            ("sa:replicaset-controller", "create pods", true),
            ("sa:replicaset-controller", "update deployments.apps", false),
            ("sa:endpointslice-controller", "delete endpointslices.discovery.k8s.io", true),
            ("sa:namespace-controller", "deletecollection things.example.org", true),
            ("sa:node-controller", "patch nodes", true),
            ("sa:root-ca-cert-publisher", "create configmaps", true),
            ("sa:root-ca-cert-publisher", "get configmaps", false),
            ("sa:clusterrole-aggregation-controller", "escalate clusterroles.rbac.authorization.k8s.io", true),
            ("sa:no-such-controller", "list pods", false),
            // As kube-proxy; the Node authorizer gives it the rest, object by object.
            ("system:node:n1", "watch endpointslices.discovery.k8s.io", true),
            ("system:node:n1", "update nodes", false),
            ("system:node:n1", "get secrets", false),
            ("system:node:n1", "watch pods", false),
        ];
        for (who, what, want) in cases {
            let user = match who.strip_prefix("sa:") {
                Some(name) => service_account_user("kube-system", name),
                None => UserInfo::authenticated(who, &["system:nodes"]),
            };
            let mut words = what.split(' ');
            let mut next = || words.next().unwrap_or("");
            let (verb, resource, name) = (next(), next(), next());
            let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let info = RequestInfo {
                is_resource: true,
                verb: verb.into(),
                group: group.into(),
                namespace: "default".into(),
                resource: resource.into(),
                subresource: subresource.into(),
                name: name.into(),
                ..Default::default()
            };
            assert_eq!(matches!(index.decide(&user, &info), Decision::Allow { .. }), want, "{who}: {what}");
        }
    }
}
