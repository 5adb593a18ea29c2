//! CronJob (`batch/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
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
    columns: &[
        Column::NAME,
        text("Schedule"),
        text("Timezone"),
        text("Suspend"),
        integer("Active"),
        text("Last Schedule"),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    strategy: &CronJob,
    ..Kind::BASE
};

struct CronJob;

impl Strategy for CronJob {
    fn default(&self, job: &mut Object) {
        defaults::template(job, &["spec", "jobTemplate", "spec", "template"]);
        let Some(spec) = child(job, "spec") else { return };
        default_zero(spec, "concurrencyPolicy", "Allow");
        default_nil(spec, "suspend", false);
        default_nil(spec, "successfulJobsHistoryLimit", 3);
        default_nil(spec, "failedJobsHistoryLimit", 1);
    }

    fn row(&self, job: &Object, now: i64) -> Vec<Value> {
        let [names, images] = containers(job, &["spec", "jobTemplate", "spec", "template", "spec"]);
        let last = job.str_at(&["status", "lastScheduleTime"]);
        vec![
            job.name().into(),
            string(job, &["spec", "schedule"]),
            or_none(job.str_at(&["spec", "timeZone"])),
            word(job.at(&["spec", "suspend"])),
            count(job, &["status", "active"]).into(),
            if last.is_empty() { NONE.into() } else { crate::time::age(last, now).into() },
            age(job, now),
            names,
            images,
            selector(job.at(&["spec", "jobTemplate", "spec", "selector"])).into(),
        ]
    }
}
