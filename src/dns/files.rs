//! A Corefile on disk, with what it imports.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use sealane_dns::DnsConfig;
use sealane_dns::corefile::{self, Loader, Options, Problem};

/// Largest file that is read, bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Where a Corefile is, and how it is read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The file.
    pub(crate) path: PathBuf,
    /// How it is read.
    pub(crate) options: Options,
    /// Answer like CoreDNS in every block.
    pub(crate) compat_coredns: bool,
}

/// What was found on disk.
pub(crate) struct Loaded {
    /// SHA-512 of the file and of all that it imports, hexadecimal.
    pub(crate) digest: String,
    /// What it says with its warnings, or what is wrong.
    pub(crate) outcome: Result<(Arc<DnsConfig>, Vec<Problem>), Vec<Problem>>,
}

impl Source {
    /// Reads the file and what it imports.
    ///
    /// # Errors
    /// The file itself cannot be read.
    pub(crate) fn load(&self) -> io::Result<Loaded> {
        let disk = Disk::default();
        let text = disk.read(&self.path)?;
        let file = self.path.to_string_lossy();
        let outcome = corefile::parse(&text, &file, &disk, self.options);
        let outcome = outcome.map(|read| (Arc::new(self.complete(read.config)), read.warnings));
        Ok(Loaded {
            digest: disk.digest(),
            outcome,
        })
    }

    /// The configuration with what the command line adds.
    fn complete(&self, config: DnsConfig) -> DnsConfig {
        match self.compat_coredns {
            true => compat_coredns(config),
            false => config,
        }
    }
}

/// The same, with CoreDNS's answers in every block.
pub(crate) fn compat_coredns(mut config: DnsConfig) -> DnsConfig {
    for block in &mut config.blocks {
        let plugins = &mut Arc::make_mut(block).plugins;
        plugins.compat_coredns = true;
        if let Some(kubernetes) = &mut plugins.kubernetes {
            Arc::make_mut(kubernetes).compat_coredns = true;
        }
    }
    config
}

/// The file system and the rest of what a Corefile refers to.
pub(crate) struct Disk {
    /// Everything that was read.
    read: RefCell<digest::Context>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            read: RefCell::new(digest::Context::new(&digest::SHA512)),
        }
    }
}

impl Disk {
    fn digest(self) -> String {
        let digest = self.read.into_inner().finish();
        let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        digits.collect()
    }
}

impl Loader for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        let file = File::open(path)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_BYTES {
            let message = format!("it has more than {MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let mut read = self.read.borrow_mut();
        // Lengths keep the end of one file apart from the start of the next.
        for part in [path.as_os_str().as_encoded_bytes(), text.as_bytes()] {
            read.update(&(part.len() as u64).to_be_bytes());
            read.update(part);
        }
        Ok(text)
    }

    fn probe(&self, path: &Path) -> io::Result<()> {
        let is_directory = File::open(path)?.metadata()?.is_dir();
        match is_directory {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(()),
        }
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = vec![PathBuf::new()];
        for component in pattern.components() {
            let text = component.as_os_str().to_string_lossy();
            if !matches!(component, Component::Normal(_)) || !text.contains(['*', '?']) {
                found.iter_mut().for_each(|path| path.push(component));
                continue;
            }
            let mut matching = Vec::new();
            for directory in &found {
                matching.extend(entries(directory, &text)?);
            }
            found = matching;
        }
        found.retain(|path| path.exists());
        found.sort();
        Ok(found)
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn interface(&self, name: &str) -> Option<Vec<IpAddr>> {
        let all = devices().into_iter();
        let addresses: Vec<IpAddr> = all
            .filter(|(device, _)| device == name)
            .map(|(_, addr)| addr)
            .collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        sealane_dns::own_addresses(&[])
    }

    fn host_name(&self) -> String {
        let name = nix::unistd::gethostname();
        name.map_or_else(
            |_unknown| "localhost".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }
}

/// Entries of a directory whose names match; none if there is no such directory.
fn entries(directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let path = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| matches(name, pattern)) {
            found.push(directory.join(name));
        }
    }
    Ok(found)
}

/// The name is like the pattern, which has one `*` for anything or one `?` for one character.
fn matches(name: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once(['*', '?']) else {
        return name == pattern;
    };
    let middle = name
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    middle.is_some_and(|middle| pattern.contains('*') || middle.chars().count() == 1)
}

/// The network's devices with their addresses.
fn devices() -> Vec<(String, IpAddr)> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let addressed = all.filter_map(|device| {
        let addr = device.address?;
        let v4 = addr.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
        let v6 = addr.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip()));
        Some((device.interface_name, v4.or(v6)?))
    });
    addressed.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn dns_corefile_imports_from_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Corefile");
        fs::create_dir(directory.path().join("custom")).unwrap();
        fs::write(&path, ".:53 {\n whoami\n import custom/*.override\n}\n").unwrap();
        let source = Source {
            path: path.clone(),
            options: Options::default(),
            compat_coredns: true,
        };
        let first = source.load().unwrap();
        let (config, warnings) = first.outcome.unwrap();
        assert!(config.blocks[0].plugins.compat_coredns);
        assert_eq!(warnings.len(), 1, "no files match");
        assert_eq!(first.digest.len(), 128);
        assert_eq!(source.load().unwrap().digest, first.digest);

        fs::write(directory.path().join("custom/b.override"), "errors\n").unwrap();
        fs::write(directory.path().join("custom/x.other"), "{").unwrap();
        let second = source.load().unwrap();
        assert_ne!(second.digest, first.digest);
        let (config, warnings) = second.outcome.unwrap();
        assert!(config.blocks[0].plugins.errors.is_some());
        assert!(warnings.is_empty());

        fs::write(directory.path().join("custom/b.override"), "errrors\n").unwrap();
        let third = source.load().unwrap();
        assert_ne!(third.digest, second.digest);
        let problems = third.outcome.err().unwrap();
        let place = directory.path().join("custom/b.override");
        assert!(
            problems[0]
                .to_string()
                .starts_with(&format!("{}:1 - ", place.display()))
        );

        fs::remove_file(path).unwrap();
        assert_eq!(source.load().err().unwrap().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn dns_corefile_patterns_of_files() {
        for (name, pattern, expected) in [
            ("a.server", "*.server", true),
            (".server", "*.server", true),
            ("a.server.old", "*.server", false),
            ("ab", "a*b", true),
            ("a", "a*a", false),
            ("ab", "a?", true),
            ("a", "a?", false),
            ("abc", "a?", false),
            ("a", "a", true),
        ] {
            assert_eq!(matches(name, pattern), expected, "{name} {pattern}");
        }
    }

    #[test]
    fn dns_corefile_interfaces_have_addresses() {
        let loopback = Disk::default().interface("lo").unwrap_or_default();
        assert!(loopback.iter().all(IpAddr::is_loopback), "{loopback:?}");
        assert_eq!(Disk::default().interface("no-such-0"), None);
        assert!(
            Disk::default()
                .addresses()
                .iter()
                .all(|addr| !addr.is_loopback())
        );
    }
}
