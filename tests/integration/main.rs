//! Integration tests: the real binary, used as its users do.

mod support;

mod dns;
mod gateway;
mod healing;
mod input;
mod kubectl;
mod lifecycle;
mod rootless;
