//! Settings of logs and of the ports that probes ask.

use std::net::SocketAddr;
use std::time::Duration;

use regex::Regex;

use crate::name::Name;

/// The line of `log` where the Corefile sets none, `{common}` in one that it sets. A value that
/// there is not is `-`.
pub const COMMON_LOG_FORMAT: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} \
    {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";

/// `{combined}` in a line of `log`.
pub const COMBINED_LOG_FORMAT: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} \
    {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration} \"{>opcode}\"";

/// `errors`.
#[derive(Clone, Debug, Default)]
pub struct ErrorsSettings {
    /// Messages that are counted for a while and then logged once.
    pub consolidate: Vec<Consolidate>,
}

/// `consolidate DURATION REGEXP`.
#[derive(Clone, Debug)]
pub struct Consolidate {
    /// For how long messages are counted.
    pub period: Duration,
    /// Which messages.
    pub pattern: Regex,
    /// Severity of the line: `warning`, `error`, `info` or `debug`.
    pub level: String,
    /// The first message of each period is logged at once.
    pub show_first: bool,
}

/// `log [ZONES…] [FORMAT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Zones whose queries are logged.
    pub zones: Vec<Name>,
    /// The line, with `{remote}`, `{name}` and the like.
    pub format: String,
    /// Answers that are logged.
    pub classes: Vec<LogClass>,
}

/// Kind of an answer, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogClass {
    /// With records.
    Success,
    /// NXDOMAIN or no records.
    Denial,
    /// SERVFAIL, NOTIMP, REFUSED and so on.
    Error,
    /// Everything.
    All,
}

/// `health [ADDRESS]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Where `/health` is served; `:8080` by default.
    pub address: SocketAddr,
    /// How long queries are still answered after the signal to end.
    pub lameduck: Duration,
}

/// `ready [ADDRESS]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadySettings {
    /// Where `/ready` is served; `:8181` by default.
    pub address: SocketAddr,
    /// For how long readiness is looked at.
    pub monitor: ReadyMonitor,
}

/// For how long readiness is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReadyMonitor {
    /// Until it was reached once.
    #[default]
    UntilReady,
    /// Always.
    Continuously,
}
