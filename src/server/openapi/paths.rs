//! The operations of a group-version's kinds as OpenAPI v3 paths.

use super::schemas::{self, PATCH, gvk, meta, reference, tag};
use crate::server::discovery::{spoken, verbs};
use crate::server::kinds::{Kind, Subresource};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A query parameter: name, type, what it does.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', the output is indented.");
const DRY_RUN: Parameter = ("dryRun", "string", "'All': every step is taken but nothing is stored.");
const FIELD_MANAGER: Parameter = ("fieldManager", "string", "Name of the actor that makes these changes.");
const FIELD_VALIDATION: Parameter =
    ("fieldValidation", "string", "What unknown and duplicate fields cause: 'Ignore', 'Warn' or 'Strict'.");
const FORCE: Parameter = ("force", "boolean", "Server-side apply takes fields that other managers own.");

const WRITE: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const APPLY: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETE: &[Parameter] = &[
    PRETTY,
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted; 0: at once."),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Delete an object that cannot be read."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: 'Orphan', 'Background' or 'Foreground'."),
];
const LIST: &[Parameter] = &[
    PRETTY,
    ("allowWatchBookmarks", "boolean", "The watch may send BOOKMARK events."),
    ("continue", "string", "Where the previous page ended."),
    ("fieldSelector", "string", "Only objects whose fields match."),
    ("labelSelector", "string", "Only objects whose labels match."),
    ("limit", "integer", "No more objects than this in one answer."),
    ("resourceVersion", "string", "From which revision the answer may be."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: 'Exact' or 'NotOlderThan'."),
    ("sendInitialEvents", "boolean", "The watch begins with the current state."),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("watch", "boolean", "Stream changes instead of a list."),
];
const LOG: &[Parameter] = &[
    PRETTY,
    ("container", "string", "Whose logs; the only container's by default."),
    ("follow", "boolean", "Go on as lines are written."),
    ("insecureSkipTLSVerifyBackend", "boolean", "Do not verify the kubelet's certificate."),
    ("limitBytes", "integer", "End after so many bytes."),
    ("previous", "boolean", "Logs of the previous, terminated container."),
    ("sinceSeconds", "integer", "Only lines of the last so many seconds."),
    ("stream", "string", "'All', 'Stdout' or 'Stderr'."),
    ("tailLines", "integer", "Only so many lines from the end."),
    ("timestamps", "boolean", "Each line begins with its time."),
];
const STREAM: &[Parameter] = &[
    ("command", "string", "The command and its arguments (exec)."),
    ("container", "string", "In which container."),
    ("stderr", "boolean", "Send standard error."),
    ("stdin", "boolean", "Take standard input."),
    ("stdout", "boolean", "Send standard output."),
    ("tty", "boolean", "Use a terminal."),
];
const PORTS: &[Parameter] = &[("ports", "integer", "The ports to forward.")];
const PROXY: &[Parameter] = &[("path", "string", "The path to ask for behind the proxy.")];

/// What one verb of discovery means over HTTP.
struct Action {
    verb: &'static str,
    method: &'static str,
    /// On the collection rather than on one object.
    collection: bool,
    parameters: &'static [Parameter],
    /// `x-kubernetes-action`, and the first word of the operation's id.
    action: &'static str,
    operation: &'static str,
}

const fn action(
    verb: &'static str,
    method: &'static str,
    collection: bool,
    parameters: &'static [Parameter],
    (action, operation): (&'static str, &'static str),
) -> Action {
    Action { verb, method, collection, parameters, action, operation }
}

const ACTIONS: &[Action] = &[
    action("list", "get", true, LIST, ("list", "list")),
    action("create", "post", true, WRITE, ("post", "create")),
    action("deletecollection", "delete", true, LIST, ("deletecollection", "deleteCollection")),
    action("get", "get", false, &[PRETTY], ("get", "read")),
    action("update", "put", false, WRITE, ("put", "replace")),
    action("patch", "patch", false, APPLY, ("patch", "patch")),
    action("delete", "delete", false, DELETE, ("delete", "delete")),
];

const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

struct Builder<'a> {
    kind: &'a Kind,
    paths: &'a mut Map<String, Value>,
    used: &'a mut BTreeSet<&'static str>,
}

/// The paths of a kind; the definition names of the types they take and give are added to `used`.
pub fn of(kind: &Kind, used: &mut BTreeSet<&'static str>) -> Map<String, Value> {
    let mut paths = Map::new();
    let mut builder = Builder { kind, paths: &mut paths, used };
    builder.resource();
    kind.subresources.iter().for_each(|sub| builder.subresource(sub));
    paths
}

impl Builder<'_> {
    fn base(&self) -> String {
        let kind = self.kind;
        super::name_of(kind.group, kind.version)
    }

    /// The collection's path, with the namespace if there is one.
    fn collection(&self) -> String {
        let namespace = if self.kind.is_namespaced() { "namespaces/{namespace}/" } else { "" };
        format!("/{}/{namespace}{}", self.base(), self.kind.plural)
    }

    fn own_type(&mut self) -> Option<&'static str> {
        self.used_type(self.kind.group, self.kind.version, self.kind.kind)
    }

    fn used_type(&mut self, group: &str, version: &str, kind: &str) -> Option<&'static str> {
        let name = schemas::name_of(group, version, kind)?;
        self.used.insert(name);
        Some(name)
    }

    fn resource(&mut self) {
        let collection = self.collection();
        let item = format!("{collection}/{{name}}");
        let has = |verb: &str| verbs(self.kind).contains(&verb);
        let offered: Vec<&Action> = ACTIONS.iter().filter(|a| has(a.verb)).collect();
        for offered in offered {
            let path = if offered.collection { &collection } else { &item };
            let operation = self.operation(offered);
            self.put(path, offered.method, operation);
        }
        if has("list") && self.kind.is_namespaced() {
            let everywhere = format!("/{}/{}", self.base(), self.kind.plural);
            let list = ACTIONS.iter().find(|a| a.verb == "list");
            if let Some(mut operation) = list.map(|a| self.operation(a)) {
                operation["operationId"] = self.operation_id("list", "ForAllNamespaces").into();
                self.put(&everywhere, "get", operation);
            }
        }
    }

    fn subresource(&mut self, sub: &Subresource) {
        let path = format!("{}/{{name}}/{}", self.collection(), sub.name);
        let (group, version, kind) = spoken(self.kind, sub);
        for verb in sub.verbs {
            let Some(action) = ACTIONS.iter().find(|a| a.verb == *verb) else { continue };
            let parameters = match sub.name {
                "log" => LOG,
                "exec" | "attach" => STREAM,
                "portforward" => PORTS,
                "proxy" => PROXY,
                _ => action.parameters,
            };
            let streams = matches!(sub.name, "log" | "exec" | "attach" | "portforward" | "proxy");
            let mut operation = json!({
                "tags": [tag(self.kind.group, self.kind.version)],
                "operationId": self.operation_id(action.operation, &capitalized(sub.name)),
                "description": format!("{} {} of the specified {}", action.operation, sub.name, self.kind.kind),
                "parameters": parameters.iter().map(query).collect::<Value>(),
                "x-kubernetes-action": if streams { "connect" } else { action.action },
                "x-kubernetes-group-version-kind": gvk(group, version, kind),
            });
            let body = if streams { None } else { self.used_type(group, version, kind) };
            operation["responses"] = responses(body);
            if action.method != "get" && !streams {
                operation["requestBody"] = self.request_body(action, body);
            }
            self.put(&path, action.method, operation);
        }
    }

    /// One operation on the kind itself.
    fn operation(&mut self, action: &Action) -> Value {
        let kind = self.kind;
        let own = self.own_type();
        let answer = match action.verb {
            "list" => self.used_type(kind.group, kind.version, &kind.list_kind()),
            "delete" if kind.kind != "Pod" => self.used_type("", "v1", "Status"),
            "deletecollection" => self.used_type("", "v1", "Status"),
            _ => own,
        };
        let mut parameters: Vec<Value> = action.parameters.iter().map(query).collect();
        if action.verb == "deletecollection" {
            let extra = DELETE.iter().filter(|p| p.0 != PRETTY.0);
            parameters.retain(|p| p["name"] != "watch" && p["name"] != "allowWatchBookmarks");
            parameters.extend(extra.map(query));
        }
        let mut operation = json!({
            "tags": [tag(kind.group, kind.version)],
            "operationId": self.operation_id(action.operation, ""),
            "description": format!("{} {}", action.operation, kind.kind),
            "parameters": parameters,
            "responses": responses(answer),
            "x-kubernetes-action": action.action,
            "x-kubernetes-group-version-kind": gvk(kind.group, kind.version, kind.kind),
        });
        if action.method != "get" {
            operation["requestBody"] = self.request_body(action, own);
        }
        operation
    }

    fn request_body(&mut self, action: &Action, own: Option<&'static str>) -> Value {
        match action.method {
            "patch" => {
                self.used.insert(PATCH);
                let content: Map<String, Value> =
                    PATCH_TYPES.iter().map(|t| ((*t).to_owned(), json!({"schema": reference(PATCH)}))).collect();
                json!({"required": true, "content": content})
            }
            "delete" => {
                self.used_type("", "v1", "DeleteOptions");
                json!({"content": {"*/*": {"schema": reference(&meta("DeleteOptions"))}}})
            }
            _ => json!({"required": true, "content": {"*/*": {"schema": own.map_or(json!({}), reference)}}}),
        }
    }

    /// `readAppsV1NamespacedDeploymentScale`
    fn operation_id(&self, operation: &str, suffix: &str) -> String {
        let tag: String = tag(self.kind.group, self.kind.version).split('_').map(capitalized).collect();
        let namespaced = self.kind.is_namespaced() && suffix != "ForAllNamespaces";
        let namespaced = if namespaced { "Namespaced" } else { "" };
        format!("{operation}{tag}{namespaced}{}{suffix}", self.kind.kind)
    }

    /// Add an operation; a path's own parameters come with its first one.
    fn put(&mut self, path: &str, method: &str, operation: Value) {
        let entry = self.paths.entry(path).or_insert_with(|| {
            let mut parameters = Vec::new();
            for (name, text) in [("name", "Name of the object."), ("namespace", "Namespace of the object.")] {
                if path.contains(&format!("{{{name}}}")) {
                    parameters.push(json!({"name": name, "in": "path", "required": true, "description": text,
                        "schema": {"type": "string", "uniqueItems": true}}));
                }
            }
            json!({"parameters": parameters})
        });
        entry[method] = operation;
    }
}

fn query((name, kind, text): &Parameter) -> Value {
    json!({"name": name, "in": "query", "description": text, "schema": {"type": kind, "uniqueItems": true}})
}

fn responses(body: Option<&str>) -> Value {
    let content = match body {
        Some(name) => {
            let schema = json!({"schema": reference(name)});
            json!({"application/json": schema, "application/yaml": schema,
                "application/vnd.kubernetes.protobuf": schema})
        }
        None => json!({"*/*": {"schema": {"type": "string"}}}),
    };
    json!({"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}})
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
