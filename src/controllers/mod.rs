//! Controllers: one trait, one driver, one table; one file per controller (DESIGN D5). Level-triggered: a reconcile
//! gets a key, never an event.

pub mod scheduler;
