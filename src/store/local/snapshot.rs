//! Reading everything at one revision, a step at a time.

use super::record::Place;
use super::shared::{Pin, Shared};
use crate::store::{Error, Head, Snapshot, Write};
use crate::task;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Instant;

/// Records and bytes of values after which a step ends.
pub const STEP_RECORDS: usize = 512;
pub const STEP_BYTES: usize = 1 << 20;

const START: Place = Place { revision: 0, sub: 0 };

pub struct Shot {
    head: Head,
    /// Keeps what is needed to read at its compacted revision and above.
    pin: Arc<Pin>,
    /// Where to go on; `None` at the end.
    next: Option<Place>,
}

impl Shot {
    pub fn of(shared: &Arc<Shared>) -> Result<Self, Error> {
        shared.check_open()?;
        let (pin, compacted, revision) = shared.pin_all();
        Ok(Shot {
            head: Head { revision, compacted, leases: shared.leases.all(Instant::now()) },
            pin: Arc::new(pin),
            next: Some(START),
        })
    }
}

#[async_trait]
impl Snapshot for Shot {
    fn head(&self) -> &Head {
        &self.head
    }

    async fn next(&mut self) -> Result<Vec<Write>, Error> {
        while let Some(from) = self.next {
            let (pin, compacted, revision) = (self.pin.clone(), self.head.compacted, self.head.revision);
            let read = task::Group::blocking(move || pin.shared.read_writes(from, compacted, revision)).await;
            let (writes, next) =
                read.map_err(|e| Error::Failed { step: "reading a snapshot", message: e.to_string() })??;
            self.next = next;
            if !writes.is_empty() {
                return Ok(writes);
            }
        }
        Ok(Vec::new())
    }

    fn rewind(&mut self) {
        self.next = Some(START);
    }
}
