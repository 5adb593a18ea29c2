//! PodTemplate (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::podspec::defaults;
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

    fn row(&self, template: &Object, _now: i64) -> Vec<Value> {
        let [names, images] = containers(template, &["template", "spec"]);
        let labels = labels(template.at(&["template", "metadata", "labels"]));
        vec![template.name().into(), names, images, labels.into()]
    }
}
