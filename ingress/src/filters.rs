//! What is done to a request between its rule and its backend.

pub(crate) mod affinity;
pub(crate) mod alternative;
pub(crate) mod cors;
pub(crate) mod error_pages;
pub(crate) mod forwarded;
pub(crate) mod hash;
pub(crate) mod mirror;
pub(crate) mod redirect;
pub(crate) mod response;
pub(crate) mod rewrite;
pub(crate) mod same_site;
pub(crate) mod underscores;
pub(crate) mod upstream;
