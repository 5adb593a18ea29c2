//! PodTemplate (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::{self, defaults};
use crate::server::kinds::view::check;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    storage: "podtemplates",
    columns: &[Column::NAME, text("Containers"), text("Images"), text("Pod Labels")],
    strategy: &PodTemplate,
    ..Kind::BASE
};

struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, template: &mut Object) {
        defaults::template(template, &["template"]);
    }

    fn validate(&self, template: &Object, errors: &mut Errors) {
        check(template, errors, |object| podspec::template(&object.get("template")));
    }

    fn row(&self, template: &Object, _now: i64) -> Vec<Value> {
        let [names, images] = containers(template, &["template", "spec"]);
        let labels = labels(template.at(&["template", "metadata", "labels"]));
        vec![template.name().into(), names, images, labels.into()]
    }
}
