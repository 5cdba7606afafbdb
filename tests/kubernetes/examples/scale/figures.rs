//! What was measured.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use sealane_test_kubernetes::Size;
use serde_json::{Map, Value, json};

/// Memory and CPU of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Bytes.
    pub(crate) resident: u64,
    /// The most since the process began, or since [`forget_peak`]; bytes.
    pub(crate) peak: u64,
    /// User and system time.
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            let number: u64 = number.context("a line of /proc/PID/status")?.parse()?;
            anyhow::Ok(number * 1024)
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may have spaces; times are in hundredths of a second.
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u64 = after
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Self {
            resident: kilobytes("VmRSS:")?,
            peak: kilobytes("VmHWM:")?,
            cpu: Duration::from_millis(ticks * 10),
        })
    }
}

/// Lets a process's peak begin anew (proc(5), `clear_refs`).
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak")
}

/// 50th, 90th and 99th percentile and the maximum of some nanoseconds.
pub(crate) fn percentiles(mut nanos: Vec<u64>) -> [Duration; 4] {
    nanos.sort_unstable();
    let last = nanos.len().saturating_sub(1);
    [50, 90, 99, 100].map(|percent| {
        let value = nanos.get(last * percent / 100).copied();
        Duration::from_nanos(value.unwrap_or_default())
    })
}

/// Names and values, printed as they come.
#[derive(Debug, Default)]
pub(crate) struct Figures(Map<String, Value>);

impl Figures {
    fn add(&mut self, name: &str, value: f64, unit: &str) {
        eprintln!("{name:<52}{value:>12.3} {unit}");
        self.0
            .insert(name.to_owned(), json!({"value": value, "unit": unit}));
    }

    pub(crate) fn note(&mut self, name: &str, value: f64) {
        self.add(name, value, "");
    }

    pub(crate) fn seconds(&mut self, name: &str, time: Duration) {
        self.add(name, time.as_secs_f64(), "s");
    }

    pub(crate) fn megabytes(&mut self, name: &str, bytes: u64) {
        self.add(name, bytes as f64 / 1e6, "MB");
    }

    pub(crate) fn ratio(&mut self, name: &str, value: u64, of: u64) {
        self.add(name, value as f64 / of as f64, "");
    }

    pub(crate) fn latency(&mut self, name: &str, times: [Duration; 4]) {
        for (which, time) in ["p50", "p90", "p99", "max"].into_iter().zip(times) {
            self.add(&format!("{name}, {which}"), time.as_secs_f64() * 1e3, "ms");
        }
    }

    /// Writes them to a file.
    pub(crate) fn finish(self, file: &Path, size: Size) -> anyhow::Result<()> {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let all = json!({
            "services": size.services,
            "endpoints": size.endpoints(),
            "cores": cores,
            "figures": self.0,
        });
        fs::create_dir_all(file.parent().context("a directory")?)?;
        fs::write(file, format!("{all:#}\n"))?;
        eprintln!("written to {}", file.display());
        Ok(())
    }
}
