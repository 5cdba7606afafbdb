//! `template CLASS TYPE [ZONES…] { … }`.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::config::{Fallthrough, TemplateRecord, TemplateSettings};
use crate::corefile::block::Scope;
use crate::corefile::problem::Result;
use crate::corefile::tree::Directive;
use crate::corefile::words::{self, CLASS_ANY, Words};

const KNOWN: &[&str] = &[
    "match",
    "answer",
    "additional",
    "authority",
    "rcode",
    "ederror",
    "fallthrough",
];

pub(in crate::corefile) fn read(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let class = words::class(words.need("a class and a type, such as 'template ANY ANY'")?)?;
    let record_type = words::record_type(words.need("a type, such as ANY")?)?;
    let mut template = TemplateSettings {
        class: (class != CLASS_ANY).then_some(class),
        record_type: (record_type != RecordType::ANY).then_some(record_type),
        zones: scope.zones_or_own(words.all())?,
        matches: Vec::new(),
        answer: Vec::new(),
        additional: Vec::new(),
        authority: Vec::new(),
        rcode: ResponseCode::NoError,
        extended_error: None,
        fallthrough: Fallthrough::No,
    };
    scope.properties(directive, KNOWN, |_, words| {
        match &*words.name.text {
            "match" => {
                for token in words.some("a regular expression")? {
                    template.matches.push(words::regex(token)?);
                }
            }
            "answer" => template.answer.extend(records(words)?),
            "additional" => template.additional.extend(records(words)?),
            "authority" => template.authority.extend(records(words)?),
            "rcode" => template.rcode = words::rcode(words.need("a code")?)?,
            "ederror" => {
                let code = words::number(words.need("a code")?, 0..=u16::MAX)?;
                let reason = words.next().map(|token| token.text.clone());
                template.extended_error = Some((code, reason.unwrap_or_default()));
            }
            "fallthrough" => template.fallthrough = super::fallthrough(words)?,
            // Once an option; CoreDNS still reads it.
            "upstream" => drop(words.all()),
            "var" => return Err(words.unsupported("write what it stands for into the records")),
            _ => return Ok(false),
        }
        Ok(true)
    });
    scope.plugins.template.push(template);
    Ok(())
}

fn records(words: &mut Words<'_>) -> Result<Vec<TemplateRecord>> {
    let records = words.some("a record in quotes")?.map(|token| {
        let record = TemplateRecord(token.text.clone());
        let checked = record.check();
        checked.map_err(|error| token.bad(error.to_string()))?;
        Ok(record)
    });
    records.collect()
}
