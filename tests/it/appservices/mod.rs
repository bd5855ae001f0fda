//! Application services, as they and their users see it.

mod asked;
mod heard;
mod identity;
