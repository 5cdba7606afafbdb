//! `CreateOptions`, `UpdateOptions` and `PatchOptions` from the query (E6).

use crate::api::query::Query;
use crate::api::status::{ApiError, Cause};

/// What happens to unknown and repeated fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped with a warning.
    #[default]
    Warn,
    /// The request fails.
    Strict,
}

/// Options of a write.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    pub(crate) field_manager: Option<String>,
    pub(crate) force: bool,
}

impl WriteOptions {
    /// Reads the options; `kind` names them in errors.
    ///
    /// # Errors
    /// 422 for values that are not supported.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self, ApiError> {
        let dry_run = dry_run(query.all("dryRun").filter(|v| !v.is_empty()), kind)?;
        let validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let cause = Cause::unsupported(
                    "fieldValidation",
                    &format!("\"{other}\""),
                    "\"\", \"Ignore\", \"Strict\", \"Warn\"",
                );
                return Err(ApiError::invalid_options(kind, cause));
            }
        };
        Ok(Self {
            dry_run,
            validation,
            field_manager: query.non_empty("fieldManager").map(str::to_owned),
            force: query.flag("force"),
        })
    }
}

/// Whether `dryRun` asks for a dry run.
///
/// # Errors
/// 422 for a value other than `All`.
pub(crate) fn dry_run<'a>(
    values: impl Iterator<Item = &'a str>,
    kind: &str,
) -> Result<bool, ApiError> {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|value| *value != "All") {
        let listed: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
        let cause = Cause::unsupported("dryRun", &format!("[{}]", listed.join(",")), "\"All\"");
        return Err(ApiError::invalid_options(kind, cause));
    }
    Ok(!values.is_empty())
}
