//! ResourceQuota (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[STATUS],
    storage: "resourcequotas",
    ..Kind::BASE
};
