//! Tables over the lookup. `.S` stands for `.testns.svc.cluster.local`, `.Z` for `.cluster.local`,
//! `$N` for the name asked for.

mod aliases;
mod compiled;
mod endpoints;
mod names;
mod options;
mod reverse;
mod services;
