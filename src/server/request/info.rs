//! Paths and methods to [`RequestInfo`], with upstream's rules.

use super::{Query, RequestInfo};
use crate::selector::FieldSelector;
use http::Method;

/// Parts of a namespace itself, not resources in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info =
            RequestInfo { path: path.to_owned(), verb: method.as_str().to_ascii_lowercase(), ..Default::default() };
        let mut parts = path.split('/').filter(|p| !p.is_empty()).map(crate::wire::query::unescape);
        let (group, version) = match parts.next().as_deref() {
            Some("api") => (Some(String::new()), parts.next()),
            Some("apis") => (parts.next(), parts.next()),
            _ => return info,
        };
        let (Some(group), Some(version)) = (group, version) else { return info };
        let mut rest: Vec<String> = parts.collect();
        if rest.is_empty() {
            return info;
        }
        info.is_resource = true;
        (info.group, info.version) = (group, version);
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        // The deprecated `/api/v1/watch/...` form.
        if rest[0] == "watch" && rest.len() > 1 {
            rest.remove(0);
            info.verb = "watch".to_owned();
        }
        if rest[0] == "namespaces" && rest.len() > 1 {
            info.namespace = rest[1].clone();
            if rest.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&rest[2].as_str()) {
                rest.drain(..2);
            }
        }
        let mut rest = rest.into_iter();
        info.resource = rest.next().unwrap_or_default();
        info.name = rest.next().unwrap_or_default();
        info.subresource = rest.next().unwrap_or_default();
        info.rest = rest.collect::<Vec<_>>().join("/");
        if info.name.is_empty() {
            info.collection(query);
        }
        info
    }

    /// Without a name, get means list or watch, and delete the whole collection.
    fn collection(&mut self, query: &Query) {
        if self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
        }
        if self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
        if self.verb != "create" {
            self.field_selector = query.get("fieldSelector").to_owned();
        }
        // A selector that names one object counts as a request for it: node authorization relies on this.
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection")
            && let Some(name) = FieldSelector::parse(query.get("fieldSelector")).ok()
            && let Some(name) = name.exact("metadata.name").filter(|n| !n.is_empty() && !n.contains(['/', '%']))
        {
            self.name = name.to_owned();
        }
    }

    /// Streams and watches have no deadline and no place among the requests in flight.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch" || matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        // method, path, query → verb group/version namespace resource/subresource name rest
        let cases = [
            ("GET", "/api/v1/pods", "", "list /v1 '' pods/ '' ''"),
            ("GET", "/api/v1/pods", "watch=true", "watch /v1 '' pods/ '' ''"),
            ("GET", "/api/v1/namespaces/a/pods", "watch=1", "watch /v1 'a' pods/ '' ''"),
            ("GET", "/api/v1/namespaces/a/pods/p", "", "get /v1 'a' pods/ 'p' ''"),
            ("POST", "/api/v1/namespaces/a/pods/p/exec", "", "create /v1 'a' pods/exec 'p' ''"),
            ("GET", "/api/v1/namespaces/a/services/s/proxy/x/y", "", "get /v1 'a' services/proxy 's' 'x/y'"),
            ("GET", "/api/v1/namespaces", "", "list /v1 '' namespaces/ '' ''"),
            ("GET", "/api/v1/namespaces/a", "", "get /v1 'a' namespaces/ 'a' ''"),
            ("PUT", "/api/v1/namespaces/a/finalize", "", "update /v1 'a' namespaces/finalize 'a' ''"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "",
                "patch apps/v1 'a' deployments/scale 'd' ''",
            ),
            ("DELETE", "/api/v1/namespaces/a/pods", "", "deletecollection /v1 'a' pods/ '' ''"),
            ("DELETE", "/api/v1/nodes/n", "", "delete /v1 '' nodes/ 'n' ''"),
            ("GET", "/api/v1/watch/namespaces/a/pods/p", "", "watch /v1 'a' pods/ 'p' ''"),
            ("GET", "/api/v1/nodes", "fieldSelector=metadata.name%3Dn", "list /v1 '' nodes/ 'n' ''"),
            ("GET", "/api/v1/nodes/system%3Anode", "", "get /v1 '' nodes/ 'system:node' ''"),
        ];
        for (method, path, query, expected) in cases {
            let i = RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query));
            let got = format!(
                "{} {}/{} '{}' {}/{} '{}' '{}'",
                i.verb, i.group, i.version, i.namespace, i.resource, i.subresource, i.name, i.rest
            );
            assert_eq!(got, expected, "{method} {path}?{query}");
            assert!(i.is_resource);
        }
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/version/"] {
            let info = RequestInfo::parse(&Method::GET, path, &Query::parse(""));
            assert!(!info.is_resource && info.verb == "get" && info.path == path, "{path}");
        }
    }
}
