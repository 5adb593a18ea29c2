//! MutatingWebhookConfiguration (`admissionregistration.k8s.io/v1`).

use super::validatingwebhookconfiguration::validate_webhooks;
use super::validatingwebhookconfiguration::{default_webhook, row};
use crate::field::Errors;
use crate::object::Object;
use crate::server::kinds::cells::integer;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::check;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "admissionregistration.k8s.io",
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    storage: "mutatingwebhookconfigurations",
    columns: &[Column::NAME, integer("Webhooks"), Column::AGE],
    strategy: &MutatingWebhookConfiguration,
    ..Kind::BASE
};

struct MutatingWebhookConfiguration;

impl Strategy for MutatingWebhookConfiguration {
    fn default(&self, configuration: &mut Object) {
        for webhook in items(configuration, "webhooks") {
            default_webhook(webhook);
            default_nil(webhook, "reinvocationPolicy", "Never");
        }
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
