//! What commands that print share: the form of the output, and when it is coloured.

use clap::ValueEnum;

/// Bold.
pub(crate) const BOLD: &str = "\x1b[1m";
/// Faint.
pub(crate) const DIM: &str = "\x1b[2m";
/// Red.
pub(crate) const RED: &str = "\x1b[31m";
/// Green.
pub(crate) const GREEN: &str = "\x1b[32m";
/// Yellow.
pub(crate) const YELLOW: &str = "\x1b[33m";
/// Back to normal.
pub(crate) const RESET: &str = "\x1b[0m";

/// How results are printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputOptions {
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// When to use colour; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON object
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl OutputOptions {
    /// Makes the choice of colour that of the whole process.
    pub(crate) fn set_color(self) {
        match self.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}
