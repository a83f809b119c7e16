//! The options of a short bench, read as the command line reads them.

use clap::Parser;
use tako_loadtest::bench::BenchArgs;

#[derive(Parser)]
#[command(args_override_self = true)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

/// A bench of 300 ms, changed by the options in `text`.
pub(crate) fn args(text: &str) -> BenchArgs {
    let common = "bench --connections 4 --warmup 0s --duration 300ms --keys 50 --value-size 200";
    Cli::parse_from(common.split(' ').chain(text.split(' ').filter(|word| !word.is_empty()))).bench
}
