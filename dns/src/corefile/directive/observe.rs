//! `errors`, `log`, `health`, `ready`, `prometheus`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::config::{
    COMBINED_LOG_FORMAT, COMMON_LOG_FORMAT, Consolidate, ErrorsSettings, HealthSettings, LogClass,
    LogSettings, ReadyMonitor, ReadySettings,
};
use crate::corefile::block::Scope;
use crate::corefile::problem::Result;
use crate::corefile::token::Token;
use crate::corefile::tree::Directive;
use crate::corefile::words::{self, Words};
use crate::name::Name;

/// How long queries are answered after the signal to end, unless `lameduck` says otherwise:
/// kubeadm's. CoreDNS ends at once, and loses queries of clients that do not know yet.
const LAMEDUCK: Duration = Duration::from_secs(5);

fn everywhere(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// `errors [stdout] { stacktrace; consolidate … }`.
pub(in crate::corefile) fn errors(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    if let Some(file) = words.next()
        && file.text != "stdout"
    {
        let message = format!("'{}': errors can only be written to stdout", file.text);
        return Err(file.bad(message));
    }
    words.end()?;
    let mut errors = ErrorsSettings::default();
    let known = &["consolidate", "stacktrace"];
    scope.properties(directive, known, |_, words| {
        match &*words.name.text {
            "stacktrace" => {}
            "consolidate" => errors.consolidate.push(consolidate(words)?),
            _ => return Ok(false),
        }
        Ok(true)
    });
    scope.plugins.errors = Some(errors);
    Ok(())
}

/// `DURATION REGEXP [LEVEL] [show_first]`.
fn consolidate(words: &mut Words<'_>) -> Result<Consolidate> {
    let mut consolidate = Consolidate {
        period: words::duration(words.need("a duration and a regular expression")?)?,
        pattern: words::regex(words.need("a regular expression")?)?,
        level: "error".to_owned(),
        show_first: false,
    };
    if let Some(level) = words.peek()
        && ["warning", "error", "info", "debug"].contains(&&*level.text)
    {
        words.next();
        consolidate.level.clone_from(&level.text);
    }
    if let Some(option) = words.next() {
        if option.text != "show_first" {
            return Err(option.bad(format!(
                "unknown option '{}'; known are: warning, error, info, debug, then show_first",
                option.text
            )));
        }
        consolidate.show_first = true;
    }
    Ok(consolidate)
}

/// `log [ZONES…] [FORMAT] { class … }`. A single argument is a zone.
pub(in crate::corefile) fn log(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let (zones, format) = match directive.args.as_slice() {
        [only] if only.text.contains('{') => {
            let message = "a format needs a zone before it: log . FORMAT";
            return Err(only.bad(message));
        }
        [zones @ .., format] if format.text.contains('{') => (zones, Some(&*format.text)),
        zones => (zones, None),
    };
    let zones = match zones {
        [] => vec![Name::root()],
        zones => zones.iter().map(words::name).collect::<Result<_>>()?,
    };
    let format = format.unwrap_or("{common}");
    let format = format.replace("{common}", COMMON_LOG_FORMAT);
    let format = format.replace("{combined}", COMBINED_LOG_FORMAT);
    let mut classes = Vec::new();
    scope.properties(directive, &["class"], |_, words| {
        if words.name.text != "class" {
            return Ok(false);
        }
        for token in words.some("success, denial, error or all")? {
            classes.push(class(token)?);
        }
        Ok(true)
    });
    if classes.is_empty() {
        classes.push(LogClass::All);
    }
    scope.plugins.log.push(LogSettings {
        zones,
        format,
        classes,
    });
    Ok(())
}

fn class(token: &Token) -> Result<LogClass> {
    Ok(match token.text.as_str() {
        "all" => LogClass::All,
        "success" => LogClass::Success,
        "denial" => LogClass::Denial,
        "error" => LogClass::Error,
        other => {
            let message =
                format!("unknown class '{other}'; known are: all, success, denial, error");
            return Err(token.bad(message));
        }
    })
}

/// `health [ADDRESS] { lameduck DURATION }`.
pub(in crate::corefile) fn health(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let mut health = HealthSettings {
        address: words
            .next()
            .map_or(Ok(everywhere(8080)), words::listen_address)?,
        lameduck: LAMEDUCK,
    };
    words.end()?;
    scope.properties(directive, &["lameduck"], |_, words| {
        if words.name.text != "lameduck" {
            return Ok(false);
        }
        health.lameduck = words::duration(words.need("a duration")?)?;
        Ok(true)
    });
    scope.plugins.health = Some(health);
    Ok(())
}

/// `ready [ADDRESS] { monitor until-ready|continuously }`.
pub(in crate::corefile) fn ready(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let mut ready = ReadySettings {
        address: words
            .next()
            .map_or(Ok(everywhere(8181)), words::listen_address)?,
        monitor: ReadyMonitor::default(),
    };
    words.end()?;
    scope.properties(directive, &["monitor"], |_, words| {
        if words.name.text != "monitor" {
            return Ok(false);
        }
        let monitor = words.need("until-ready or continuously")?;
        ready.monitor = match monitor.text.as_str() {
            "until-ready" => ReadyMonitor::UntilReady,
            "continuously" => ReadyMonitor::Continuously,
            other => {
                let message = format!("unknown '{other}'; known are: until-ready, continuously");
                return Err(monitor.bad(message));
            }
        };
        Ok(true)
    });
    scope.plugins.ready = Some(ready);
    Ok(())
}

/// `prometheus [ADDRESS]`.
pub(in crate::corefile) fn prometheus(
    scope: &mut Scope<'_, '_>,
    directive: &Directive,
) -> Result<()> {
    let mut words = Words::of(directive);
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 9153));
    let address = words.next().map_or(Ok(local), words::listen_address)?;
    words.end()?;
    scope.properties(directive, &["runtime_metrics", "tls"], |_, words| {
        match &*words.name.text {
            // Metrics of Go's runtime.
            "runtime_metrics" => Ok(true),
            "tls" => Err(words.unsupported("metrics are served without TLS")),
            _ => Ok(false),
        }
    });
    scope.plugins.prometheus = Some(address);
    Ok(())
}
