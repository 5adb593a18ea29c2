//! Images: pulling with policies, importing from files, collecting what nobody uses.

pub mod auth;
pub mod gc;
pub mod import;
pub mod pull;
pub mod reference;
pub mod store;
