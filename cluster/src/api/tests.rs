//! Tests of the whole server, in process and over TLS.

mod crud;
mod deletion;
mod discovery;
mod errors;
mod kubectl;
mod lists;
mod patches;
mod services;
mod streams;
mod subresources;
mod support;
mod watching;
