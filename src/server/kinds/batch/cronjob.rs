//! CronJob (`batch/v1`).

use super::{job, schedule};
use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::defaults;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::check;
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

    fn validate(&self, job: &Object, errors: &mut Errors) {
        check(job, errors, |job| {
            let (spec, name) = (job.get("spec"), job.at(&["metadata", "name"]));
            // The name of a job adds a dash and eleven digits, and is a label.
            if name.len() > MAX_NAME_BYTES {
                name.invalid(format!("must be no more than {MAX_NAME_BYTES} characters"));
            }
            let line = spec.get("schedule");
            if line.require() {
                if line.str().contains("TZ") {
                    line.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
                } else if let Err(why) = schedule::check(line.str()) {
                    line.invalid(why);
                }
            }
            time_zone(&spec.get("timeZone"));
            for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
                spec.get(field).non_negative();
            }
            spec.get("concurrencyPolicy").require_one_of(&["Allow", "Forbid", "Replace"]);
            let template = spec.at(&["jobTemplate", "spec"]);
            job::validate_spec(&template);
            if template.get("selector").is_set() {
                template.get("selector").invalid("`selector` will be auto-generated");
            }
            if template.get("manualSelector").is_true() {
                template.get("manualSelector").not_supported(&["nil", "false"]);
            }
        });
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

const MAX_NAME_BYTES: usize = 52;

fn time_zone(zone: &view::View<'_>) {
    if !zone.is_set() {
        return;
    }
    if zone.is_empty() {
        zone.invalid("timeZone must be nil or non-empty string");
    } else if zone.str().eq_ignore_ascii_case("local") {
        zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if jiff::tz::TimeZone::get(zone.str()).is_err() {
        zone.invalid(format!("unknown time zone {}", zone.str()));
    }
}
