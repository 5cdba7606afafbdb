//! What the system knows of the process, with the names of Prometheus's client libraries.

use std::fmt::Write as _;
use std::fs;

/// Clock ticks a second in /proc, the same on all Linux architectures that we run on.
const TICKS: f64 = 100.0;
/// Bytes of a page.
const PAGE: f64 = 4096.0;

/// `process_*`, and `go_goroutines` with the number of tasks, which alerts take as a sign of what is
/// going on at the same time. What the system does not tell is left out.
pub fn process(tasks: usize) -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the program's name, may hold spaces: count from its closing parenthesis.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace())
        .into_iter()
        .flatten()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    // Numbers as in proc_pid_stat(5), where the first after the parenthesis is 3.
    let field = |number: usize| fields.get(number - 3).copied();
    let fds = fs::read_dir("/proc/self/fd").ok();
    // One is the directory's own.
    let fds = fds.map(|entries| entries.count().saturating_sub(1) as f64);
    let values = [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            field(14)
                .zip(field(15))
                .map(|(user, system)| (user + system) / TICKS),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            field(24).map(|pages| pages * PAGE),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory size in bytes.",
            field(23),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            field(22)
                .zip(boot_time())
                .map(|(ticks, boot)| boot + ticks / TICKS),
        ),
        (
            "process_open_fds",
            "gauge",
            "Number of open file descriptors.",
            fds,
        ),
        (
            "process_max_fds",
            "gauge",
            "Maximum number of open file descriptors.",
            max_fds(),
        ),
        (
            "go_goroutines",
            "gauge",
            "Number of tasks that currently exist.",
            Some(tasks as f64),
        ),
    ];
    let mut out = String::new();
    for (name, kind, help, value) in values {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            );
        }
    }
    out
}

/// When the machine started, seconds since the Unix epoch.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
