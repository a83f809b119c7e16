//! `tako bench` by itself, for work on the load generator: `… bench --url http://…`.

use std::process::ExitCode;

use clap::Parser;
use tako_loadtest::bench::{self, BenchArgs};

#[derive(Parser)]
enum Command {
    /// Measure and verify a server.
    Bench(Box<BenchArgs>),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let Command::Bench(args) = Command::parse();
    bench::run(*args).await
}
