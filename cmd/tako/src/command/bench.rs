//! `tako bench`: hands over to the load generator.

use std::process::ExitCode;

use tako_loadtest::bench::{self, BenchArgs};
use tako_types::ErrorKind;

use crate::failure::Failure;

pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode, Failure> {
    bench::run(args).await.map_err(|error| Failure::new(ErrorKind::Internal, format!("{error:#}")))
}
