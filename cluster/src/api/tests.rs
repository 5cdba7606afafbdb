//! Tests of the whole server, in process.

mod crud;
mod support;
mod watching;
