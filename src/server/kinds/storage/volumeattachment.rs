//! VolumeAttachment (`storage.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "volumeattachments",
    columns: &[Column::NAME, text("Attacher"), text("PV"), text("Node"), boolean("Attached"), Column::AGE],
    strategy: &VolumeAttachment,
    ..Kind::BASE
};

struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, attachment: &Object, errors: &mut Errors) {
        check(attachment, errors, |attachment| {
            let spec = attachment.get("spec");
            podspec::csi_driver_name(&spec.get("attacher"));
            spec.get("nodeName").format(names::dns_subdomain);
            let source = spec.get("source");
            match (source.get("inlineVolumeSpec").is_set(), source.get("persistentVolumeName").is_set()) {
                (false, false) => {
                    source.required("must specify exactly one of inlineVolumeSpec and persistentVolumeName")
                }
                (true, true) => {
                    source.forbidden("must specify exactly one of inlineVolumeSpec and persistentVolumeName")
                }
                _ => {}
            }
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| new.get("spec").immutable(&old.get("spec")));
    }

    fn row(&self, attachment: &Object, now: i64) -> Vec<Value> {
        vec![
            attachment.name().into(),
            string(attachment, &["spec", "attacher"]),
            string(attachment, &["spec", "source", "persistentVolumeName"]),
            string(attachment, &["spec", "nodeName"]),
            bool_at(attachment, &["status", "attached"]).into(),
            age(attachment, now),
        ]
    }
}
