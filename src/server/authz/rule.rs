//! RBAC policy rules: what one allows, and whether a set of rules covers another (upstream's `rbac/v1` helpers).

use crate::object::Object;
use crate::server::request::RequestInfo;
use serde_json::{Map, Value, json};

const ALL: &str = "*";

/// One `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub urls: Vec<String>,
}

impl Rule {
    /// Fields of the wrong type count as empty: such an object does not pass validation.
    pub fn from_value(value: &Value) -> Self {
        let list = |key: &str| {
            let items = value.get(key).and_then(Value::as_array);
            items.map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
        };
        Rule {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            urls: list("nonResourceURLs"),
        }
    }

    /// The `rules` of a Role or ClusterRole.
    pub fn of_role(role: &Object) -> Vec<Rule> {
        let rules = role.get("rules").and_then(Value::as_array);
        rules.map(|l| l.iter().map(Rule::from_value).collect()).unwrap_or_default()
    }

    /// The API object; empty lists are left out.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("verbs".into(), json!(self.verbs));
        let parts = [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ];
        for (key, list) in parts.into_iter().filter(|(_, list)| !list.is_empty()) {
            map.insert(key.into(), json!(list));
        }
        Value::Object(map)
    }

    /// Whether this rule allows the request.
    pub fn allows(&self, info: &RequestInfo) -> bool {
        if !has(&self.verbs, &info.verb) {
            return false;
        }
        if !info.is_resource {
            return self.urls.iter().any(|u| covers_url(u, &info.path));
        }
        has(&self.groups, &info.group)
            && self.has_resource(&info.resource, &info.subresource)
            && (self.names.is_empty() || self.names.contains(&info.name))
    }

    /// `pods/log` is matched by `*`, `pods/log` and `*/log`.
    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|r| {
            if r == ALL {
                return true;
            }
            match r.split_once('/') {
                None => subresource.is_empty() && r == resource,
                Some((main, sub)) => !subresource.is_empty() && sub == subresource && (main == ALL || main == resource),
            }
        })
    }

    /// Whether everything that the *simple* rule `wanted` (one verb, group, resource, name) allows is allowed by this.
    fn covers_simple(&self, wanted: &Rule) -> bool {
        let covers = |have: &[String], want: &[String]| want.iter().all(|w| has(have, w));
        let urls = wanted.urls.iter().all(|w| self.urls.iter().any(|h| covers_url(h, w)));
        let resources = wanted.resources.iter().all(|w| {
            let (main, sub) = w.split_once('/').unwrap_or((w, ""));
            self.resources.contains(w) || self.has_resource(main, sub)
        });
        let names = if wanted.names.is_empty() {
            self.names.is_empty()
        } else {
            self.names.is_empty() || wanted.names.iter().all(|n| self.names.contains(n))
        };
        covers(&self.verbs, &wanted.verbs) && covers(&self.groups, &wanted.groups) && resources && names && urls
    }

    /// The rule as rules with one verb, group, resource, name or URL each: only those compare without error.
    fn simple(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        let no_name = [String::new()];
        let names: &[String] = if self.names.is_empty() { &no_name } else { &self.names };
        for verb in &self.verbs {
            let verbs = vec![verb.clone()];
            for group in &self.groups {
                for resource in &self.resources {
                    for name in names {
                        out.push(Rule {
                            verbs: verbs.clone(),
                            groups: vec![group.clone()],
                            resources: vec![resource.clone()],
                            names: if name.is_empty() { vec![] } else { vec![name.clone()] },
                            urls: vec![],
                        });
                    }
                }
            }
            let url = |u: &String| Rule { verbs: verbs.clone(), urls: vec![u.clone()], ..Default::default() };
            out.extend(self.urls.iter().map(url));
        }
        out
    }

    /// As upstream prints a rule in escalation errors.
    pub fn describe(&self) -> String {
        let list = |items: &[String]| items.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" ");
        let parts = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("NonResourceURLs", &self.urls),
            ("Verbs", &self.verbs),
        ];
        let shown = parts.iter().filter(|(_, l)| !l.is_empty()).map(|(n, l)| format!("{n}:[{}]", list(l)));
        format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

/// `*` covers everything, `/a/*` covers what begins with `/a/`.
fn covers_url(pattern: &str, url: &str) -> bool {
    pattern == ALL || pattern == url || pattern.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix))
}

/// What of `wanted` no rule in `owned` covers, as compact rules. Empty: everything is covered.
pub fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let simple = wanted.iter().flat_map(Rule::simple);
    let missing: Vec<Rule> = simple.filter(|w| !owned.iter().any(|o| o.covers_simple(w))).collect();
    compact(missing)
}

/// Join simple rules that differ in their verbs alone.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = |o: &&mut Rule| {
            o.groups == rule.groups && o.resources == rule.resources && o.names == rule.names && o.urls == rule.urls
        };
        match out.iter_mut().find(same) {
            Some(found) => found.verbs.extend(rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str, urls: &str) -> Rule {
        let list = |s: &str| match s {
            "" => vec![],
            "-" => vec![String::new()],
            s => s.split(' ').map(|s| s.replace('-', "")).collect(),
        };
        Rule {
            verbs: list(verbs),
            groups: list(groups),
            resources: list(resources),
            names: list(names),
            urls: list(urls),
        }
    }

    #[test]
    fn allows() {
        let pods = rule("get list", "-", "pods", "", "");
        let scale = rule("update", "*", "*/scale", "", "");
        let logs = rule("get", "-", "pods/log", "", "");
        let named = rule("get", "-", "secrets", "a", "");
        let all = rule("*", "*", "*", "", "");
        let urls = rule("get", "", "", "", "/healthz /api/*");
        // (rule, verb, group, resource/subresource, name, allowed)
        let cases = [
            (&pods, "get", "", "pods", "x", true),
            (&pods, "delete", "", "pods", "x", false),
            (&pods, "get", "apps", "pods", "x", false),
            (&pods, "get", "", "pods/log", "x", false),
            (&scale, "update", "apps", "deployments/scale", "x", true),
            (&scale, "update", "apps", "deployments", "x", false),
            (&logs, "get", "", "pods/log", "x", true),
            (&logs, "get", "", "pods", "x", false),
            (&named, "get", "", "secrets", "a", true),
            (&named, "get", "", "secrets", "b", false),
            (&named, "list", "", "secrets", "", false),
            (&all, "anything", "example.org", "things/sub", "x", true),
            (&urls, "get", "", "pods", "x", false),
        ];
        for (rule, verb, group, resource, name, want) in cases {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let info = RequestInfo {
                is_resource: true,
                verb: verb.into(),
                group: group.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                name: name.into(),
                ..Default::default()
            };
            assert_eq!(rule.allows(&info), want, "{rule:?} {info:?}");
        }
        for (path, want) in [("/healthz", true), ("/healthz/etcd", false), ("/api/v1", true), ("/api", false)] {
            let info = RequestInfo { verb: "get".into(), path: path.into(), ..Default::default() };
            assert_eq!(urls.allows(&info), want, "{path}");
            assert!(!all.allows(&info), "resource rules grant no paths");
        }
    }

    #[test]
    fn coverage() {
        let owned =
            [rule("get list", "-", "pods", "", ""), rule("*", "apps", "*", "", ""), rule("get", "", "", "", "/api/*")];
        let cases = [
            (rule("get", "-", "pods", "", ""), ""),
            (rule("get list", "-", "pods", "a b", ""), ""),
            (rule("get delete", "-", "pods", "", ""), "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"),
            (rule("*", "apps", "deployments deployments/scale", "", ""), ""),
            (rule("*", "*", "*", "", ""), "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"),
            (rule("get", "", "", "", "/api/v1 /api/*"), ""),
            (rule("get", "", "", "", "/metrics"), "{NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"),
            (rule("get", "-", "pods/log", "", ""), "{APIGroups:[\"\"], Resources:[\"pods/log\"], Verbs:[\"get\"]}"),
        ];
        for (wanted, missing) in cases {
            let got: Vec<String> =
                uncovered(&owned, std::slice::from_ref(&wanted)).iter().map(Rule::describe).collect();
            assert_eq!(got.join("\n"), missing, "{wanted:?}");
        }
    }
}
