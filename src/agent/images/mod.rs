//! Images: pulling with policies, importing from files, collecting what nobody uses.

pub mod auth;
pub mod import;
pub mod reference;
pub mod store;
