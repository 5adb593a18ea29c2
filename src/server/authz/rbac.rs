//! RBAC: roles and bindings indexed by subject, kept current from the store.

use super::follow::{Followed, Key, Sink, follow};
use super::rule::Rule;
use super::{Authorizer, Decision, Rules};
use crate::object::{Object, ObjectExt};
use crate::server::authn::{SERVICE_ACCOUNT_PREFIX, split_service_account};
use crate::server::registry::Registry;
use crate::server::request::{RequestInfo, UserInfo};
use crate::status::Result;
use crate::store::KeyValue;
use crate::task::Group;
use async_trait::async_trait;
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Allows what roles grant; never denies.
pub struct Rbac {
    index: Arc<Index>,
    followed: Vec<Followed>,
}

impl Rbac {
    /// Start following the four RBAC kinds; the tasks end with `group`.
    pub fn start(registry: &Arc<Registry>, group: &Group) -> Arc<Self> {
        let index = Arc::new(Index::default());
        let kinds = [
            ("clusterroles", Part::Roles),
            ("roles", Part::Roles),
            ("clusterrolebindings", Part::Bindings),
            ("rolebindings", Part::Bindings),
        ];
        let start = |(resource, part): (&str, Part)| {
            let kind = registry.kind_of(GROUP, resource)?;
            let namespaced = kind.is_namespaced();
            Some(follow(registry, kind, Arc::new(Feed { index: index.clone(), part, namespaced }), group))
        };
        let followed = kinds.into_iter().filter_map(start).collect();
        Arc::new(Rbac { index, followed })
    }

    /// Resolves once all roles and bindings have been seen.
    pub async fn synced(&self) {
        for kind in &self.followed {
            kind.synced().await;
        }
    }

    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<Decision> {
        Ok(self.index.decide(user, info))
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Result<Rules> {
        let mut rules = Rules::default();
        for rule in self.index.rules_of(user, namespace).0 {
            let value = rule.to_value();
            if rule.urls.is_empty() { rules.resource.push(value) } else { rules.non_resource.push(value) }
        }
        Ok(rules)
    }
}

/// Which half of the index a followed kind fills.
#[derive(Clone, Copy)]
enum Part {
    Roles,
    Bindings,
}

/// Roles and bindings of the whole cluster. Keys of cluster-wide ones have an empty namespace.
#[derive(Default)]
pub struct Index(RwLock<Tables>);

#[derive(Default)]
struct Tables {
    roles: HashMap<Key, Arc<Vec<Rule>>>,
    bindings: HashMap<Key, Binding>,
    /// Subject (`u:<user>`, `g:<group>`) → its bindings.
    by_subject: HashMap<String, BTreeSet<Key>>,
}

struct Binding {
    /// Key of the role; a ClusterRole has an empty namespace.
    role: Key,
    subjects: Vec<String>,
    /// For reasons, as upstream writes it: `ClusterRoleBinding "x" of ClusterRole "y"`.
    reason: String,
}

impl Index {
    pub fn put_role(&self, key: &Key, role: &Object) {
        self.0.write().roles.insert(key.clone(), Arc::new(Rule::of_role(role)));
    }

    pub fn put_binding(&self, key: &Key, binding: &Object) {
        let mut tables = self.0.write();
        tables.remove_binding(key);
        let binding = Binding::parse(key, binding);
        for subject in &binding.subjects {
            tables.by_subject.entry(subject.clone()).or_default().insert(key.clone());
        }
        tables.bindings.insert(key.clone(), binding);
    }

    pub fn decide(&self, user: &UserInfo, info: &RequestInfo) -> Decision {
        let tables = self.0.read();
        let mut missing = BTreeSet::new();
        for (binding, subject) in tables.bindings_of(user, &info.namespace) {
            match tables.roles.get(&binding.role) {
                Some(rules) if rules.iter().any(|r| r.allows(info)) => {
                    let reason = format!("RBAC: allowed by {} to {}", binding.reason, describe(subject));
                    return Decision::Allow { reason };
                }
                Some(_) => {}
                None => drop(missing.insert(missing_role(&binding.role))),
            }
        }
        Decision::NoOpinion { reason: missing_reason(missing) }
    }

    /// Every rule that holds for a user in a namespace (empty: cluster-wide ones alone), and roles that are bound but
    /// do not exist.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let tables = self.0.read();
        let mut rules = Vec::new();
        let mut missing = BTreeSet::new();
        for (binding, _) in tables.bindings_of(user, namespace) {
            match tables.roles.get(&binding.role) {
                Some(found) => rules.extend(found.iter().cloned()),
                None => drop(missing.insert(missing_role(&binding.role))),
            }
        }
        (rules, missing.into_iter().collect())
    }

    /// The rules of a role (namespace empty: ClusterRole).
    pub fn role(&self, namespace: &str, name: &str) -> Option<Arc<Vec<Rule>>> {
        self.0.read().roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

impl Tables {
    /// Bindings that concern a user in a namespace: cluster-wide ones, and the namespace's.
    fn bindings_of<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Binding, &'a str)> {
        let subjects = std::iter::once(format!("u:{}", user.name)).chain(user.groups.iter().map(|g| format!("g:{g}")));
        let found = subjects.filter_map(|s| self.by_subject.get_key_value(&s));
        let keys = found.flat_map(|(subject, keys)| keys.iter().map(move |key| (key, subject.as_str())));
        keys.filter(move |((ns, _), _)| ns.is_empty() || ns == namespace)
            .filter_map(|(key, subject)| Some((self.bindings.get(key)?, subject)))
    }

    fn remove_binding(&mut self, key: &Key) {
        let Some(binding) = self.bindings.remove(key) else { return };
        for subject in binding.subjects {
            if let Some(keys) = self.by_subject.get_mut(&subject) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_subject.remove(&subject);
                }
            }
        }
    }
}

impl Binding {
    fn parse(key: &Key, object: &Object) -> Self {
        let role_kind = object.str_at(&["roleRef", "kind"]);
        let role_name = object.str_at(&["roleRef", "name"]);
        let namespace = if role_kind == "Role" { key.0.clone() } else { String::new() };
        let list = object.get("subjects").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let subjects = list.iter().filter_map(|s| subject(s, &key.0)).collect();
        let (kind, name) = match key.0.as_str() {
            "" => ("ClusterRoleBinding", key.1.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", key.1)),
        };
        let reason = format!("{kind} {name:?} of {role_kind} {role_name:?}");
        Binding { role: (namespace, role_name.to_owned()), subjects, reason }
    }
}

/// A subject as the index names it. A service account without namespace is one of the binding's.
fn subject(subject: &Value, namespace: &str) -> Option<String> {
    let name = subject.str_at(&["name"]);
    match subject.str_at(&["kind"]) {
        "User" => Some(format!("u:{name}")),
        "Group" => Some(format!("g:{name}")),
        "ServiceAccount" => {
            let own = subject.str_at(&["namespace"]);
            let namespace = if own.is_empty() { namespace } else { own };
            (!namespace.is_empty()).then(|| format!("u:{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"))
        }
        _ => None,
    }
}

/// A subject of the index as upstream prints it in reasons.
fn describe(subject: &str) -> String {
    let name = subject.get(2..).unwrap_or("");
    if subject.starts_with("g:") {
        return format!("Group {name:?}");
    }
    match split_service_account(name) {
        Some((namespace, name)) => format!("ServiceAccount \"{name}/{namespace}\""),
        None => format!("User {name:?}"),
    }
}

fn missing_role((namespace, name): &Key) -> String {
    let resource = if namespace.is_empty() { "clusterrole" } else { "role" };
    format!("{resource}.{GROUP} {name:?} not found")
}

fn missing_reason(missing: BTreeSet<String>) -> String {
    let list: Vec<String> = missing.into_iter().collect();
    match list.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

/// One followed kind filling the shared index.
struct Feed {
    index: Arc<Index>,
    part: Part,
    namespaced: bool,
}

impl Sink for Feed {
    fn put(&self, key: &Key, kv: &KeyValue) {
        let Ok(object) = serde_json::from_slice::<Object>(&kv.value) else { return };
        match self.part {
            Part::Roles => self.index.put_role(key, &object),
            Part::Bindings => self.index.put_binding(key, &object),
        }
    }

    fn delete(&self, key: &Key) {
        let mut tables = self.index.0.write();
        match self.part {
            Part::Roles => drop(tables.roles.remove(key)),
            Part::Bindings => tables.remove_binding(key),
        }
    }

    fn keys(&self) -> Vec<Key> {
        let tables = self.index.0.read();
        let mine = |key: &&Key| key.0.is_empty() != self.namespaced;
        match self.part {
            Part::Roles => tables.roles.keys().filter(mine).cloned().collect(),
            Part::Bindings => tables.bindings.keys().filter(mine).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    fn index() -> Index {
        let index = Index::default();
        let rules = |verb: &str, resource: &str| json!({"rules": [{"verbs": [verb], "apiGroups": [""], "resources": [resource]}]});
        index.put_role(&key("", "readers"), &rules("get", "pods"));
        index.put_role(&key("dev", "local"), &rules("update", "pods"));
        let bind = |kind: &str, role: &str, subjects: Value| json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects});
        index.put_binding(&key("", "all"), &bind("ClusterRole", "readers", json!([{"kind": "Group", "name": "eng"}])));
        index.put_binding(
            &key("dev", "one"),
            &bind(
                "Role",
                "local",
                json!([{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "bot"}]),
            ),
        );
        index.put_binding(&key("dev", "gone"), &bind("Role", "no-such", json!([{"kind": "User", "name": "joe"}])));
        index
    }

    #[test]
    fn decisions() {
        let index = index();
        // (user, groups, verb, namespace, allowed)
        let cases = [
            ("x", "eng", "get", "dev", true),
            ("x", "eng", "get", "", true),
            ("x", "eng", "update", "dev", false),
            ("jane", "", "update", "dev", true),
            ("jane", "", "update", "prod", false),
            ("jane", "", "update", "", false),
            ("system:serviceaccount:dev:bot", "", "update", "dev", true),
            ("system:serviceaccount:prod:bot", "", "update", "dev", false),
            ("eng", "", "get", "dev", false),
        ];
        for (user, group, verb, namespace, want) in cases {
            let user = UserInfo { name: user.into(), groups: vec![group.into()], ..Default::default() };
            let info = RequestInfo {
                is_resource: true,
                verb: verb.into(),
                namespace: namespace.into(),
                resource: "pods".into(),
                ..Default::default()
            };
            let got = matches!(index.decide(&user, &info), Decision::Allow { .. });
            assert_eq!(got, want, "{user:?} {verb} {namespace}");
        }
        let jane = UserInfo { name: "jane".into(), ..Default::default() };
        let update = RequestInfo {
            is_resource: true,
            verb: "update".into(),
            namespace: "dev".into(),
            resource: "pods".into(),
            ..Default::default()
        };
        let reason = "RBAC: allowed by RoleBinding \"one/dev\" of Role \"local\" to User \"jane\"";
        assert_eq!(index.decide(&jane, &update), Decision::Allow { reason: reason.into() });
        let joe = UserInfo { name: "joe".into(), ..Default::default() };
        let info = RequestInfo { is_resource: true, namespace: "dev".into(), ..Default::default() };
        let want = "RBAC: role.rbac.authorization.k8s.io \"no-such\" not found";
        assert_eq!(index.decide(&joe, &info), Decision::NoOpinion { reason: want.into() });
    }

    #[test]
    fn a_changed_binding_takes_rights_away() {
        let index = index();
        let jane = UserInfo { name: "jane".into(), ..Default::default() };
        assert_eq!(index.rules_of(&jane, "dev").0.len(), 1);
        index.put_binding(&key("dev", "one"), &json!({"roleRef": {"kind": "Role", "name": "local"}, "subjects": []}));
        assert_eq!(index.rules_of(&jane, "dev").0.len(), 0);
        assert!(!index.0.read().by_subject.contains_key("u:jane"));
    }
}
