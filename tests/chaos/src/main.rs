//! `tako-chaos`: arguments, namespaces, exit code.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use tako_chaos::{
    command::{Arguments, run},
    sandbox,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before there are threads: the program may start itself again.
    let sandbox = sandbox::enter(arguments.namespaces());
    let done = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(&arguments, &sandbox)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _nobody_may_listen = writeln!(std::io::stderr(), "tako-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}
