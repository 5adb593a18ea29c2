//! Tests with real packets, in network namespaces made here. They end with the threads and files that hold them. Need
//! root; without it they say so and pass.

mod lab;
mod node;
mod overlay;
mod traffic;
