//! `tako sim`: the simulator, in builds with the feature `sim`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use tako_sim::command::{SimArgs, sim};

pub(crate) fn run(args: &SimArgs) -> ExitCode {
    let own = std::env::current_exe().map(|path| path.display().to_string());
    let done = match own {
        Ok(own) => sim(args, &[own, "sim".to_owned()]),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "tako: {error}");
            ExitCode::from(2)
        }
    }
}
