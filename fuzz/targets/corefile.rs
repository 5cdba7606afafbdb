#![no_main]
//! Corefiles: any text is either served or refused with its places, and a text that was served
//! builds a server.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use sealane_dns::corefile::{self, Loader, Options};

/// Surroundings that hold a little of everything, imports of themselves included.
struct Surroundings<'a>(&'a str);

impl Loader for Surroundings<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("override") => Ok("log\nerrors\n".to_owned()),
            Some("server") => Ok("a.test {\n  whoami\n}\n".to_owned()),
            Some("self") => Ok(self.0.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let text = pattern.to_string_lossy();
        Ok((0..3)
            .map(|n| text.replace(['*', '?'], &n.to_string()).into())
            .collect())
    }

    fn env(&self, name: &str) -> Option<String> {
        (!name.is_empty()).then(|| self.0.chars().take(16).collect())
    }

    fn interface(&self, name: &str) -> Option<Vec<IpAddr>> {
        (name == "lo").then(|| vec![IpAddr::from([127, 0, 0, 1])])
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::from([10, 0, 0, 1])]
    }

    fn host_name(&self) -> String {
        "host".to_owned()
    }
}

fuzz_target!(|text: &str| {
    for lenient in [false, true] {
        let options = Options {
            lenient,
            ..Options::default()
        };
        match corefile::parse(text, "Corefile", &Surroundings(text), options) {
            Ok(corefile) => {
                for block in &corefile.config.blocks {
                    assert!(!block.place.is_empty());
                }
            }
            Err(problems) => {
                assert!(!problems.is_empty());
                for problem in problems {
                    assert!(!problem.to_string().is_empty());
                }
            }
        }
    }
});
