//! ConfigMap.

use super::*;
use crate::server::table::Column;

pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    scope: Scope::Namespaced,
    short_names: &["cm"],
    categories: &[],
    verbs: Verbs::All,
    subresources: &[],
    storage: "configmaps",
    selectable: &[],
    columns: &[Column::NAME, Column::new("Data", "integer", 0), Column::AGE],
    conversion: None,
    strategy: &ConfigMap,
};

struct ConfigMap;

impl Strategy for ConfigMap {}
