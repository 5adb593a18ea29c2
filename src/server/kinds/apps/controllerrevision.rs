//! ControllerRevision (`apps/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    storage: "controllerrevisions",
    ..Kind::BASE
};
