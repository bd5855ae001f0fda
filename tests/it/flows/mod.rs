//! Stories with clients and servers that nobody here wrote, and with power cuts.

mod crash;
mod nio;
mod operating;
mod synapse;
