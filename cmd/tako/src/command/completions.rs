//! `tako completions` and `tako man`: what the shell and `man` know of the commands, from the commands.

use std::{fs, io, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::{arguments::Arguments, failure::Failure};

/// Arguments of `tako completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako completions bash > ~/.local/share/bash-completion/completions/tako
  tako completions zsh > ~/.zfunc/_tako
  tako completions fish > ~/.config/fish/completions/tako.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `tako man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako man ~/.local/share/man/man1 && man tako-cluster")]
pub(crate) struct ManArgs {
    /// The folder for the pages, made where it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Arguments::command(), "tako", &mut script);
    let written = io::stdout().write_all(&script);
    written.map_err(|error| Failure::unavailable(format!("cannot write: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    let cannot = |error: io::Error| {
        Failure::unavailable(format!("cannot write to {}: {error}", args.folder.display()))
    };
    fs::create_dir_all(&args.folder).map_err(cannot)?;
    clap_mangen::generate_to(Arguments::command(), &args.folder).map_err(cannot)?;
    Ok(ExitCode::SUCCESS)
}
