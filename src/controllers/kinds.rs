//! What the server serves, by discovery: for controllers that work on every kind there is.

use kube::core::ApiResource;
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery};
use kube::{Client, core::discovery::v2::APIVersionDiscovery};
use std::collections::HashSet;

/// One resource in its preferred version.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Served {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// `deployments.apps`, `pods`.
    pub fn qualified(&self) -> String {
        let ApiResource { group, plural, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// All resources. `complete` is false when the server could not reach a group (an aggregated API that is down).
pub struct Kinds {
    pub served: Vec<Served>,
    pub complete: bool,
}

pub async fn discover(client: &Client) -> kube::Result<Kinds> {
    let (core, groups) =
        futures::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())?;
    Ok(flatten(core.items.into_iter().chain(groups.items)))
}

/// Versions come in order of preference: the first that has a resource counts.
fn flatten(groups: impl Iterator<Item = APIGroupDiscovery>) -> Kinds {
    let mut kinds = Kinds { served: Vec::new(), complete: true };
    for group in groups {
        let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
        let mut seen = HashSet::new();
        for APIVersionDiscovery { version, resources, freshness } in group.versions {
            kinds.complete &= freshness.as_deref() != Some("Stale");
            let version = version.unwrap_or_default();
            let fresh = resources.into_iter().filter_map(|r| served(&name, &version, r));
            kinds.served.extend(fresh.filter(|s| seen.insert(s.resource.plural.clone())));
        }
    }
    kinds
}

fn served(group: &str, version: &str, found: APIResourceDiscovery) -> Option<Served> {
    let kind = found.response_kind?;
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: crate::object::api_version(group, version),
        kind: kind.kind?,
        plural: found.resource?,
    };
    Some(Served { resource, namespaced: found.scope.as_deref() == Some("Namespaced"), verbs: found.verbs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_preferred_version_of_each_resource_counts() {
        let resource = |name: &str, scope: &str| {
            json!({"resource": name, "scope": scope, "verbs": ["get", "list"],
                "responseKind": {"group": "", "version": "", "kind": "Kind"}})
        };
        let group: APIGroupDiscovery = serde_json::from_value(json!({"metadata": {"name": "g"}, "versions": [
            {"version": "v2", "resources": [resource("a", "Namespaced")]},
            {"version": "v1", "freshness": "Stale", "resources": [resource("a", "Namespaced"), resource("b", "Cluster")]},
        ]}))
        .unwrap();
        let kinds = flatten([group].into_iter());
        let found: Vec<_> = kinds.served.iter().map(|s| (s.qualified(), &*s.resource.version, s.namespaced)).collect();
        assert_eq!(found, [("a.g".to_owned(), "v2", true), ("b.g".to_owned(), "v1", false)]);
        assert!(!kinds.complete);
        assert!(kinds.served[0].can("list") && !kinds.served[0].can("delete"));
    }
}
