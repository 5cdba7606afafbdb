//! HTTP and TCP engine, balancing, pools, interception.

mod detect;
pub mod intercept;
