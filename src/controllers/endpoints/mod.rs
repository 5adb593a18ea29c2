//! Services to addresses: EndpointSlices, and Endpoints for older readers.

mod legacy;
mod members;
mod mirror;
mod slices;

pub use legacy::new as endpoints;
pub use mirror::new as mirror;
pub use slices::new as endpointslices;
