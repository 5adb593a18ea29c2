//! CronJob (`batch/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    subresources: &[STATUS],
    storage: "cronjobs",
    ..Kind::BASE
};
