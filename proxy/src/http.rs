//! The HTTP engine: a request and the Service port that it is for become a response.
//!
//! A connection is served by [`serve()`], which lets every request through the [`gate`] before its
//! handler sees it. The handler hands the request to [`Engine::forward`]: pick an endpoint, take a
//! connection from the pool or make one, send, wait, retry where that is safe, record. Errors
//! become responses in [`respond`], and nowhere else.

mod board;
mod body;
mod direct;
mod engine;
mod exchange;
mod failure;
mod forward;
mod frames;
pub mod gate;
mod headers;
mod heads;
mod held;
mod io;
mod metrics;
mod pace;
pub mod path;
mod patience;
mod relay;
mod replay;
pub mod respond;
mod retry;
mod serve;
mod service;
mod services;
mod tee;
mod upgrade;
mod websocket;

pub use body::{Body, BodyError};
pub use engine::{Engine, EngineOptions, Target, Upstream, served_by};
pub use held::Held;
pub(crate) use relay::send_last;
pub use relay::{ClientStream, Front, OwnField, PlainHead, Route, is_default, write_field};
pub use respond::Hop;
pub(crate) use serve::LocalExecutor;
pub use serve::{HeadLimits, ServerOptions, answer, serve, serve_relayed};
pub(crate) use service::refuse;
pub use service::{Dialled, Reach, ServiceTarget};
pub use services::Shared;

#[cfg(test)]
mod tests;
