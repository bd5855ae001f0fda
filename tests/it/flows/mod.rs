//! Stories with clients and servers that nobody here wrote, and with power cuts.

mod crash;
pub(crate) mod freeing;
mod js_sdk;
mod nio;
mod nodes;
mod operating;
mod synapse;
