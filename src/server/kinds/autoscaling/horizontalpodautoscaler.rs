//! HorizontalPodAutoscaler (`autoscaling/v2`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[STATUS],
    storage: "horizontalpodautoscalers",
    ..Kind::BASE
};
