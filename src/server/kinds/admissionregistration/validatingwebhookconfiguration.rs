//! ValidatingWebhookConfiguration (`admissionregistration.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;
use serde_json::Map;
use std::collections::BTreeSet;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "validatingwebhookconfigurations",
    columns: &[Column::NAME, integer("Webhooks"), Column::AGE],
    strategy: &ValidatingWebhookConfiguration,
    ..Kind::BASE
};

struct ValidatingWebhookConfiguration;

impl Strategy for ValidatingWebhookConfiguration {
    fn default(&self, configuration: &mut Object) {
        items(configuration, "webhooks").for_each(default_webhook);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, configuration: &Object, errors: &mut Errors) {
        check(configuration, errors, |configuration| validate_webhooks(&configuration.get("webhooks")));
    }

    fn row(&self, configuration: &Object, now: i64) -> Vec<Value> {
        row(configuration, now)
    }
}

/// Defaults of both kinds of webhook.
pub fn default_webhook(webhook: &mut Value) {
    default_nil(webhook, "failurePolicy", "Fail");
    default_nil(webhook, "timeoutSeconds", 10);
    default_match(webhook);
    items(webhook, "rules").for_each(default_rule);
    if let Some(service) = descend(webhook, &["clientConfig", "service"]) {
        default_nil(service, "port", 443);
    }
}

/// Which requests and objects: matched by equivalence, everything selected.
pub fn default_match(resources: &mut Value) {
    default_nil(resources, "matchPolicy", "Equivalent");
    default_nil(resources, "namespaceSelector", Map::new());
    default_nil(resources, "objectSelector", Map::new());
}

pub fn default_rule(rule: &mut Value) {
    default_nil(rule, "scope", "*");
}

pub fn row(configuration: &Object, now: i64) -> Vec<Value> {
    vec![configuration.name().into(), count(configuration, &["webhooks"]).into(), age(configuration, now)]
}

/// Both kinds of webhooks.
pub fn validate_webhooks(webhooks: &View<'_>) {
    let mut seen = BTreeSet::new();
    for webhook in webhooks.items() {
        validate_webhook(&webhook);
        let name = webhook.get("name");
        if !name.is_empty() && !seen.insert(name.str()) {
            name.duplicate();
        }
    }
}

fn validate_webhook(webhook: &View<'_>) {
    let name = webhook.get("name");
    if name.require() {
        name.format(names::dns_subdomain);
        if name.str().split('.').count() < 3 {
            name.invalid("should be a domain with at least three segments separated by dots");
        }
    }
    webhook.get("rules").items().for_each(|rule| validate_rule(&rule));
    webhook.get("failurePolicy").one_of_if_set(&["Fail", "Ignore"]);
    webhook.get("matchPolicy").one_of_if_set(&["Equivalent", "Exact"]);
    webhook.get("reinvocationPolicy").one_of_if_set(&["IfNeeded", "Never"]);
    let effects = webhook.get("sideEffects");
    if effects.is_set() {
        effects.one_of(&["None", "NoneOnDryRun"]);
    } else {
        effects.required("must specify one of None, NoneOnDryRun");
    }
    let timeout = webhook.get("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        timeout.invalid("the timeout value must be between 1 and 30 seconds");
    }
    rules::label_selector(&webhook.get("namespaceSelector"));
    rules::label_selector(&webhook.get("objectSelector"));
    client_config(&webhook.get("clientConfig"));
    review_versions(&webhook.get("admissionReviewVersions"));
}

/// Where a webhook (of admission or conversion) is called.
pub fn client_config(config: &View<'_>) {
    let (url, service) = (config.get("url"), config.get("service"));
    if url.is_set() == service.is_set() {
        return config.required("exactly one of url or service is required");
    }
    if service.is_set() {
        service.get("name").require();
        service.get("namespace").require();
        let path = service.get("path");
        if !path.is_empty() && !path.str().starts_with('/') {
            path.invalid("must start with a '/'");
        }
        service.get("port").port();
    } else if !url.str().starts_with("https://") {
        url.invalid("'https' is the only allowed URL scheme; desired format: https://host[/path]");
    }
}

fn review_versions(versions: &View<'_>) {
    const ACCEPTED: [&str; 2] = ["v1", "v1beta1"];
    if versions.is_empty() {
        return versions.required("must specify one of v1, v1beta1");
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if seen.insert(version.str()) {
            version.format(names::dns1035_label)
        } else {
            version.invalid("duplicate version")
        }
    }
    if !seen.iter().any(|v| ACCEPTED.contains(v)) {
        versions.invalid("must include at least one of v1, v1beta1");
    }
}

/// Which operations on which resources.
pub fn validate_rule(rule: &View<'_>) {
    const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    let operations = rule.get("operations");
    operations.require();
    operations.items().for_each(|operation| operation.one_of(OPERATIONS));
    exclusive(&operations, "operations");
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        rule.get(field).require();
        exclusive(&rule.get(field), what);
    }
    let resources = rule.get("resources");
    resources.require();
    resources.items().for_each(|resource| _ = resource.require());
    if resources.len() > 1 && resources.items().any(|r| r.str() == "*/*") {
        resources.invalid("if '*/*' is present, must not specify other resources");
    }
    rule.get("scope").one_of_if_set(&["*", "Cluster", "Namespaced"]);
}

/// A wildcard stands alone.
fn exclusive(list: &View<'_>, what: &str) {
    if list.len() > 1 && list.items().any(|item| item.str() == "*") {
        list.invalid(format!("if '*' is present, must not specify other {what}"));
    }
}
