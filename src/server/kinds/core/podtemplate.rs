//! PodTemplate (`v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    storage: "podtemplates",
    ..Kind::BASE
};
