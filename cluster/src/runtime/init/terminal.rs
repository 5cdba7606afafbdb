//! `sealane __init terminal PROGRAM ARG…`: makes the terminal on standard input the controlling one,
//! then becomes the program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

pub(super) fn run(mut args: impl Iterator<Item = OsString>) -> io::Result<ExitCode> {
    let Some(program) = args.next() else {
        return Err(io::Error::other("no command"));
    };
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    let error = Command::new(&program).args(args).exec();
    let name = program.to_string_lossy();
    eprintln!("exec: {name:?}: {error}");
    Ok(ExitCode::from(127))
}
