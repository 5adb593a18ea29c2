//! ValidatingWebhookConfiguration (`admissionregistration.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;
use serde_json::Map;

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
