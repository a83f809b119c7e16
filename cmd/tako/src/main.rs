//! `tako`: one binary for every process of a cluster and for the tools around it.
//!
//! Owns arguments, logs, signals and wiring: parse → start what the arguments name → wait →
//! exit code. What the processes do lives in the libraries.
//! Calls: tako-node-core, tako-gateway, tako-coordinator, tako-loadtest.

mod arguments;
mod cluster;
mod command;
mod descriptors;
mod failure;
mod http;
mod listen;
mod logs;
mod low_priority;
mod old_names;
mod signals;
#[cfg(feature = "sim")]
mod sim;
mod trust;
mod ways_in;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser as _;
use tako_gateway::EventLog;

use crate::{
    arguments::{Arguments, Command},
    failure::Failure,
};

/// Requests free on one thread what another one allocated, at every turn: where each thread keeps what
/// it freed for itself, that costs a tenth of the processor time less than with the system's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Fails only when a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse_from(old_names::translate(std::env::args_os()));
    #[cfg(feature = "sim")]
    if let Command::Sim(args) = &arguments.command {
        // It starts itself once for each seed, and has a log of its own in simulated time.
        return sim::run(args);
    }
    let done = logs::start(&arguments.logs).and_then(|events| run(arguments, events));
    match done {
        Ok(code) => code,
        Err(failure) => {
            // Standard error may be gone; the exit code still tells.
            let _ = writeln!(io::stderr(), "tako: {failure}");
            failure.exit_code()
        }
    }
}

/// Says how many threads serve requests, in place of [`request_threads`]; tokio reads it.
const THREADS_VARIABLE: &str = "TOKIO_WORKER_THREADS";

/// Half of the cores: the system's network, the journal and steps take the others, and threads that
/// find too few of them free wait for one another (docs/benchmarks.md).
fn request_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

fn run(arguments: Arguments, events: Arc<EventLog>) -> Result<ExitCode, Failure> {
    let mut builder = match &arguments.command {
        Command::Node(_) | Command::Proxy(_) => {
            descriptors::raise_limit();
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            if std::env::var_os(THREADS_VARIABLE).is_none() {
                builder.worker_threads(request_threads());
            }
            builder
        }
        // Tools leave the cores to the servers.
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::unavailable(format!("cannot start threads: {error}")))?;
    let done = runtime.block_on(async move {
        match arguments.command {
            Command::Cluster(args) => cluster::run(args, &arguments.logs).await,
            Command::Node(args) => command::node::run(args, events).await,
            Command::Proxy(args) => command::proxy::run(args, events).await,
            Command::Coordinator(args) => command::coordinator::run(args, events).await,
            Command::Check(args) => command::check::run(&args),
            Command::Migrate(args) => command::migrate::run(args).await,
            Command::Ctl(args) => command::ctl::run(args).await,
            Command::Bench(args) => command::bench::run(*args).await,
            Command::Tls(args) => command::tls::run(&args),
            Command::Token(args) => command::token::run(&args),
            Command::Completions(args) => command::completions::completions(&args),
            Command::Man(args) => command::completions::man(&args),
            #[cfg(feature = "sim")]
            Command::Sim(args) => Ok(sim::run(&args)),
        }
    });
    // Whatever still blocks a thread does not hold up the end.
    runtime.shutdown_background();
    done
}
