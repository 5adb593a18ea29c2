//! VolumeAttachment (`storage.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
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
