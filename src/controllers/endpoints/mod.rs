//! Services to addresses: EndpointSlices, and Endpoints for older readers.

mod legacy;
mod members;
mod slices;

pub use legacy::new as endpoints;
pub use slices::new as endpointslices;
