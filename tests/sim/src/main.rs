//! The simulator by itself; `tako sim` is the same command.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use tako_sim::command::{SimArgs, sim};

/// Runs whole clusters under simulated faults and checks what clients saw
#[derive(Debug, Parser)]
#[command(name = "tako-sim", version)]
struct Arguments {
    #[command(flatten)]
    sim: SimArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let own = std::env::current_exe().map(|path| path.display().to_string());
    let result = match own {
        Ok(own) => sim(&arguments.sim, &[own]),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _nobody_may_listen = writeln!(std::io::stderr(), "tako-sim: {error}");
            ExitCode::from(2)
        }
    }
}
