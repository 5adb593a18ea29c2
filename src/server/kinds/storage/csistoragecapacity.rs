//! CSIStorageCapacity (`storage.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    storage: "csistoragecapacities",
    columns: &[Column::NAME, text("StorageClassName"), text("Capacity")],
    strategy: &CsiStorageCapacity,
    ..Kind::BASE
};

struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn row(&self, capacity: &Object, _now: i64) -> Vec<Value> {
        let amount = match capacity.get("capacity").filter(|c| !c.is_null()) {
            Some(amount) => quantity(Some(amount)),
            None => UNSET.to_owned(),
        };
        vec![capacity.name().into(), string(capacity, &["storageClassName"]), amount.into()]
    }
}
