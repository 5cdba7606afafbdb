//! The process's log: structured lines on standard error, with a level that can be changed.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

/// Changes the filter of the process's one subscriber, which is as global as this.
static FILTER: OnceLock<Filter> = OnceLock::new();

struct Filter {
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
    get: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// Starts logging by these directives, unless `RUST_LOG` has others.
pub(crate) fn start(directives: &str) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(directives));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .with_filter_reloading();
    let (reload, look) = (subscriber.reload_handle(), subscriber.reload_handle());
    subscriber.init();
    let _ = FILTER.set(Filter {
        set: Box::new(move |filter| reload.reload(filter).map_err(|error| error.to_string())),
        get: Box::new(move || look.with_current(ToString::to_string).ok()),
    });
}

/// Changes what is logged; as `RUST_LOG` has it.
///
/// # Errors
/// What is wrong with the directives.
pub(crate) fn set(directives: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
    let log = FILTER.get().ok_or("there is no log to change")?;
    (log.set)(filter)
}

/// What is logged.
pub(crate) fn directives() -> Option<String> {
    FILTER.get().and_then(|log| (log.get)())
}
