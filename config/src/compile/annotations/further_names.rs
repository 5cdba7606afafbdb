//! Names that the hosts of an Ingress have besides their own (ingress-nginx `server-alias` and
//! `from-to-www-redirect`).

use super::Reader;
use crate::compile::host;
use crate::model::HostMatch;

/// Most aliases of one Ingress.
const MOST: usize = 256;

/// Names besides those of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct FurtherNames {
    /// Served as the rules' hosts are.
    pub(in crate::compile) aliases: Vec<HostMatch>,
    /// `www.X` is sent to `X`, and `X` to `www.X`.
    pub(in crate::compile) www: bool,
}

pub(super) fn is(name: &str) -> bool {
    matches!(name, "server-alias" | "from-to-www-redirect")
}

impl Reader<'_> {
    pub(super) fn further_names(&mut self, name: &str, value: &str) {
        if name == "from-to-www-redirect" {
            self.names.www = self.switch(name, value, false);
            return;
        }
        let written = value
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        for text in written {
            let read = match host::parse(text) {
                Ok(_) if self.names.aliases.len() == MOST => {
                    Err(format!("more than {MOST} aliases"))
                }
                Ok(alias) => Ok(alias),
                Err(_) if text.starts_with('~') => {
                    Err(format!("`{text}`: an expression cannot be an alias"))
                }
                Err(why) => Err(format!("`{text}` {why}")),
            };
            let is_bad = read.is_err();
            let alias = self.or_report_as(name, read, "it is left out");
            self.names.aliases.extend(alias);
            if is_bad && self.names.aliases.len() == MOST {
                return;
            }
        }
    }

    /// What was asked for, if anything was.
    pub(super) fn finish_names(&mut self) -> Option<Box<FurtherNames>> {
        let names = std::mem::take(&mut self.names);
        (names != FurtherNames::default()).then(|| Box::new(names))
    }
}
