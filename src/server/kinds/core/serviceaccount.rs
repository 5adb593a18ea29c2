//! ServiceAccount (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        verbs: &["create"],
        kind: Some(("authentication.k8s.io", "v1", "TokenRequest")),
    }],
    storage: "serviceaccounts",
    columns: &[Column::NAME, integer("Secrets"), Column::AGE],
    strategy: &ServiceAccount,
    ..Kind::BASE
};

struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn row(&self, account: &Object, now: i64) -> Vec<Value> {
        vec![account.name().into(), count(account, &["secrets"]).into(), age(account, now)]
    }
}
