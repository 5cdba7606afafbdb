//! Exit codes, and the one place where an error becomes one.

use std::fmt::Write as _;
use std::process::ExitCode;

/// Why a command ends without having done its job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line, a manifest or another input cannot be used; one line each.
    #[error("{}", .0.join("\n"))]
    Input(Vec<String>),
    /// This machine cannot do what is asked, and what would help.
    #[error("{0}")]
    Machine(String),
    /// Something that was asked for by name is not there.
    #[error("{0}")]
    NotFound(String),
    /// The command did its job and has said what it found; only the exit code is left.
    #[error("exit code {}", .0.number())]
    Found(Finding),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What a command that only looks has found, where that is no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Errors, or something that would be answered with one.
    Errors,
    /// Warnings, and they count.
    Warnings,
    /// Nothing by that name.
    Nothing,
}

impl Finding {
    fn number(self) -> u8 {
        match self {
            Self::Errors => 3,
            Self::Warnings => 4,
            Self::Nothing => 5,
        }
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Other(_) => 1,
            Self::Input(_) => 2,
            Self::Machine(_) => 3,
            Self::NotFound(_) => 5,
            Self::Found(finding) => finding.number(),
        }
    }

    /// The message for people: one line for each problem, causes behind a colon.
    fn message(&self) -> String {
        match self {
            Self::Input(lines) => lines.iter().fold(String::new(), |mut text, line| {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "error: {line}");
                text
            }),
            Self::Machine(line) | Self::NotFound(line) => format!("error: {line}\n"),
            Self::Found(_) => String::new(),
            Self::Other(error) => format!("error: {}\n", chain(error)),
        }
    }
}

/// An error and its causes in one line. An answer of the Kubernetes API is its message, which says
/// it all; the client repeats it in several forms.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            parts.push(status.message.clone());
            break;
        }
        parts.push(cause.to_string());
    }
    parts.join(": ")
}

/// Prints the failure, if there is one, and turns the outcome into the process's exit code.
pub(crate) fn report(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprint!("{}", failure.message());
            ExitCode::from(failure.code())
        }
    }
}
